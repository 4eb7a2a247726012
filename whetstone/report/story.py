"""The headline in words: what the model learned, as sentences and four numbers that follow from the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whetstone.prompts.strategies import STRATEGIES
from whetstone.report.summary import BASE
from whetstone.report.tables import points


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(one: Mapping) -> str:
    return f"{100 * one['low']:.1f} to {100 * one['high']:.1f}"


def _title(strategy: str) -> str:
    return STRATEGIES[strategy].title if strategy in STRATEGIES else strategy


def verdict(comparison: Mapping) -> str:
    """A comparison in words: better, worse, or no clear difference, by whether its interval excludes zero."""
    if comparison["low"] > 0:
        return "better than"
    return "worse than" if comparison["high"] < 0 else "not clearly different from"


def tiles(summary: Mapping, last: str) -> list[dict]:
    """{number, label, note} of the last checkpoint."""
    own, base = summary[last], summary[BASE]
    against = summary["comparisons"][f"{last} vs {BASE}"]
    first, gain = own["first_attempt"], own["selection_gain"]
    best = base["best_single"]
    reached = first["correct"] / own["oracle"]["correct"] if own["oracle"]["correct"] else 0.0
    return [
        {
            "number": _percent(first["accuracy"]),
            "label": f"right at the first attempt, {last}",
            "note": f"95 % interval {_interval(first)}",
        },
        {
            "number": f"{100 * against['difference']:+.1f}",
            "label": "points over the base model's best strategy",
            "note": f"{_percent(best['accuracy'])} by {_title(best['strategy'])}, few-shot; {_interval(against)}",
        },
        {
            "number": f"{100 * gain['value']:+.1f}",
            "label": "points by choosing",
            "note": f"over the best single strategy of the same weights; {_interval(gain)}",
        },
        {
            "number": _percent(reached),
            "label": "of what its strategies can solve",
            "note": f"first attempt over any strategy ({_percent(own['oracle']['accuracy'])})",
        },
    ]


def sentences(summary: Mapping, dataset: str, checkpoints: Sequence[str]) -> list[str]:
    """What happened, in order: what the base model can do, then what each checkpoint does."""
    base = summary[BASE]
    best, oracle, untaught = base["best_single"], base["oracle"], base["zero_shot"]["first_attempt"]
    told = [
        f"The base model's best single strategy on {summary['problems']:,} problems of {dataset} is "
        f"{_title(best['strategy'])}, with worked examples: {_percent(best['accuracy'])}. Some strategy of its works "
        f"on {_percent(oracle['accuracy'])}: the distance between the two is what choosing can win. Left to choose "
        f"without having been taught, it is right on {_percent(untaught['accuracy'])}."
    ]
    previous = BASE
    for label in checkpoints:
        own, step = summary[label], summary["comparisons"][f"{label} vs {previous}"]
        shares = own["choice"]["first"]
        chosen = ", ".join(f"{_title(name)} on {100 * share:.0f} %" for name, share in shares.items() if share > 0)
        what = f"the base model's {_title(best['strategy'])}" if previous == BASE else previous
        told.append(
            f"{label} solves {_percent(own['first_attempt']['accuracy'])} at its first attempt, choosing {chosen}. It "
            f"is {verdict(step)} {what} on the same problems: {points(step, 'difference')} points, "
            f"{step['wins']:,} newly right and {step['losses']:,} newly wrong (p = {step['p_value']:.2g})."
        )
        previous = label
    return told
