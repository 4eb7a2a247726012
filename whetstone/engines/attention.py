"""Attention over a shared prefix: its keys and values exist once, and every row adds its own.

A row's keys are the prefix's (`prefix` tokens, one copy for all rows) followed by its own (in a slot of a preallocated
buffer). Scores against the prefix are one large matrix product for all rows, scores against a row's own keys a batched
one; one softmax spans both.

Exactness. In float32 on a CPU the result of a row doesn't depend on the other rows, nor on where its prompt was cut into
prefix and own part, because every product is made of the same sums in the same order:
- a product has at least four query rows (fewer take another kernel in oneMKL), and their number is a multiple of four;
- scores are summed over the head's dimension, whichever product they come from;
- the softmax sees the whole row at once; masked entries at its end add zero;
- values are summed in blocks of BLOCK positions that are aligned to the sequence, so the cut is always at such a block.
tests/engines holds this on the machine at hand; another BLAS may round differently, which costs the last bits only.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface, Cache

NAME = "shared_prefix"
BLOCK = 64
ROWS = 16  # the number of rows and of prompt positions in a batch is a multiple of this


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class Unsupported(Exception):
    """The model's attention has a part that this one lacks."""


class SlotCache(Cache):
    """Keys and values of `slots` rows, `capacity` own positions each, and of one shared prefix.

    `begin` says where the next forward pass writes: `rows` are the slots, `start` the own position of its first token,
    the same for every row (prompts) or one per row (single tokens).
    """

    def __init__(self, slots: int, capacity: int):
        super().__init__(layers=[])
        self.slots, self.capacity, self.prefix = slots, capacity, 0
        self.keys: list[torch.Tensor] = []  # per layer: slots, kv heads, capacity, head dimension
        self.values: list[torch.Tensor] = []
        self.prefix_keys: list[torch.Tensor] = []  # per layer: kv heads, prefix, head dimension
        self.prefix_values: list[torch.Tensor] = []
        self.scratch: torch.Tensor | None = None

    def begin(self, rows: torch.Tensor | int, start: torch.Tensor | int, tokens: int) -> None:
        """`rows`: the slots of a pass over prompts, or the number of active slots of a single-token pass."""
        self.rows, self.start, self.tokens = rows, start, tokens
        self.layer = -1
        if tokens == 1:
            self.length = round_up(int(start.max()) + 1, ROWS)
            places = torch.arange(self.length, device=start.device)
            self.hidden = (places > start[:, None])[:, None, None]  # rows, 1, 1, length
            self.index = torch.arange(rows, device=start.device)
        else:
            self.length = round_up(start + tokens, ROWS)
            device = rows.device
            queries = torch.arange(start, start + tokens, device=device)
            self.hidden = (torch.arange(self.length, device=device) > queries[:, None])[None, None]

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: object, **__: object):
        if layer_idx == len(self.keys):
            for store, new in ((self.keys, key), (self.values, value)):
                store.append(new.new_zeros(self.slots, new.shape[1], self.capacity, new.shape[3]))
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        if self.tokens == 1:
            keys[self.index, :, self.start] = key[:, :, 0]
            values[self.index, :, self.start] = value[:, :, 0]
        else:
            keys[self.rows, :, self.start : self.start + self.tokens] = key
            values[self.rows, :, self.start : self.start + self.tokens] = value
        self.layer = layer_idx
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def share(self, other: SlotCache, length: int) -> None:
        """The first `length` positions of the other cache's slot 0 become the prefix of every row here."""
        self.prefix = length
        self.prefix_keys = [keys[0, :, :length].clone() for keys in other.keys]
        self.prefix_values = [values[0, :, :length].clone() for values in other.values]

    def copy(self, sources: torch.Tensor, targets: torch.Tensor, length: int) -> None:
        """Slots `targets` get the first `length` own positions of slots `sources`."""
        for store in (*self.keys, *self.values):
            store[targets, :, :length] = store[sources, :, :length]


_active: list[SlotCache] = []


class attending:
    """The cache that the attention of this module reads while a forward pass runs."""

    def __init__(self, cache: SlotCache):
        self.cache = cache

    def __enter__(self) -> None:
        _active.append(self.cache)

    def __exit__(self, *_: object) -> None:
        _active.pop()


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Registered with transformers: query (rows, heads, tokens, dimension) to output (rows, tokens, heads, dimension)."""
    if not _active:
        raise Unsupported("no slot cache is active")
    cache = _active[-1]
    window = kwargs.get("sliding_window")
    for name in ("softcap", "s_aux", "position_bias", "head_mask"):
        if kwargs.get(name) is not None:
            raise Unsupported(f"its attention has {name}")
    if attention_mask is not None or (window and window < cache.prefix + cache.capacity):
        raise Unsupported("its attention is masked or windowed")
    rows, heads, tokens, dimension = query.shape
    keys, values = cache.keys[cache.layer], cache.values[cache.layer]
    kv_heads, prefix, length = keys.shape[1], cache.prefix, cache.length
    if tokens == 1:
        keys, values = keys[:rows, :, :length], values[:rows, :, :length]
    else:
        keys, values = keys[cache.rows, :, :length], values[cache.rows, :, :length]
    group = heads // kv_heads
    query = (query * (dimension**-0.5 if scaling is None else scaling)).reshape(rows, kv_heads, group * tokens, dimension)
    padded = max(4, group * tokens)
    if padded > group * tokens:
        query = torch.nn.functional.pad(query, (0, 0, 0, padded - group * tokens))
    scores = query.new_empty(rows, kv_heads, padded, prefix + length)
    flat = scores.view(rows * kv_heads, padded, prefix + length)
    if prefix:
        shared = query.transpose(0, 1).reshape(kv_heads, rows * padded, dimension)
        target = scores.transpose(0, 1)[..., :prefix]
        scored = torch.bmm(shared, cache.prefix_keys[cache.layer].transpose(1, 2))
        target.copy_(scored.view(kv_heads, rows, padded, prefix))
    own_keys = keys.reshape(rows * kv_heads, length, dimension)
    flat[..., prefix:] = torch.bmm(query.reshape(rows * kv_heads, padded, dimension), own_keys.transpose(1, 2))
    own = scores[:, :, : group * tokens, prefix:].unflatten(2, (group, tokens))
    own.masked_fill_(cache.hidden[:, :, None], float("-inf"))
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    width = values.shape[-1]
    output = query.new_zeros(rows * kv_heads, padded, width)
    if prefix:
        shared = weights[..., :prefix].transpose(0, 1).reshape(kv_heads, rows * padded, prefix)
        summed = query.new_zeros(kv_heads, rows * padded, width)
        for at in range(0, prefix, BLOCK):
            summed.baddbmm_(shared[..., at : at + BLOCK], cache.prefix_values[cache.layer][:, at : at + BLOCK])
        output = summed.view(kv_heads, rows, padded, width).transpose(0, 1).reshape(rows * kv_heads, padded, width)
    own_values = values.reshape(rows * kv_heads, length, width)
    flat_weights = weights.view(rows * kv_heads, padded, prefix + length)
    for at in range(0, length, BLOCK):
        end = min(at + BLOCK, length)
        output.baddbmm_(flat_weights[..., prefix + at : prefix + end], own_values[:, at:end])
    output = output.view(rows, kv_heads, padded, width)[:, :, : group * tokens]
    return output.reshape(rows, heads, tokens, width).transpose(1, 2), None


AttentionInterface.register(NAME, shared_prefix_attention)
