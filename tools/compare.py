"""What differs between two revisions, experiments or the workspace: parameters, inputs, data, and results paired on
the same problems.

    make compare A=main                     the workspace against a revision
    make compare A=exp-one B=exp-two        two experiments
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import pandas as pd
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from stages import code, common
from stages.run import Command
from tools import lineage
from whetstone import records
from whetstone.errors import UserError


class Side(NamedTuple):
    """One of the two revisions: its parameters, hashes of what it was made from, and its evaluations' attempts."""

    name: str
    params: dict[str, Any]
    sources: dict[str, str]  # prompts, code, base model: what no stage makes
    data: dict[str, str]  # what stages made
    seconds: dict[str, float]  # by stage, where there is a manifest
    attempts: dict[str, pd.DataFrame]
    problems: pd.DataFrame


def read(repo: Any, path: str, schema: Any) -> pd.DataFrame | None:
    """A table as it was at the revision, from the workspace, the cache or a remote; None for one of other columns."""
    try:
        with repo.dvcfs.open(f"{lineage.folder(repo)}/{path}".lstrip("/"), "rb") as file:
            table = pq.read_table(file)
    except FileNotFoundError:
        raise UserError(f"{path}: neither here nor in the cache; `dvc fetch` or `dvc repro` bring it") from None
    return table.to_pandas() if table.schema.names == schema.names else None


def side(revision: str) -> Side:
    """Raises UserError for an unknown revision, or data that isn't at hand."""
    with lineage.opened(revision) as repo:
        stages = lineage.pipeline(repo)
        made = {out.def_path: str(out.hash_info.value) for stage in stages for out in stage.outs}
        inputs = {path: str(md5) for stage in stages for path, md5 in lineage.inputs(stage).items()}
        modules = {file: digest for stage in stages for file, digest in lineage.modules(stage).items()}
        own = {path: read(repo, path, records.ATTEMPT) for path in sorted(made)
               if "evaluation/" in path and path.endswith(".parquet")}  # fmt: skip
        root = f"{lineage.folder(repo)}/data/problems".lstrip("/")
        kinds = [path for path in repo.dvcfs.find(root) if path.endswith(".parquet")]
        kinds = [f"data/problems/{Path(path).name}" for path in kinds]
        problems = [found for path in kinds if (found := read(repo, path, records.PROBLEM)) is not None]
        return Side(
            name=revision,
            params=flat(lineage.load(repo, common.PARAMS)),
            sources={path: md5 for path, md5 in inputs.items() if not any(inside(path, out) for out in made)
                     and not code.script_of(path)} | modules,
            data={path: md5 for path, md5 in made.items()
                  if not path.startswith(("code", "metrics/", "plots/", "report"))},
            seconds={stage.name: found["seconds"] for stage in stages if (found := lineage.record(stage))},
            attempts={path: table for path, table in own.items() if table is not None},
            problems=pd.concat(problems).drop_duplicates("id").set_index("id") if problems else pd.DataFrame(),
        )


