"""Which rows of a data set's languages and layouts are one question.

Layouts number their questions differently (within a subject, or over the whole file), a file may lack a row, and a
translation shares no text with its original. What they share is the order, the right letter, the numbers in the text
and roughly the lengths. So rows of one subject are aligned as sequences (Needleman and Wunsch, 1970), source by
source: each joins the questions that are known so far, or adds one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from whetstone.problems.splits import normalise

GAP = 1.5  # what a row without a partner costs; the scores are in `_scores`
NEAR = 1.5  # an alignment whose score is so little below the best one may be the right one
AT_ONE_PLACE = 0.9  # of the shorter side: right letters that agree under one number, or ...
IN_ORDER = 0.8  # ... of the longer side: right letters that agree in order. Unrelated letters reach about a half
PUBLISHED = {"simple_evals", "mmmlu", "global_mmlu"}  # kinds that publish places; others only have an order
UNKNOWN = "unknown"  # a split that nothing tells
LARGEST = 10_000_000  # pairs of rows of one subject; beyond that only equal places are paired
_THOUSANDS = re.compile(r"(?<=\d)[,.\s](?=\d{3}(?!\d))")


class Row(NamedTuple):
    """One row. `subject` and `split` say which rows may be the same question; `place` is the number that its layout
    gives it (comparable where they are equal); `layout` is what else the source is: its kind and its language."""

    subject: str
    split: str
    place: str
    layout: tuple[str, str]
    question: str
    options: Sequence[str]
    answer: str


class Unaligned(NamedTuple):
    """Rows of a source, all of one subject and split, of which too few right letters agree with the other sources'."""

    source: int
    subject: str
    split: str
    rows: int
    agreeing: int


class _Known(NamedTuple):
    """A question, as its first row tells it."""

    name: str
    row: Row
    texts: dict[str, str]  # language -> question, normalised
    layouts: set[tuple[str, str]]


def align(sources: Sequence[Sequence[Row]]) -> tuple[list[list[list[str]]], list[Unaligned]]:
    """(the names of each row of each source; what could not be aligned). Rows that share a name are one question, or
    can't be told apart. A name is the place of a question's first row, sources taken in the order given."""
    known: dict[tuple[str, str], list[_Known]] = {}
    names: list[list[list[str]]] = [[[]] * len(rows) for rows in sources]
    unaligned: list[Unaligned] = []
    for number, rows in enumerate(sources):
        buckets: dict[tuple[str, str], list[int]] = {}
        for index, row in enumerate(rows):
            buckets.setdefault((row.split, row.subject), []).append(index)
        for bucket, indices in buckets.items():
            indices.sort(key=lambda index: _number(rows[index].place))
            own, before = [rows[index] for index in indices], known.get(bucket, [])
            partners = _partners(own, before)
            if (agreeing := _disagree(own, before, partners.best)) is not None:
                unaligned.append(Unaligned(number, own[0].subject, own[0].split, len(own), agreeing))
            known[bucket], found = _joined(own, before, partners.best)
            for index, name, near in zip(indices, found, partners.near, strict=True):
                names[number][index] = [name, *(before[at].name for at in near)]
    return names, unaligned + _strangers(sources)


def _number(place: str) -> int:
    """`anatomy/test/7` -> 7; places without a number stay in the order of their rows."""
    found = re.search(r"\d+$", place)
    return int(found[0]) if found else 0


def _disagree(own: list[Row], before: list[_Known], partners: list[int | None]) -> int | None:
    """How many right letters agree, if too few do; None where enough do, or nothing is there to agree with."""
    free = sum(own[0].layout not in one.layouts for one in before)
    pairs = [(row, before[at].row) for row, at in zip(own, partners, strict=True) if at is not None]
    same = [row.place == other.place for row, other in pairs if row.answer == other.answer]
    shorter, longer = sorted((len(own), free))
    fits = sum(same) >= AT_ONE_PLACE * shorter or len(same) >= IN_ORDER * longer
    return None if fits else len(same)


def _strangers(sources: Sequence[Sequence[Row]]) -> list[Unaligned]:
    """A language that shares no subject of a split with any other: they may be the same ones under other names."""
    everywhere = {(row.layout[1], (row.split, row.subject)) for rows in sources for row in rows}
    found = []
    for number, rows in enumerate(sources):
        for split in sorted({row.split for row in rows}):
            own = [row for row in rows if row.split == split]
            mine = {part for language, part in everywhere if language == own[0].layout[1] and part[0] == split}
            others = {part for language, part in everywhere if language != own[0].layout[1]}
            near = {part for part in others if part[0] == split or UNKNOWN in (split, part[0])}
            if near and not mine & near:
                found.append(Unaligned(number, own[0].subject, split, len(own), 0))
    return found


def _joined(own: list[Row], before: list[_Known], partners: list[int | None]) -> tuple[list[_Known], list[str]]:
    """The known questions with these rows among them, in order, and the rows' names."""
    after, names, taken, used = [], [], 0, {one.name for one in before}
    limits = [len(before)]  # for each row, how far the known ones may be taken: to the partner of a later row
    for at in reversed(partners):
        limits.append(limits[-1] if at is None else at)
    for row, at, limit in zip(own, partners, reversed(limits), strict=False):
        text = normalise(row.question)
        if at is None:
            while taken < limit and _number(before[taken].row.place) < _number(row.place):
                after.append(before[taken])
                taken += 1
            name = ":".join([row.place, *row.layout]) if row.place in used else row.place
            after.append(_Known(name, row, {row.layout[1]: text}, {row.layout}))
        else:
            after += before[taken : at + 1]
            taken = at + 1
            after[-1].texts.setdefault(row.layout[1], text)
            after[-1].layouts.add(row.layout)
        names.append(after[-1].name)
    return after + before[taken:], names


