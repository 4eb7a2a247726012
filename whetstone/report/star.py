"""Tables that tell what STaR's iterations did, arm by arm and language by language, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from whetstone.evaluation.intervals import compare, told

Metrics = Mapping[str, dict]  # model -> what its evaluation wrote


def markdown(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _interval(one: Mapping) -> str:
    return f"{percent(one['accuracy'])} ({percent(one['low'])}–{percent(one['high'])})"


def _points(one: Mapping) -> str:
    return f"{100 * one['value']:+.1f} ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"


def languages(found: Metrics) -> list[str]:
    """Those of the test set, `all` first."""
    names = next(iter(found.values()))["test"]
    return [name for name in ("all", *sorted(set(names) - {"all"})) if name in names]


def accuracy(found: Metrics) -> str:
    names = languages(found)
    chance = next(iter(found.values()))["test"]["all"]["chance"]
    rows = [
        [m, percent(_dev(one)), *(_interval(one["test"][n]["accuracy"]) for n in names)] for m, one in found.items()
    ]
    return markdown(f"Test accuracy, percent (chance is {percent(chance)})", ["model", "dev", *names], rows)


def _dev(one: Mapping) -> float:
    return one["history"][-1]["dev"]


def format_health(found: Metrics) -> str:
    """What accuracy alone conflates: whether it answers at all, and how often it is right where it does."""
    rows = []
    for model, one in found.items():
        for name in languages(found):
            m = one["test"][name]
            bias = m["letters"]["bias"]
            same = m["consistency"]
            rows.append(
                [
                    model,
                    name,
                    percent(m["answered"]["accuracy"]),
                    _interval(m["accuracy_given_answered"]) if m["answered"]["correct"] else "–",
                    percent(m["truncated"]),
                    percent(m["repetitive"]),
                    percent(m["in_language"]),
                    "–" if bias is None else f"{percent(bias)} (p {told(m['letters']['p_value'])})",
                    percent(same["same_option"]["accuracy"]) if same else "–",
                    percent(same["right_each_time"]["accuracy"]) if same else "–",
                    told(m["p_value_of_chance"]),
                ]
            )
    head = ["model", "language", "answered", "right where answered", "cut off", "repetitive", "in its language",
            "letter bias", "same option in other orders", "right in all orders", "p against chance"]  # fmt: skip
    return markdown("Test, percent: format and chance", head, rows)


def gaps(found: Metrics) -> str:
    names = languages(found)
    rows = [
        [model, *(_points(one["gap"][n]) if n in one["gap"] else "–" for n in names)] for model, one in found.items()
    ]
    return markdown("Training problems minus test, points", ["model", *names], rows)


def curation(statistics: Mapping[str, dict]) -> str:
    rows = []
    for name, found in statistics.items():
        if "stopped" in found:
            rows.append([name, f"stopped; best is {found['stopped']}", *[""] * 8])
            continue
        for language, one in found.items():
            faults = one["faults"]
            rows.append(
                [
                    name,
                    language,
                    *map(str, (one["problems"], one["attempts"], one["right"])),
                    percent(one["coverage"]),
                    f"{one['consistent']} ({one['right_at_too_few_letters']})",
                    ", ".join(f"{fault} {n}" for fault, n in faults.items() if n) or "none",
                    f"{one['examples']} ({one['rationalized']})",
                    f"{one['pairs']} ({one['pairs_against_degenerate']})",
                ]
            )
    head = ["iteration", "language", "problems", "samples", "right", "coverage %",
            "problems right at enough letters (as often, but not at enough)", "degenerate samples",
            "examples (rationalized)", "pairs (against degenerate)"]  # fmt: skip
    return markdown("What each iteration learnt from", head, rows)


def outcomes(attempts: pd.DataFrame) -> pd.Series:
    """Whether each problem came out right at its first asking, by problem id, sorted."""
    first = attempts[attempts["sample"] == 0].sort_values("problem_id")
    return pd.Series((first["verdict"] == "correct").to_numpy(), index=first["problem_id"])


def comparisons(tests: Mapping[str, pd.DataFrame], problems: pd.DataFrame, pairs: Sequence[tuple]) -> dict:
    """`new vs old` -> language -> difference with its paired interval and p over groups of problems
    (intervals.compare)."""
    own = problems.set_index("id")
    right = {model: outcomes(attempts) for model, attempts in tests.items()}
    found: dict[str, dict] = {}
    for new, old in pairs:
        known = own.loc[right[new].index]
        ids = np.array([name or "all" for name in known["language"]])
        found[f"{new} vs {old}"] = {}
        for name in ["all", *sorted(set(ids) - {"all"})]:
            chosen = (ids == name) | (name == "all")
            found[f"{new} vs {old}"][name] = compare(
                right[new][chosen], right[old][chosen], list(known["group"][chosen])
            )
    return found


def comparison_table(found: Mapping[str, dict]) -> str:
    names = list(next(iter(found.values())))
    rows = []
    for pair, by_language in found.items():
        cells = [by_language[name] for name in names]
        rows.append([pair, *(f"{_points({**c, 'value': c['difference']})}, p {told(c['p_value'])}" for c in cells)])
    return markdown(
        "Paired on the same test problems, points; intervals over problems with their translations", ["", *names], rows
    )


def arms(iterations: Mapping[str, str]) -> dict[str, list[str]]:
    """Last iteration of each arm -> its iterations in order, from `after` of each."""
    ends = [name for name in iterations if name not in iterations.values()]
    found = {}
    for end in ends:
        chain = [end]
        while iterations[chain[0]] != "base":
            chain.insert(0, iterations[chain[0]])
        found[end] = chain
    return found
