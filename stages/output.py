"""What a stage tells of its run: counts for its manifest, and the few lines that it ends with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

STARTED = time.monotonic()
COUNTS: dict[str, Any] = {}  # what the manifest says of rows and tokens


def count_sampled(completions: int, tokens: int, seconds: float) -> None:
    """Adds to what this run sampled: less than its rows hold where a journal had some of them."""
    sampled = COUNTS.setdefault("sampled", {"completions": 0, "tokens": 0, "seconds": 0.0})
    sampled["completions"] += completions
    sampled["tokens"] += tokens
    sampled["seconds"] = round(sampled["seconds"] + seconds, 3)


def count(rows_in: int, rows_out: int, dropped: Mapping[str, int] | None = None, **tokens: int | None) -> None:
    """Tells the manifest how many rows the stage was given and made, what it left out and why, and its tokens."""
    COUNTS.update(rows={"in": rows_in, "out": rows_out, "dropped": dict(dropped or {})}, tokens=tokens)


def count_attempts(problems: pd.DataFrame, attempts: pd.DataFrame, rows_out: int | None = None) -> None:
    """The counts of a stage that answers problems, and writes its attempts alone unless `rows_out` says more. Tokens
    are None where an attempt's are unknown."""
    tokens: dict[str, int | None] = {"prompt": 0, "completion": 0}
    for kind in tokens if len(attempts) else ():
        found = attempts[f"{kind}_tokens"]
        tokens[kind] = int(found.sum()) if found.notna().all() else None
    count(len(problems), len(attempts) if rows_out is None else rows_out, **tokens)


def seconds() -> float:
    """Since the stage's process began."""
    return round(time.monotonic() - STARTED, 3)


def finish(title: str, **facts: object) -> None:
    """The table at a stage's end: rows in and out, what was dropped and why, result, place, time."""
    from rich.table import Table
    from rich.text import Text

    from stages.run.terminal import Terminal

    table = Table(title=f"[bold]{title}[/]", title_justify="left", show_header=False, box=None, pad_edge=False)
    for name, fact in ending(facts, COUNTS, seconds()):
        table.add_row(Text(name, style="dim"), Text(fact))
    Terminal(wide=118).print(table)


def ending(facts: Mapping[str, object], counts: Mapping[str, Any], took: float) -> list[tuple[str, str]]:
    """The lines of that table: the manifest's counts first, then the stage's own facts, then the time."""
    lines = []
    if "rows" in counts:
        rows, dropped = counts["rows"], {name: n for name, n in counts["rows"]["dropped"].items() if n}
        lines.append(("rows", f"{_shown(rows['in'])} in, {_shown(rows['out'])} out"))
        lines += [("dropped", _shown(dropped))] if dropped else []
    if tokens := {name: n for name, n in counts.get("tokens", {}).items() if n is not None}:
        lines.append(("tokens", _shown(tokens)))
    lines += [(name.replace("_", " "), _shown(fact)) for name, fact in facts.items()]
    return [*lines, ("time", f"{took:.1f} s")]


def _shown(fact: object, within: bool = False) -> str:
    if isinstance(fact, Mapping):
        text = ", ".join(f"{name} {_shown(one, within=True)}" for name, one in fact.items()) or "none"
        return f"({text})" if within else text
    if isinstance(fact, list | tuple):
        return ", ".join(map(_shown, fact)) or "none"
    return f"{fact:,}" if isinstance(fact, int) else f"{fact:.4g}" if isinstance(fact, float) else str(fact)


def interval(accuracy: Mapping[str, Any]) -> str:
    """63.1 % (60.0-66.1)"""
    low, high = 100 * accuracy["low"], 100 * accuracy["high"]
    return f"{100 * accuracy['accuracy']:.1f} % ({low:.1f}-{high:.1f})"
