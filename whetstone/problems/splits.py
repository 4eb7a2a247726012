"""Which split and part a problem is in, and which problems are too alike to be in two splits.

Splits and parts follow from a hash of the problem's group alone: the same problem is in the same place whatever else
is loaded beside it, in whatever order, and no group straddles two splits or two parts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from whetstone.errors import UserError
from whetstone.records import fingerprint

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")


def words(text: str) -> list[str]:
    """Words and numbers in lower case: spacing, punctuation and the comma of 1,000 don't set two questions apart."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _TOKEN.findall(re.sub(r"(?<=\d),(?=\d{3})", "", folded))


def normalise(text: str) -> str:
    """The text by which two questions are the same question."""
    return " ".join(words(text))


def group_of(question: str) -> str:
    """The group of a problem and of all that was made from it: a fingerprint of the normalised original question.
    A question of GSM8K and what MetaMathQA made of it are one group."""
    return fingerprint("group", normalise(question))


def uniform(*key: object) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int(fingerprint(*key), 16) / 2**64


def part_of(group: str, parts: int = 5) -> int:
    """1..parts, by hash of the group (independent of the hash that holds groups out)."""
    return 1 + int(uniform("part", group) * parts)


def hold_out(problems: pd.DataFrame, share: float, split: str = "dev", seed: int = 0) -> pd.DataFrame:
    """The problems, with about `share` of the groups of `train` moved to `split` (part 0).

    Raises:
        UserError: the share isn't in [0, 1), or leaves one of the two splits without a problem.
    """
    if not 0 <= share < 1:
        raise UserError(f"share of `{split}` is {share}; expected 0 <= share < 1")
    chosen = (problems["split"] == "train") & problems["group"].map(lambda g: uniform(split, seed, g) < share)
    held, train = int(chosen.sum()), int((problems["split"] == "train").sum())
    if share and held in (0, train):
        raise UserError(f"`{split}` gets {held} of {train} train problems at share {share:g}; load more, or change it")
    return problems.assign(split=problems["split"].mask(chosen, split), part=problems["part"].mask(chosen, 0))


def straddling(problems: pd.DataFrame) -> list[str]:
    """Groups that are in one part of train, or in dev, and also elsewhere, sorted; `hold_out`, `part_of` leave none.
    Two evaluation sets may share a question (AddSub and SingleEq do): nothing is learnt from either."""
    places = problems[["group", "split", "part"]].drop_duplicates()
    torn = places["group"].duplicated(keep=False) & places["split"].isin(["train", "dev"])
    return sorted(places["group"][torn].unique())


def deduplicate(problems: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row per normalised question, the first; all rows of a question whose rows disagree about the answer go.

    Returns:
        the rows that stay, and the number dropped by reason: `repeated`, `conflicting`.
    """
    key = problems["question"].map(normalise)
    conflicting = problems["answer"].groupby(key).transform("nunique") > 1
    repeated = key.duplicated() & ~conflicting
    counts = {"repeated": int(repeated.sum()), "conflicting": int(conflicting.sum())}
    return problems[~(repeated | conflicting)].reset_index(drop=True), counts


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """All runs of n words; a shorter text is one run, so that it still matches itself."""
    tokens = words(text)
    return {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))} if tokens else set()


def overlaps(questions: Iterable[str], against: Iterable[str], n: int = 13) -> dict[int, tuple[int, str]]:
    """Questions that share a run of n words with one of `against`, equal it, or hold it whole (from n // 2 words on).

    Returns:
        position in `questions` -> (position in `against` of the first match, the shared words).
    """
    index: dict[tuple[str, ...], int] = {}
    for position, text in enumerate(against):
        for run in ngrams(text, n):
            index.setdefault(run, position)
    lengths = {len(run) for run in index if n // 2 <= len(run) < n}
    found: dict[int, tuple[int, str]] = {}
    for position, text in enumerate(questions):
        runs = ngrams(text, n).union(*(ngrams(text, length) for length in lengths))
        shared = [(index[run], run) for run in runs if run in index]
        if shared:
            first, run = min(shared)
            found[position] = (first, " ".join(run))
    return found


def decontaminate(
    problems: pd.DataFrame, evaluation: Mapping[str, Sequence[str]], n: int = 13
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Training problems without those that overlap (see `overlaps`) with a question of an evaluation set.

    Args:
        evaluation: name of the set -> its questions.

    Returns:
        the rows that stay, and the ids dropped, by the name of the first set that they overlap with.
    """
    asked = [(name, question) for name, questions in evaluation.items() for question in questions]
    dropped: dict[str, list[str]] = {name: [] for name in evaluation}
    found = overlaps(problems["question"], (question for _, question in asked), n)
    for position, (match, _) in found.items():
        dropped[asked[match][0]].append(problems["id"].iloc[position])
    return problems.drop(problems.index[list(found)]).reset_index(drop=True), dropped