def _numbers(text: str) -> str:
    """The digits of a text in whatever script, thousands joined, sorted: a translator leaves them."""
    plain = "".join(str(unicodedata.decimal(char, char)) for char in unicodedata.normalize("NFKC", text))
    return " ".join(sorted(re.findall(r"\d+", _THOUSANDS.sub("", plain))))


def _codes(own: list[str], others: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers for texts, (own, 1) and (1, others), equal where the texts are, so that all pairs compare at once."""
    codes = np.unique(np.array([*own, *others]), return_inverse=True)[1]
    return codes[: len(own), None], codes[None, len(own) :]


def _same(own: list[str], others: list[str], equal: float, differ: float) -> np.ndarray:
    """(own, others): `equal` or `differ`, 0 where both are empty."""
    a, b = _codes(own, others)
    empty = np.array([not text for text in own])[:, None] & np.array([not text for text in others])[None]
    return np.where(a == b, np.where(empty, 0.0, equal), differ)


def _lengths(rows: Sequence[Row]) -> np.ndarray:
    """(rows, 2) logarithms of the characters of question and options, less their medians: languages differ."""
    logs = np.log1p([[len(row.question), sum(map(len, row.options))] for row in rows])
    return logs - np.median(logs, axis=0)


def _scores(own: list[Row], before: list[_Known]) -> np.ndarray:
    """(own, before): how much speaks for each two being one question."""
    theirs, layout = [one.row for one in before], own[0].layout
    texts, their_texts = [normalise(row.question) for row in own], [one.texts.get(layout[1], "") for one in before]
    found = _same([row.answer for row in own], [row.answer for row in theirs], 1.0, -2.0)
    places = _same([row.place for row in own], [row.place for row in theirs], 1.0, 0.0)
    found += places * np.array([2.0 if {layout[0], row.layout[0]} <= PUBLISHED else 0.5 for row in theirs])
    found += _same(texts, their_texts, 3.0, 0.0)
    for part in (lambda row: row.question, lambda row: " ".join(row.options)):
        found += _same([_numbers(part(row)) for row in own], [_numbers(part(row)) for row in theirs], 1.0, -0.5)
    apart = np.abs(_lengths(own)[:, None] - _lengths(theirs)[None]).mean(axis=2)
    found += np.clip(1 - apart / 0.5, -1, 1)
    a, b = _codes(texts, their_texts)
    taken = np.array([layout in one.layouts for one in before])  # then only its own text again is this question
    return np.where(taken & (a != b), -np.inf, found)


class _Partners(NamedTuple):
    """For each row the position of the known question that it is, increasing, None for a new one; and the positions of
    those that it may be as well: next to a row that is missing, two neighbours can look alike."""

    best: list[int | None]
    near: list[list[int]]


def _partners(own: list[Row], before: list[_Known]) -> _Partners:
    if not before:
        return _Partners([None] * len(own), [[]] * len(own))
    if len(own) * len(before) > LARGEST:
        return _Partners(_by_place(own, before), [[]] * len(own))
    scores = _scores(own, before)
    best = _prefixes(scores)
    after = _prefixes(scores[::-1, ::-1])[::-1, ::-1]
    through = best[:-1, :-1] + scores + after[1:, 1:]
    near = [np.flatnonzero(row > best[-1, -1] - NEAR).tolist() for row in through]
    partners: list[int | None] = [None] * len(own)
    i, j = scores.shape
    while i and j:
        if abs(best[i, j] - best[i - 1, j - 1] - scores[i - 1, j - 1]) < 1e-6:
            i, j = i - 1, j - 1
            partners[i] = j
        elif abs(best[i, j] - best[i, j - 1] + GAP) < 1e-6:
            j -= 1
        else:
            i -= 1
    return _Partners(partners, near)


def _prefixes(scores: np.ndarray) -> np.ndarray:
    """(rows + 1, columns + 1): the best score of the first rows aligned with the first columns."""
    rows, columns = scores.shape
    steps = GAP * np.arange(columns + 1)
    best = np.empty((rows + 1, columns + 1))
    best[0] = -steps
    for i in range(rows):
        reached = np.concatenate([[best[i, 0] - GAP], np.maximum(best[i, 1:] - GAP, best[i, :-1] + scores[i])])
        best[i + 1] = np.maximum.accumulate(reached + steps) - steps  # and with known questions skipped
    return best


def _by_place(own: list[Row], before: list[_Known]) -> list[int | None]:
    """As `_partners`, where there are too many rows to compare each with each."""
    at = {one.row.place: position for position, one in enumerate(before) if own[0].layout not in one.layouts}
    partners, last = [], -1
    for row in own:
        position = at.get(row.place, -1)
        partners.append(position if position > last else None)
        last = max(last, position)
    return partners
