"""What attempts at multiple choice say about a model, always beside what guessing gives.

Translations of a problem go together, so every interval and p-value is over groups of problems (`intervals.grouped`).
All functions take records.ATTEMPT with the problems (records.PROBLEM) that they are at. A problem may have been asked
several times under different orders of its options (an attempt's variant is its order's number); accuracy counts the
first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.stats import binomtest, chisquare

from whetstone.curation import degenerate
from whetstone.errors import UserError
from whetstone.evaluation.intervals import grouped
from whetstone.prompts import choices

ALL = "all"


def joined(attempts: pd.DataFrame, problems: pd.DataFrame) -> pd.DataFrame:
    """Attempts with the columns right, option (index of the option that was meant, or None), chance, language, family,
    group of their problem, in the order of problem and sample.

    Raises:
        UserError: a problem has no attempt, or an attempt no problem.
    """
    missing = sorted(set(problems["id"]) - set(attempts["problem_id"]))
    unknown = sorted(set(attempts["problem_id"]) - set(problems["id"]))
    if missing or unknown:
        raise UserError(
            f"evaluation: {len(missing)} problems have no attempt {missing[:1]}, {len(unknown)} attempts are at other "
            f"problems {unknown[:1]}; every problem counts, so run the evaluation again"
        )
    own = problems.set_index("id")
    rows = attempts.sort_values(["problem_id", "sample"]).reset_index(drop=True)
    found = []
    for problem_id, variant, answer in zip(rows["problem_id"], rows["variant"], rows["answer"], strict=True):
        problem = own.loc[problem_id]
        order = choices.order_of(problem_id, int(variant), len(problem["options"]))
        option = choices.option_of(answer, order) if answer else None
        found.append((option, 1 / len(order), problem["language"] or ALL, problem["family"], problem["group"]))
    more = pd.DataFrame(found, columns=["option", "chance", "language", "family", "group"], index=rows.index)
    return rows.join(more).assign(right=rows["verdict"] == "correct")


def metrics(attempts: pd.DataFrame, problems: pd.DataFrame, think: choices.Think, gates: degenerate.Gates) -> dict:
    """For all problems, by language, and by language and family; see `summary`."""
    table = joined(attempts, problems)
    languages = sorted(set(table["language"]))
    expected = [choices.rationale_language(None if name == ALL else name, think) for name in table["language"]]
    among = tuple(sorted({*languages, "en"} - {ALL}))
    table["loop"] = [degenerate.repetitive(text, gates) for text in table["text"]]
    table["in_language"] = [
        degenerate.in_language(text, want, among) for text, want in zip(table["text"], expected, strict=True)
    ]
    found = {ALL: summary(table)}
    if languages != [ALL]:
        found |= {name: summary(table[table["language"] == name]) for name in languages}
    return found


def summary(table: pd.DataFrame) -> dict:
    """Accuracy with its interval and against chance, answered rate, accuracy given an answer, degenerate rates, letter
    bias, consistency under other orders of the options, tokens."""
    first = table[table["sample"] == 0]
    accuracy, chance = grouped(first["right"], first["group"]), float(first["chance"].mean())
    n, value = round(accuracy["effective"]), accuracy["accuracy"]
    answered = first[first["answer"].notna()]
    seen = first["in_language"].dropna()
    families = first[first["family"].notna()].groupby("family", sort=True)
    return {
        "accuracy": accuracy,
        "chance": chance,
        "above_chance": (value - chance) / (1 - chance),
        "p_value_of_chance": float(binomtest(round(value * n), n, chance, alternative="greater").pvalue),
        "answered": grouped(first["answer"].notna(), first["group"]),
        "accuracy_given_answered": grouped(answered["right"], answered["group"]),
        "truncated": float((first["finish_reason"] == "length").mean()),
        "repetitive": float(first["loop"].mean()),
        "in_language": float(seen.astype(bool).mean()) if len(seen) else None,
        "letters": letters(answered),
        "consistency": consistency(table),
        "tokens": float(first["completion_tokens"].mean()),
        "by_family": {str(name): grouped(own["right"], own["group"]) for name, own in families},
    }


def letters(answered: pd.DataFrame) -> dict:
    """How often each letter was answered and was right; the bias is half the sum of the absolute differences (0 none,
    1 all), with the p-value of a chi-squared test that answers are spread as right letters are, for as many answers
    as are independent (Rao and Scott, 1981, first order). None without answers."""
    if answered.empty:
        return {"answered": {}, "right": {}, "bias": None, "p_value": None}
    names = sorted({*answered["answer"], *answered["gold"]})
    said = np.array([(answered["answer"] == name).sum() for name in names], dtype=float)
    gold = np.array([(answered["gold"] == name).sum() for name in names], dtype=float)
    expected = (gold + 0.5) / (gold + 0.5).sum() * said.sum()  # a letter that is never right can still be tested
    effective = [grouped(answered["answer"] == name, answered["group"])["effective"] for name in names]
    share = float(np.mean(effective)) / len(answered)
    p_value = float(chisquare(share * said, share * expected).pvalue) if len(names) > 1 else 1.0
    return {
        "answered": dict(zip(names, map(int, said), strict=True)),
        "right": dict(zip(names, map(int, gold), strict=True)),
        "bias": float(np.abs(said / said.sum() - gold / gold.sum()).sum() / 2),
        "p_value": p_value,
    }


def consistency(table: pd.DataFrame) -> dict | None:
    """Problems that were asked under several orders: how often the same option (not letter) was meant each time, and
    how often it was right each time. None where every problem was asked once."""
    problems = [own for _, own in table.groupby("problem_id", sort=True) if len(own) > 1]
    if not problems:
        return None
    groups = [own["group"].iloc[0] for own in problems]
    same = [own["option"].notna().all() and own["option"].nunique() == 1 for own in problems]
    return {
        "orders": int(max(len(own) for own in problems)),
        "same_option": grouped(same, groups),
        "right_each_time": grouped([own["right"].all() for own in problems], groups),
    }


def gap(train: dict, held_out: dict) -> dict:
    """{value, low, high} of training accuracy minus held-out accuracy, two independent sets of problems: Newcombe's
    interval for a difference of proportions (1998), from the intervals of the two (of `grouped` or `wilson`)."""
    value = train["accuracy"] - held_out["accuracy"]
    below = np.hypot(train["accuracy"] - train["low"], held_out["high"] - held_out["accuracy"])
    above = np.hypot(train["high"] - train["accuracy"], held_out["accuracy"] - held_out["low"])
    return {"value": value, "low": float(value - below), "high": float(value + above)}


def stops(history: Iterable[float], patience: int) -> bool:
    """Whether dev accuracy has been below its best for `patience` iterations in a row, up to the last one."""
    best, since = -math.inf, 0
    for value in history:
        best, since = (value, 0) if value > best else (best, since + (value < best))
    return since >= patience
