"""Decoding many prompts that share a prefix: rows side by side in the slots of one cache.

A prompt is read up to its last token, which is the input of the row's first decoding step. So logits come from
single-token steps only, however many samples share the prompt and whenever a row was let in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch

from whetstone.engines.attention import BLOCK, ROWS, SlotCache, attending, round_up
from whetstone.engines.base import Request
from whetstone.engines.sampling import choose, uniforms

PROMPT_TOKENS = 1024  # prompt tokens in one forward pass: enough for full speed on a CPU, little memory
SHARERS = 16  # fewer prompts than this aren't worth a prefix of their own
DECIMALS = 4  # of a log-probability: finer than any use, coarser than what another kernel rounds differently


@dataclasses.dataclass
class Row:
    """One completion in the making."""

    index: int
    sample: int
    prompt: list[int]
    request: Request
    limit: int = 0
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    reason: str | None = None


def extend(rows: Sequence[Row], logits: torch.Tensor) -> None:
    """Gives each row its next token, from its row of `logits` (rows, vocabulary) and its own noise."""
    settings = [row.request.sampling for row in rows]
    noise = uniforms(
        np.array([row.request.seed for row in rows]),
        np.array([row.sample for row in rows]),
        np.array([len(row.tokens) for row in rows]),
    )
    tokens, logprobs = choose(
        logits, np.array([s.temperature for s in settings]), np.array([s.top_p for s in settings]), noise
    )
    logprobs = logprobs.astype(np.float64).round(DECIMALS)
    for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
        row.tokens.append(token)
        row.logprobs.append(logprob)


class Decoder:
    """`finished` tells, and notes in the row, whether the token that a row just got ended it."""

    def __init__(self, model: torch.nn.Module, slots: int, finished: Callable[[Row], bool]):
        self.model, self.slots, self.finished = model, slots, finished
        self.device = next(model.parameters()).device

    def run(self, rows: list[Row], prefix: int) -> Iterator[Row]:
        """Rows that share `prefix` tokens, as they finish."""
        own = max(len(row.prompt) + row.limit for row in rows) - prefix
        cache = self._cache(min(self.slots, round_up(len(rows), ROWS)), own, rows[0].prompt[:prefix])
        waiting = sorted(rows, key=lambda row: (len(row.prompt), row.prompt, row.index, row.sample))
        active: list[Row] = []
        last, length = np.zeros((2, cache.slots), dtype=np.int64)
        length[:] = cache.tail  # where an empty slot writes, so that it spoils nothing
        while waiting or active:
            room = cache.slots - len(active)
            if waiting and (room >= cache.slots // 8 or not active):
                fresh = [waiting.pop() for _ in range(min(room, len(waiting)))]
                first = len(active)
                self._admit(cache, fresh, first, prefix)
                active += fresh
                last[first : len(active)] = [row.prompt[-1] for row in fresh]
                length[first : len(active)] = [len(row.prompt) - cache.prefix - 1 for row in fresh]
            count = round_up(len(active), ROWS)
            logits = self._step(cache, last[:count], length[:count])[: len(active)]
            extend(active, logits)
            last[: len(active)] = [row.tokens[-1] for row in active]
            length[: len(active)] += 1
            finished = [slot for slot, row in enumerate(active) if self.finished(row)]
            yield from (active[slot] for slot in finished)
            self._compact(cache, active, last, length, finished)

    def _admit(self, cache: SlotCache, fresh: list[Row], first: int, prefix: int) -> None:
        """Reads each distinct prompt once, and copies it to the slots of its other samples."""
        slots = range(first, first + len(fresh))
        heads = {tuple(row.prompt): slot for slot, row in reversed(list(zip(slots, fresh, strict=True)))}
        self._read(cache, [list(prompt[prefix:-1]) for prompt in heads], list(heads.values()), prefix)
        copies = [(heads[tuple(row.prompt)], slot) for slot, row in zip(slots, fresh, strict=True)]
        copies = [(source, target) for source, target in copies if source != target]
        if copies:
            sources, targets = torch.tensor(copies, device=self.device).T
            cache.copy(sources, targets, max(len(row.prompt) for row in fresh) - cache.prefix)

    def _compact(
        self, cache: SlotCache, active: list[Row], last: np.ndarray, length: np.ndarray, finished: list[int]
    ) -> None:
        """Rows from the end move into the slots that became free."""
        left = len(active) - len(finished)
        holes = [slot for slot in finished if slot < left]
        gone = set(finished)
        movers = [slot for slot in range(left, len(active)) if slot not in gone]
        if holes:
            cache.copy(torch.tensor(movers), torch.tensor(holes), int(length[movers].max()))
            last[holes], length[holes] = last[movers], length[movers]
            for hole, mover in zip(holes, movers, strict=True):
                active[hole] = active[mover]
        del active[left:]
        last[left:], length[left:] = 0, cache.tail

    def next_logits(
        self, members: Sequence[int], prompts: Sequence[Sequence[int]], prefix: int
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Some of `members` at a time, with the logits (members, vocabulary) right after their prompts."""
        members = sorted(members, key=lambda i: -len(prompts[i]))
        slots = min(self.slots, round_up(len(members), ROWS))
        cache = self._cache(slots, len(prompts[members[0]]) - prefix, prompts[members[0]][:prefix])
        for at in range(0, len(members), cache.slots):
            batch = members[at : at + cache.slots]
            self._read(cache, [prompts[i][prefix:-1] for i in batch], range(len(batch)), prefix)
            last = np.zeros(round_up(len(batch), ROWS), dtype=np.int64)
            length = np.full_like(last, cache.tail)
            last[: len(batch)] = [prompts[i][-1] for i in batch]
            length[: len(batch)] = [len(prompts[i]) - cache.prefix - 1 for i in batch]
            yield batch, self._step(cache, last, length)[: len(batch)]

    def _forward(self, cache: SlotCache, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits of the last position, (rows, vocabulary)."""
        with attending(cache):
            return self.model(
                input_ids=ids.to(self.device),
                position_ids=positions.to(self.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]

    def _cache(self, slots: int, own: int, shared: Sequence[int]) -> SlotCache:
        """A cache for rows of at most `own` tokens after the shared ones, whose keys and values are computed here."""
        cache = SlotCache(slots, len(shared) % BLOCK + round_up(own, ROWS))
        if shared:
            single = SlotCache(1, round_up(len(shared), ROWS))
            self._read(single, [list(shared)], [0], 0)
            cache.share(single, len(shared))
        return cache

    def _read(self, cache: SlotCache, parts: Sequence[Sequence[int]], slots: Sequence[int], shared: int) -> None:
        """Writes the keys and values of one prompt part per slot, which follows `shared` tokens, in passes of about
        PROMPT_TOKENS tokens."""
        order = sorted((i for i in range(len(parts)) if parts[i]), key=lambda i: -len(parts[i]))
        own, at = shared - cache.prefix, 0
        while at < len(order):
            width = round_up(len(parts[order[at]]), ROWS)
            batch = order[at : at + max(1, PROMPT_TOKENS // width)]
            at += len(batch)
            ids = np.zeros((len(batch), width), dtype=np.int64)
            for row, i in enumerate(batch):
                ids[row, : len(parts[i])] = parts[i]
            rows = torch.tensor([slots[i] for i in batch], device=self.device)
            for start in range(0, width, PROMPT_TOKENS):
                piece = torch.from_numpy(ids[:, start : start + PROMPT_TOKENS])
                cache.prompts(rows, own + start, piece.shape[1])
                positions = torch.arange(shared + start, shared + start + piece.shape[1])
                positions.clamp_(max=shared + len(parts[batch[0]]) - 1)  # padding stays within the model's context
                self._forward(cache, piece, positions.expand(len(batch), -1))

    def _step(self, cache: SlotCache, last: np.ndarray, length: np.ndarray) -> torch.Tensor:
        """One token per row, in slots 0, 1, ..., at these own positions: logits of the next."""
        own = torch.from_numpy(length)
        cache.tokens(own.to(self.device))
        return self._forward(cache, torch.from_numpy(last)[:, None], (own + cache.prefix)[:, None])


def prefix_groups(prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], int]]:
    """Splits prompts into groups (their indices) with the number of tokens that all of a group share: 0, or BLOCK and
    more, and fewer than its shortest prompt has. A group splits where SHARERS of its prompts go on alike for BLOCK."""
    groups: list[tuple[list[int], int]] = []

    def split(members: list[int]) -> None:
        first, final = prompts[members[0]], prompts[members[-1]]  # sorted: what these share, all share
        most = min(len(prompts[i]) for i in members) - 1
        same = next((i for i in range(min(len(first), len(final))) if first[i] != final[i]), most)
        prefix = min(same, most)
        prefix = prefix if prefix >= BLOCK else 0
        runs = [list(run) for _, run in groupby(members, key=lambda i: tuple(prompts[i][prefix : prefix + BLOCK]))]
        rest = [i for run in runs if len(run) < SHARERS or len(runs) == 1 for i in run]
        for run in runs:
            if len(run) >= SHARERS and len(runs) > 1:
                split(run)
        if rest:
            groups.append((rest, prefix))

    if prompts:
        split(sorted(range(len(prompts)), key=lambda i: list(prompts[i])))
    return groups