def inside(path: str, out: str) -> bool:
    """Whether one is the other or lies in it."""
    a, b = Path(path), Path(out)
    return a == b or b in a.parents or a in b.parents


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.key`."""
    found = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, value in a, value in b) where they differ; None where there is none."""
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            yield key, a.get(key), b.get(key)


def firsts(attempts: pd.DataFrame) -> dict[str, pd.Series]:
    """Which problems the first attempts solve: of a model that chooses, or of each strategy where all were forced."""
    first = attempts[(attempts["turn"] == 1) & (attempts["sample"] == 0)]
    right = (first["verdict"] == "correct").set_axis(first["problem_id"])
    if right.index.is_unique:
        return {"first attempt": right}
    return {str(name): right[(first["strategy"] == name).to_numpy()] for name in sorted(first["strategy"].unique())}


def paired(a: pd.Series, b: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The two on the problems that both have, in the same order."""
    common_ids = a.index.intersection(b.index).sort_values()
    return a[common_ids], b[common_ids]


def results(a: Side, b: Side) -> Iterator[tuple[str, str, dict, pd.Series, pd.Series]]:
    """(table, outcome, comparison of b with a, outcomes in a, in b) for every evaluation that both have and that
    differs."""
    from whetstone.evaluation.intervals import compare

    for path in sorted({*a.attempts} & {*b.attempts}):
        if a.data[path] == b.data[path]:
            continue
        old, new = firsts(a.attempts[path]), firsts(b.attempts[path])
        for name in old:
            if name in new:
                before, after = paired(old[name], new[name])
                if len(before):
                    yield Path(path).stem, name, compare(after.to_numpy(), before.to_numpy()), before, after


def show_changes(console: Console, title: str, rows: list[tuple[str, Any, Any]], a: str, b: str) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("", a, b):
        table.add_column(column, overflow="fold")
    for key, old, new in rows:
        table.add_row(key, *("-" if value is None else str(value) for value in (old, new)))
    console.print(table if rows else f"{title}: none")
    console.print()


def show(console: Console, a: Side, b: Side) -> None:
    """Parameters, sources and data that differ; results on the same problems; what flipped."""
    show_changes(console, "parameters", list(differences(a.params, b.params)), a.name, b.name)
    for title, old, new in (("inputs", a.sources, b.sources), ("data and models", a.data, b.data)):
        short = [(key, x and x[:8], y and y[:8]) for key, x, y in differences(old, new)]
        show_changes(console, f"{title} that differ (digests)", short, a.name, b.name)
    table = Table(title="results, paired on the same problems", title_justify="left", box=None, pad_edge=False)
    for column in ("evaluation", "outcome", a.name, b.name, "difference", "95 %", "p", "won", "lost", "problems"):
        table.add_column(column)
    flips = []
    for place, name, found, before, after in results(a, b):
        table.add_row(
            *(place, name, f"{before.mean():.1%}", f"{after.mean():.1%}", f"{100 * found['difference']:+.1f}"),
            *(f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f}", f"{found['p_value']:.2g}"),
            *(str(found[key]) for key in ("wins", "losses", "n")),
        )
        if name == "first attempt" and found["wins"] + found["losses"]:
            flips.append((place, before, after))
    console.print(table if table.row_count else "results: no evaluation that both have and that differs")
    console.print()
    if same := [Path(path).stem for path in sorted({*a.attempts} & {*b.attempts}) if a.data[path] == b.data[path]]:
        console.print(f"the same attempts in both: {', '.join(same)}")
        console.print()
    for place, before, after in flips:
        show_flips(console, place, before, after, b.problems)
    if shared := sorted({*a.seconds} & {*b.seconds}):
        spent = [sum(one.seconds[name] for name in shared) / 60 for one in (a, b)]
        console.print(f"{len(shared)} stages with manifests in both took {spent[0]:.1f} and {spent[1]:.1f} minutes")


def show_flips(console: Console, place: str, before: pd.Series, after: pd.Series, problems: pd.DataFrame) -> None:
    """How many problems of each family came right and went wrong, and which."""
    changed = before.index[before != after]
    family = problems["family"].reindex(changed).fillna("none") if len(problems) else pd.Series("none", changed)
    table = Table(title=f"{place}: what flipped", title_justify="left", box=None, pad_edge=False)
    for column in ("family", "came right", "went wrong", "such as"):
        table.add_column(column)
    for name, own in family.groupby(family):
        right = [one for one in own.index if after[one]]
        wrong = [one for one in own.index if before[one]]
        table.add_row(str(name), str(len(right)), str(len(wrong)), ", ".join([*right[:1], *wrong[:1]]))
    console.print(table)
    console.print()


@click.command(cls=Command)
@click.option("--a", "a", required=True, help="a commit, branch, tag or experiment")
@click.option("--b", "b", default=lineage.WORKSPACE, show_default=True, help="likewise")
def main(a: str, b: str) -> None:
    """Prints what differs between two revisions or experiments."""
    show(lineage.terminal(), side(a), side(b))


if __name__ == "__main__":
    main()
