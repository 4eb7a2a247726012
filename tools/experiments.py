"""All experiments of this commit in one table: what each set, and what came of it (`make experiments`)."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from stages import common
from stages.output import interval
from stages.run import Command
from tools import lineage, recipe
from tools.compare import differences, flat

SUMMARY = "metrics/summary.json"


def headline(revision: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Parameters, and each checkpoint's headline accuracy with its interval where there are results."""
    with lineage.opened(revision) as repo:
        params, summary = flat(lineage.load(repo, common.PARAMS)), lineage.load(repo, SUMMARY) or {}
    return params, {label: interval(one) for label, one in recipe.here().headline(summary).items()}


@click.command(cls=Command)
def main() -> None:
    """Prints the experiments of this commit, and the workspace: name, what was set, and the headline."""
    with lineage.opened() as repo:
        named = [(name, rev) for found in repo.experiments.ls().values() for name, rev in found]
    table = Table(title="experiments", title_justify="left", box=None, pad_edge=False)
    rows, baseline = [], headline("HEAD")
    for name, revision in [("HEAD", "HEAD"), ("workspace", lineage.WORKSPACE), *sorted(named)]:
        params, accuracies = headline(revision)
        changes = [f"{key}={new}" for key, _, new in differences(baseline[0], params)]
        rows.append((name, ", ".join(changes) or "-", accuracies))
    labels = list(dict.fromkeys(label for *_, accuracies in rows for label in accuracies))
    for column in ("experiment", "set", *labels):
        table.add_column(column, overflow="fold")
    for name, changes, accuracies in rows:
        table.add_row(name, changes, *(accuracies.get(label, "-") for label in labels))
    lineage.terminal().print(table)


if __name__ == "__main__":
    main()
