"""Attempts at multiple choice to training data, as STaR does it: keep the rationales that reached the right answer.

arXiv 2203.14465, with what its limits ask for where a guess is right one time in four: a question's rationales count
only if it was right with the right option at enough different letters, degenerate texts don't count at all,
and no question teaches more than its share. Rationales found with the right option marked ("rationalization") are kept
for questions that nothing else solved; the mark is in the prompt that was sampled, never in what is trained on.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from whetstone.curation import degenerate
from whetstone.errors import UserError
from whetstone.records import fingerprint

Strategy = Literal["sft", "sft_unique", "dpo"]
HINTED = "hinted"  # variant of an attempt that saw the right option marked, under the problem's own order
_ATTEMPT = ["id", "problem_id", "sample", "variant", "gold", "text", "verdict", "finish_reason"]


class Curation(BaseModel):
    """How attempts become examples and pairs."""

    model_config = ConfigDict(extra="forbid")
    min_right: int = Field(
        2, ge=1, description="a question teaches only if it was right with the right option at so many letters"
    )
    per_problem: int | None = Field(
        2, ge=1, description="most examples of one question; null keeps every right sample, repeated ones included"
    )
    rationalized_share: float = Field(0.25, ge=0, lt=1, description="most of the examples that saw the answer")
    pairs_per_problem: int = Field(2, ge=1)
    length_ratio: float = Field(
        1.5, ge=1, description="a pair's longer text has at most so many times the words of the other"
    )
    loops_per_problem: int = Field(1, ge=0, description="degenerate texts as the rejected one of a pair")
    loop_words: int = Field(40, ge=8, description="a degenerate text is cut to so many words")
    seed: int = 0


class Asked(NamedTuple):
    """How a problem was asked: the language that its rationale had to be in, and the prompt by the number of an order
    of its options, without any hint."""

    expected: str | None
    prompt: Callable[[int], str]


class Sampled(NamedTuple):
    """An attempt as curation sees it; `order` numbers the order in which the options were shown, and `gold` is the
    letter that was right there."""

    id: str
    problem_id: str
    sample: int
    hinted: bool
    text: str
    right: bool
    fault: str | None
    order: int
    gold: str


class Curated(NamedTuple):
    """Rows of records.EXAMPLE or of records.PAIR, and the counts behind them."""

    examples: list[dict]
    pairs: list[dict]
    statistics: dict


def load(
    attempts: pd.DataFrame, problems: Sequence[str], asked: Mapping[str, Asked], gates: degenerate.Gates
) -> dict[str, list[Sampled]]:
    """Attempts by problem, each with its fault.

    Raises:
        UserError: an attempt names a problem that nobody asked, or a problem was never asked without a hint: every
            problem counts in what is told of them.
    """
    unknown = sorted(set(attempts["problem_id"]) - set(asked))
    if unknown:
        raise UserError(f"{len(unknown)} problems of the attempts aren't among the problems, such as {unknown[0]!r}")
    direct = set(attempts.loc[attempts["variant"] != HINTED, "problem_id"])
    if missing := sorted(set(problems) - direct):
        raise UserError(
            f"{len(missing)} of {len(problems)} problems have no attempt, such as {missing[0]!r}; sample them again"
        )
    among = tuple(sorted({one.expected for one in asked.values() if one.expected} | {"en"}))
    rows = []
    for one_id, problem_id, sample, variant, gold, text, verdict, finish in attempts[_ATTEMPT].itertuples(False, None):
        fault = degenerate.fault(
            text, finish, gates, expected=asked[problem_id].expected, among=among, hinted=variant == HINTED
        )
        right, hinted = verdict == "correct", variant == HINTED
        order = 0 if hinted else int(variant)
        rows.append(Sampled(one_id, problem_id, sample, hinted, text, right, fault, order, gold))
    rows.sort(key=lambda one: (one.problem_id, one.hinted, one.sample, one.id))
    return {problem: list(own) for problem, own in groupby(rows, key=lambda one: one.problem_id)}


def _learnable(own: Sequence[Sampled], min_right: int) -> list[Sampled]:
    """The right and sound samples of a question that was asked without a hint, if they are right with the right option
    at enough different letters: who always says C is right whenever C is, however many samples that are."""
    right = [one for one in own if not one.hinted and one.right and one.fault is None]
    return right if len({one.gold for one in right}) >= min_right else []


def _example(one: Sampled, asked: Asked, same: Sequence[Sampled], number: int) -> dict:
    completion = one.text.rstrip()
    suffix = f":{number}" if number else ""
    return {
        "id": f"{one.problem_id}:{fingerprint(asked.prompt(one.order), completion)}{suffix}",
        "problem_id": one.problem_id,
        "strategy": "hinted" if one.hinted else None,
        "prompt": asked.prompt(one.order),
        "completion": completion,
        "weight": 1.0,
        "attempt_ids": [other.id for other in same],
    }


def _examples(own: Sequence[Sampled], asked: Asked, limit: int | None) -> list[dict]:
    """Distinct texts under their orders, the first `limit`; without a limit every sample, repeated ones too."""
    if limit is None:
        seen: Counter = Counter()
        rows = []
        for one in own:
            rows.append(_example(one, asked, [one], seen[one.order, one.text.rstrip()]))
            seen[one.order, one.text.rstrip()] += 1
        return rows
    distinct: dict[tuple[int, str], list[Sampled]] = defaultdict(list)
    for one in own:
        distinct[one.order, one.text.rstrip()].append(one)
    return [_example(same[0], asked, same, 0) for same in list(distinct.values())[:limit]]


def _ratio(one: str, other: str) -> float:
    """Words of the longer text to words of the shorter one."""
    a, b = sorted((max(1, len(one.split())), max(1, len(other.split()))))
    return b / a


def _pairs(own: Sequence[Sampled], asked: Asked, options: Curation) -> tuple[list[dict], int]:
    """Right over wrong under the same order of the options, the most alike in length first, each attempt in one pair;
    and how many wrong attempts were left out because nothing was long or short enough for them."""
    right = _learnable(own, options.min_right)
    found = []
    for wrong in own:
        if wrong.right or wrong.hinted or wrong.fault == "wrong language" or not wrong.text.strip():
            continue
        loop = wrong.fault is not None
        text = degenerate.shorten(wrong.text.rstrip(), options.loop_words) if loop else wrong.text.rstrip()
        for chosen in right:
            if chosen.order == wrong.order and chosen.text.strip() != text.strip():
                found.append((_ratio(chosen.text, text), chosen.id, wrong.id, chosen, text, loop))
    rows, used, loops = [], set(), 0
    fits = [pair for pair in sorted(found, key=lambda pair: pair[:3]) if pair[5] or pair[0] <= options.length_ratio]
    for _, chosen_id, wrong_id, chosen, text, loop in fits:
        if chosen_id in used or wrong_id in used or (loop and loops == options.loops_per_problem):
            continue
        if len(rows) == options.pairs_per_problem:
            break
        used |= {chosen_id, wrong_id}
        loops += loop
        rows.append(
            {
                "id": f"{chosen.problem_id}:{fingerprint(chosen_id, wrong_id)}",
                "problem_id": chosen.problem_id,
                "prompt": asked.prompt(chosen.order),
                "chosen": chosen.text.rstrip(),
                "rejected": text,
                "chosen_strategy": None,
                "rejected_strategy": "degenerate" if loop else None,
                "attempt_ids": [chosen_id, wrong_id],
            }
        )
    unmatched = {pair[2] for pair in found} - {pair[2] for pair in fits}
    return rows, len(unmatched)


def _capped(examples: list[dict], share: float, seed: int) -> tuple[list[dict], int]:
    """The examples with at most this share of rationalized ones, chosen by hash; and how many were left out."""
    hinted = sorted((e for e in examples if e["strategy"] == "hinted"), key=lambda e: fingerprint(seed, e["id"]))
    direct = [e for e in examples if e["strategy"] != "hinted"]
    room = math.floor(share / (1 - share) * len(direct) + 1e-9)
    return direct + hinted[:room], max(0, len(hinted) - room)


def curate(
    attempts: pd.DataFrame,
    problems: pd.DataFrame,
    asked: Mapping[str, Asked],
    how: Strategy,
    options: Curation,
    gates: degenerate.Gates,
) -> Curated:
    """Training data from attempts at the problems (records.ATTEMPT, records.PROBLEM).

    Raises:
        UserError: an attempt names an unknown problem, a problem has no attempt, or nothing can be trained on (with
            the counts that say why).
    """
    by_problem = load(attempts, list(problems["id"]), asked, gates)
    examples: list[dict] = []
    pairs: list[dict] = []
    unmatched: Counter = Counter()
    language = {problem: name or "all" for problem, name in
                zip(problems["id"], problems["language"], strict=True)}  # fmt: skip
    for problem, own in by_problem.items():
        if how == "dpo":
            rows, left = _pairs(own, asked[problem], options)
            pairs += rows
            unmatched[language[problem]] += left
            continue
        limit = 1 if how == "sft_unique" else options.per_problem
        direct = _learnable(own, options.min_right)
        examples += _examples(direct, asked[problem], limit)
        hinted = [one for one in own if one.hinted and one.right and one.fault is None]
        examples += _examples(hinted, asked[problem], 1) if hinted and not direct else []
    examples, over = _capped(examples, options.rationalized_share, options.seed)
    kept = {"examples": examples, "pairs": pairs, "rationalized_over_share": over, "unmatched": unmatched}
    statistics = _statistics(by_problem, language, kept, options.min_right)
    if not examples and not pairs:
        counts = statistics["all"]
        raise UserError(
            f"{counts['right']} of {counts['attempts']} attempts at {counts['problems']} problems are right and none "
            f"can be trained on by {how} (faults: {counts['faults']}; problems right at enough letters: "
            f"{counts['consistent']}). Look at the attempts' texts, raise `sample.k`, lower `curate.min_right`, or "
            "take another model"
        )
    return Curated(examples, pairs, statistics)


def _statistics(by_problem: Mapping, language: Mapping, kept: Mapping, min_right: int) -> dict:
    """Counts for all problems and by language."""
    names = sorted({language[problem] for problem in by_problem})
    groups: dict[str, list[str]] = {"all": list(by_problem)}
    if len(names) > 1 or names != ["all"]:
        groups |= {name: [p for p in by_problem if language[p] == name] for name in names}
    found = {name: _counts([by_problem[p] for p in own], set(own), kept, min_right) for name, own in groups.items()}
    for name, counts in found.items():
        counts["pairs_without_match"] = kept["unmatched"][name] if name != "all" else sum(kept["unmatched"].values())
    found["all"]["rationalized_over_share"] = kept["rationalized_over_share"]
    return found


def _counts(groups: Sequence[Sequence[Sampled]], own: set[str], kept: Mapping, min_right: int) -> dict:
    direct = [[one for one in group if not one.hinted] for group in groups]
    hinted = [one for group in groups for one in group if one.hinted]
    attempts = [one for group in direct for one in group]
    right = [one for one in attempts if one.right]
    examples = [e for e in kept["examples"] if e["problem_id"] in own]
    pairs = [p for p in kept["pairs"] if p["problem_id"] in own]
    consistent = sum(bool(_learnable(group, min_right)) for group in direct)
    often = sum(len(_learnable(group, 1)) >= min_right for group in direct)
    return {
        "problems": len(direct),
        "attempts": len(attempts),
        "right": len(right),
        "coverage": _share(sum(any(one.right for one in group) for group in direct), len(direct)),
        "consistent": consistent,
        "right_at_too_few_letters": often - consistent,
        "faults": degenerate.count([one.fault for one in attempts]),
        "right_but": degenerate.count([one.fault for one in right]),
        "hinted": len(hinted),
        "hinted_right": sum(one.right for one in hinted),
        "hinted_right_but": degenerate.count([one.fault for one in hinted if one.right]),
        "examples": len(examples),
        "problems_in_examples": len({e["problem_id"] for e in examples}),
        "rationalized": sum(e["strategy"] == "hinted" for e in examples),
        "pairs": len(pairs),
        "problems_in_pairs": len({p["problem_id"] for p in pairs}),
        "pairs_against_degenerate": sum(p["rejected_strategy"] == "degenerate" for p in pairs),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
