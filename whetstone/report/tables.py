"""The report's tables: texts, ready for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from whetstone.report.summary import BASE


class Table(NamedTuple):
    """A titled table of texts; the first column names the row."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def percent(accuracy: Mapping) -> str:
    """63.1 (60.0-66.1), in percent."""
    return f"{100 * accuracy['accuracy']:.1f} ({100 * accuracy['low']:.1f}-{100 * accuracy['high']:.1f})"


def points(value: Mapping, key: str = "value") -> str:
    """+4.2 (+1.0 to +7.5), in percentage points."""
    return f"{100 * value[key]:+.1f} ({100 * value['low']:+.1f} to {100 * value['high']:+.1f})"


def headline(summary: Mapping, dataset: str, checkpoints: Sequence[str]) -> Table:
    """First attempt, best single strategy and oracle of the base model and each checkpoint."""
    base = summary[BASE]
    best = base["best_single"]
    rows = [
        ["base, few-shot", "-", f"{percent(best)} {best['strategy']}", percent(base["oracle"]), "-", "-"],
        ["base, own choice, untaught", percent(base["zero_shot"]["first_attempt"]), "-", "-", "-", "-"],
    ]
    for label in checkpoints:
        own = summary[label]
        single = own["best_single"]
        rows.append(
            [
                label,
                percent(own["first_attempt"]),
                f"{percent(single)} {single['strategy']}",
                percent(own["oracle"]),
                points(own["selection_gain"]),
                whole(own["tokens"]["first_attempt"]),
            ]
        )
    note = (
        f"{summary['problems']:,} problems, greedy, percent with 95 % intervals. Selection gain: first attempt minus "
        "the best single strategy of the same weights, in points."
    )
    header = ["", "first attempt", "best single strategy", "any strategy (oracle)", "selection gain", "tokens"]
    return Table(f"Accuracy on {dataset}", note, header, rows)


def whole(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.0f}"


def strategies(summary: Mapping, dataset: str, checkpoints: Sequence[str]) -> Table:
    """Forced accuracy of each strategy, and how often the model chooses it."""
    names = list(summary[BASE]["forced"])
    rows = [["base, few-shot", *(percent(summary[BASE]["forced"][name]) for name in names), "-", "-"]]
    for label in checkpoints:
        own, choice = summary[label], summary[label]["choice"]
        shares = " / ".join(f"{100 * choice['first'][name]:.0f}" for name in names)
        entropy = f"{choice['entropy_per_problem']:.2f} / {choice['entropy_of_mean']:.2f}"
        rows.append([label, *(percent(own["forced"][name]) for name in names), shares, entropy])
    header = ["", *names, f"chosen first: {' / '.join(names)} (%)", "entropy per problem / overall (nats)"]
    return Table(f"Strategies on {dataset}", "Each strategy forced by its tag, same weights.", header, rows)


def retries(summary: Mapping, dataset: str, checkpoints: Sequence[str]) -> Table:
    """Attempts in the order of the model's preference."""
    rows = []
    for label in checkpoints:
        for name, title in (("without_gold", "after a failed program or no answer"), ("oracle_gated", "oracle-gated")):
            own = summary[label]["retries"][name]
            rows.append([f"{label}, {title}", percent(own), f"{own['attempts']:.2f}", whole(own["tokens"])])
    note = "Oracle-gated retries look at the gold answer: they are any of three, not a method that could be deployed."
    return Table(f"Retries on {dataset}", note, ["", "accuracy", "attempts", "tokens"], rows)


def comparisons(summary: Mapping, dataset: str) -> Table:
    """Pairs of checkpoints on the same problems."""
    rows = [
        [name, points(one, "difference"), f"{one['p_value']:.2g}", f"{one['wins']} / {one['losses']}"]
        for name, one in summary["comparisons"].items()
    ]
    note = (
        "First attempts on the same problems; base: its best single few-shot strategy. p: McNemar, exact, two-sided."
    )
    return Table(f"Comparisons on {dataset}", note, ["", "difference (points)", "p", "wins / losses"], rows)


def training(statistics: Mapping[str, Mapping]) -> Table:
    """What each epoch was trained on, from the statistics of curation."""
    rows = []
    for epoch, own in statistics.items():
        shares = " / ".join(f"{name} {100 * share:.0f}" for name, share in own["strategy_share"].items())
        solved = " / ".join(f"{count:,}" for count in own["solved_at_attempt"].values())
        counts = [f"{own[name]:,}" for name in ("problems", "attempts", "examples", "pairs")]
        rows.append([epoch, *counts, f"{100 * own['coverage']:.1f}", solved, shares])
    header = [
        "",
        "problems",
        "attempts",
        "examples",
        "pairs",
        "solved (%)",
        "by attempt 1 / 2 / 3",
        "strategy shares (%)",
    ]
    return Table("Training data", "Attempts that became examples and pairs.", header, rows)


def by_group(rows: Sequence[Mapping], dataset: str, group: str, checkpoints: Sequence[str]) -> Table:
    """Accuracy by family or level: the base model's strategies, then each checkpoint's first attempt and oracle."""
    found = {
        (r["name"], r["checkpoint"], r["outcome"]): r for r in rows if r["dataset"] == dataset and r["group"] == group
    }
    outcomes = dict.fromkeys(r["outcome"] for r in rows if r["checkpoint"] == BASE)
    columns = [(BASE, name) for name in outcomes]
    columns += [(label, name) for label in checkpoints for name in ("first", "oracle")]
    names = sorted({name for name, _, _ in found}, key=lambda name: (len(name), name) if name.isdigit() else (0, name))
    cells = [[name, *(f"{100 * found[name, *column]['accuracy']:.0f}" for column in columns)] for name in names]
    sizes = [str(found[name, *columns[0]]["n"]) for name in names]
    body = [[row[0], size, *row[1:]] for row, size in zip(cells, sizes, strict=True)]
    header = ["", "problems", *(f"{label} {name}" for label, name in columns)]
    return Table(f"Accuracy by {group} on {dataset}", "Percent.", header, body)


def markdown(tables: Sequence[Table]) -> str:
    """The tables as GitHub's Markdown."""
    blocks = []
    for table in tables:
        lines = [f"### {table.title}", "", "| " + " | ".join(table.header) + " |"]
        lines += ["|" + " --- |" * len(table.header)]
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
        blocks.append("\n".join([*lines, "", table.note]))
    return "\n\n".join(blocks) + "\n"
