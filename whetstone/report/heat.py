"""The heat map: accuracy by family (or level), strategy and checkpoint, each cell a link to its attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from whetstone.prompts.strategies import STRATEGIES
from whetstone.report.summary import BASE


def link(**filters: str) -> str:
    """The viewer's address with filters set."""
    return f"attempts.html#{urlencode(filters)}"


def heat_map(rows: Sequence[Mapping], dataset: str, group: str, checkpoints: Sequence[str]) -> dict | None:
    """Accuracy by family (or level) x strategy x checkpoint: {group, columns, body} for the heat map's table; None
    where the problems have no such group. Families that gained most (the last checkpoint's first attempt over the base
    model's best single strategy) come first; levels in their order."""
    found = {
        (r["name"], r["checkpoint"], r["outcome"]): r for r in rows if r["dataset"] == dataset and r["group"] == group
    }
    if not found:
        return None
    strategies = [name for name in STRATEGIES if any(outcome == name for _, _, outcome in found)]
    shown = {BASE: [*strategies, "oracle"]} | {label: [*strategies, "first", "oracle"] for label in checkpoints}
    names = {name for name, _, _ in found}
    last = checkpoints[-1]
    best = max(strategies, key=lambda s: sum(found[name, BASE, s]["correct"] for name in names))

    def gain(name: str) -> float:
        return found[name, last, "first"]["accuracy"] - found[name, BASE, best]["accuracy"]

    order = sorted(names, key=lambda name: (int(name) if name.isdigit() else 0, -gain(name), name))
    body = [
        {
            "name": name,
            "n": found[name, BASE, "oracle"]["n"],
            "cells": [
                {
                    **found[name, label, outcome],
                    "edge": position == 0,
                    "own": outcome == "first",
                    "link": link(split=dataset, model=label, **({group: name}), **_outcome_filter(outcome)),
                    "what": f"{name}, {label}, {_outcome_title(outcome)}",
                }
                for label, outcomes in shown.items()
                for position, outcome in enumerate(outcomes)
            ],
        }
        for name in order
    ]
    columns = {label: [_outcome_title(outcome) for outcome in outcomes] for label, outcomes in shown.items()}
    return {"group": group, "columns": columns, "body": body}


def _outcome_filter(outcome: str) -> dict[str, str]:
    if outcome == "oracle":
        return {}
    return {"turn": "1"} if outcome == "first" else {"strategy": outcome}


def _outcome_title(outcome: str) -> str:
    return {"first": "chosen", "oracle": "any"}.get(outcome, outcome)
