"""The headline of a pipeline: what each checkpoint reaches, and how they compare on the same problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from whetstone.evaluation.intervals import compare
from whetstone.evaluation.smart import breakdown, few_shot_metrics, outcomes, policy_metrics

BASE = "base"


def summarise(attempts: Mapping[str, pd.DataFrame], untaught: Mapping) -> dict:
    """The summary of one evaluation set.

    Args:
        attempts: `base` (few-shot), then each tuned checkpoint, in order.
        untaught: what the base model chooses without examples (`evaluation.smart.untaught_metrics`).

    Returns:
        {problems, base: {best_single, oracle, forced, zero_shot}, <checkpoint>: {first_attempt, ...}, comparisons:
        {"b vs a": {difference, low, high, p_value, wins, losses, n}}}. Each checkpoint is compared with the base
        model's best single few-shot strategy and with the checkpoint before it.
    """
    base = few_shot_metrics(attempts[BASE])
    tuned = [label for label in attempts if label != BASE]
    right = {label: outcomes(attempts[label])["first"] for label in tuned}
    right[BASE] = outcomes(attempts[BASE])[base["best_single"]["strategy"]]
    pairs = [(label, BASE) for label in tuned] + list(zip(tuned[1:], tuned[:-1], strict=True))
    return {
        "problems": base.pop("problems"),
        BASE: {**base, "zero_shot": dict(untaught)},
        **{label: policy_metrics(attempts[label]) for label in tuned},
        "comparisons": {f"{new} vs {old}": compare(*_aligned(right[new], right[old], new, old)) for new, old in pairs},
    }


def _aligned(new: pd.Series, old: pd.Series, *names: str) -> tuple:
    if not new.index.equals(old.index):
        raise ValueError(f"{' and '.join(names)} were evaluated on different problems: {len(new)} and {len(old)}")
    return new.to_numpy(), old.to_numpy()


def accuracy_rows(summary: Mapping, dataset: str, checkpoints: Sequence[str]) -> list[dict]:
    """Every accuracy of a summary, one row each: {dataset, outcome, accuracy, low, high, n}."""
    found = [(f"base {name}", one) for name, one in summary[BASE]["forced"].items()]
    found += [
        ("base any strategy", summary[BASE]["oracle"]),
        ("base untaught", summary[BASE]["zero_shot"]["first_attempt"]),
    ]
    for label in checkpoints:
        own = summary[label]
        found += [(f"{label} first attempt", own["first_attempt"])]
        found += [(f"{label} {name}", one) for name, one in own["forced"].items()]
        found += [(f"{label} any strategy", own["oracle"])]
    return [
        {"dataset": dataset, "outcome": name, **{key: one[key] for key in ("accuracy", "low", "high", "n")}}
        for name, one in found
    ]


def breakdown_rows(attempts: Mapping[str, pd.DataFrame], problems: pd.DataFrame, dataset: str) -> list[dict]:
    """Accuracy by family and level of every checkpoint: {dataset, checkpoint, group, name, outcome, accuracy, ...}."""
    return [
        {"dataset": dataset, "checkpoint": label, **row}
        for label, own in attempts.items()
        for row in breakdown(own, problems)
    ]
