"""Attention over a shared prefix: its keys and values exist once, and every row adds its own.

A row's keys are the prefix's (one copy for all rows) followed by its own, in the row's slot of a preallocated buffer.
Scores against the prefix are one large matrix product for all rows, scores against a row's own keys a batched one; one
softmax spans both.

Exactness. In float32 on a CPU the result of a row depends neither on the other rows nor on where its prompt was cut
into prefix and own part, since every number is the same sum in the same order:
- the rows of a product are a multiple of four (fewer take another kernel in oneMKL, which rounds differently);
- scores are summed over the head's dimension, whichever product they come from;
- the softmax sees a whole row at once; masked entries at its end add zero;
- values are summed in blocks of BLOCK positions aligned to the sequence, and the cut is at such a block.
tests/engines holds this on the machine at hand. Another BLAS may round differently: then the last bits change.
"""

from __future__ import annotations

import contextlib
import math
import types
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import linear, pad
from transformers import AttentionInterface, Cache

NAME = "shared_prefix"
BLOCK = 64
ROWS = 16  # rows, and prompt positions, of a pass are a multiple of this


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class Unsupported(Exception):
    """The model's attention has a part that this one lacks."""


class SlotCache(Cache):
    """Keys and values of one shared prefix, and of `slots` rows with room for `capacity` own positions each.

    Own positions are kept in blocks: a layer's values have shape (blocks, slots, kv heads, BLOCK, head dimension), its
    keys the same with the last two swapped. A block of the first n rows is one piece of memory.
    """

    def __init__(self, slots: int, capacity: int):
        super().__init__(layers=[])
        self.slots, self.blocks, self.prefix, self.tail = slots, -(-capacity // BLOCK), 0, 0
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.prefix_keys: list[torch.Tensor] = []  # kv heads, prefix, head dimension
        self.prefix_values: list[torch.Tensor] = []  # kv heads, prefix / BLOCK, head dimension, BLOCK

    def prompts(self, rows: torch.Tensor, start: int, tokens: int) -> None:
        """The next pass writes `tokens` tokens into each of the slots `rows`, from own position `start` on."""
        self.single, self.rows = False, rows
        positions = torch.arange(start, start + tokens, device=rows.device)
        self.place = (positions // BLOCK)[None], rows[:, None], (positions % BLOCK)[None]
        self.counts = [len(rows)] * (-(-(start + tokens) // BLOCK))
        keys = torch.arange(len(self.counts) * BLOCK, device=rows.device)
        self.hidden = (keys > positions[:, None])[None, None, None]

    def tokens(self, positions: torch.Tensor) -> None:
        """The next pass writes one token into each of the first slots, at these own positions, one per slot."""
        self.single, count = True, len(positions)
        device = positions.device
        self.place = positions // BLOCK, torch.arange(count, device=device), positions % BLOCK
        block = self.place[0].cpu()
        self.counts = [
            round_up(int((block >= j).nonzero()[-1]) + 1, ROWS) for j in range(int(block.max()) + 1)
        ]  # rows up to the last one that has a token in block j
        keys = torch.arange(len(self.counts) * BLOCK, device=device)
        self.hidden = (keys > positions[:, None])[:, None, None, None]

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: object, **__: object):
        """Keys and values (rows, kv heads, tokens, dimension) go to their places; attention takes them from there."""
        if layer_idx == len(self.keys):
            heads, wide, deep = key.shape[1], key.shape[3], value.shape[3]
            self.keys.append(_zeros(key, self.blocks, self.slots, heads, wide, BLOCK))
            self.values.append(_zeros(value, self.blocks, self.slots, heads, BLOCK, deep))
        block, row, offset = self.place
        if self.single:
            key, value = key[:, :, 0], value[:, :, 0]
        else:
            key, value = key.transpose(1, 2), value.transpose(1, 2)
        self.keys[layer_idx][block, row, :, :, offset] = key
        self.values[layer_idx][block, row, :, offset] = value
        self.layer = layer_idx
        return key, value

    def own(self, block: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of one block of `count` rows of this pass: (count * kv heads, ., .)."""
        keys, values = self.keys[self.layer][block], self.values[self.layer][block]
        if self.single:
            return keys[:count].flatten(0, 1), values[:count].flatten(0, 1)
        return keys[self.rows].flatten(0, 1), values[self.rows].flatten(0, 1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def share(self, other: SlotCache, length: int) -> None:
        """The first `length` positions of the other cache's slot 0 come before every row here: whole blocks as a
        prefix that exists once, the rest as the first own positions of every slot."""
        whole = length // BLOCK
        self.prefix, self.tail = whole * BLOCK, length % BLOCK
        self.prefix_keys = [keys[:whole, 0].permute(1, 0, 3, 2).flatten(1, 2).contiguous() for keys in other.keys]
        self.prefix_values = [values[:whole, 0].permute(1, 0, 3, 2).contiguous() for values in other.values]
        for theirs, ours in ((other.keys, self.keys), (other.values, self.values)):
            for layer in theirs:
                ours.append(_zeros(layer, self.blocks, self.slots, *layer.shape[2:]))
                if self.tail:
                    ours[-1][0] = layer[whole, 0]

    def copy(self, sources: torch.Tensor, targets: torch.Tensor, length: int) -> None:
        """Slots `targets` get the first `length` own positions of slots `sources`."""
        for store in (*self.keys, *self.values):
            for block in store[: -(-length // BLOCK)]:
                block[targets] = block[sources]


def _zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """On a CPU from memory that the system zeroes page by page as it is touched: few rows reach their last block."""
    if like.device.type == "cpu":
        blank = np.zeros(math.prod(shape) * like.element_size(), dtype=np.uint8)
        return torch.from_numpy(blank).view(like.dtype).view(shape)
    return like.new_zeros(shape)


_active: list[SlotCache] = []


@contextlib.contextmanager
def attending(cache: SlotCache) -> Iterator[None]:
    """The cache that attention reads while a forward pass runs."""
    _active.append(cache)
    try:
        yield
    finally:
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
    """As transformers calls it: query (rows, heads, tokens, dimension), output (rows, tokens, heads, dimension)."""
    if not _active:
        raise Unsupported("no slot cache is active")
    cache = _active[-1]
    window = kwargs.get("sliding_window")
    if window and window < cache.prefix + cache.blocks * BLOCK:
        raise Unsupported(f"its attention has a window of {window} tokens")
    for name in ("softcap", "s_aux", "position_bias", "head_mask"):
        if kwargs.get(name) is not None:
            raise Unsupported(f"its attention has {name}")
    if attention_mask is not None:
        raise Unsupported("its attention needs a mask")
    rows, heads, tokens, width = query.shape
    kv_heads, prefix, layer = cache.keys[cache.layer].shape[2], cache.prefix, cache.layer
    deep = cache.values[layer].shape[-1]
    lines = heads // kv_heads * tokens  # query vectors of a row that share a key head
    query = (query * (width**-0.5 if scaling is None else scaling)).reshape(rows, kv_heads, lines, width)
    scores = query.new_empty(rows, kv_heads, lines, prefix + len(cache.counts) * BLOCK)
    if prefix:
        for head in range(kv_heads):
            shared = _product(query[:, head].reshape(rows * lines, width), cache.prefix_keys[layer][head])
            scores[:, head, :, :prefix] = shared.view(rows, lines, prefix)
    short = max(0, 4 - lines)
    padded = pad(query, (0, 0, 0, short)) if short else query
    for block, count in enumerate(cache.counts):
        at = prefix + block * BLOCK
        own = torch.bmm(padded[:count].flatten(0, 1), cache.own(block, count)[0])
        scores[:count, :, :, at : at + BLOCK] = own.view(count, kv_heads, -1, BLOCK)[:, :, :lines]
    own = scores[..., prefix:].unflatten(2, (heads // kv_heads, tokens))
    own.masked_fill_(cache.hidden, float("-inf"))
    if scores.dtype == torch.float32:
        weights = torch.softmax(scores, -1, out=scores)
    else:
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    output = query.new_zeros(rows, kv_heads, lines + short, deep)
    for head in range(kv_heads if prefix else 0):
        summed = None
        for block, values in enumerate(cache.prefix_values[layer][head]):
            part = weights[:, head, :, block * BLOCK : (block + 1) * BLOCK].flatten(0, 1)
            part = _product(part, values)
            summed = part if summed is None else summed.add_(part)
        output[:, head, :lines] = summed.view(rows, lines, deep)
    for block, count in enumerate(cache.counts):
        at = prefix + block * BLOCK
        part = weights[:count, :, :, at : at + BLOCK]
        part = (pad(part, (0, 0, 0, short)) if short else part).flatten(0, 1)
        output[:count].flatten(0, 1).baddbmm_(part, cache.own(block, count)[1])
    return output[:, :, :lines].reshape(rows, heads, tokens, deep).transpose(1, 2), None


AttentionInterface.register(NAME, shared_prefix_attention)


def _onednn(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`rows` (m, k) times `weight` (n, k) transposed, by oneDNN where it is there: oneMKL, which PyTorch takes for
    float32, is half as fast on processors that aren't Intel's."""
    if _onednn(rows):
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return linear(rows, weight, bias)


@contextlib.contextmanager
def fast_linear(model: torch.nn.Module) -> Iterator[None]:
    """The model's linear layers go through `_product` for a while."""
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear and _onednn(layer.weight)]
    for layer in layers:
        layer.forward = types.MethodType(lambda self, rows: _product(rows, self.weight, self.bias), layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
