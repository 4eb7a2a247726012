"""What would run and why, and what it would take, before anything is spent (`make plan`).

Rows, tokens, time and disk are those of the stage's last manifest, scaled to what it would work on now; a stage that
never ran takes a like one's, such as another part's. Recorded manifests are in git, so that a fresh clone can plan.
Another model or engine than theirs needs `make plan CALIBRATE=1`, which measures a few completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click
from rich.table import Table

from stages import code
from stages.run import Command
from stages.run.sources import Sources
from tools import calibration, lineage
from tools.estimate import Need, grown, need, reference, related


class Planned(NamedTuple):
    stage: Any
    why: str
    need: Need


def ordered(repo: Any) -> list[Any]:
    """The stages, each after those that it needs, otherwise as dvc.yaml has them."""
    import networkx

    place = {stage: number for number, stage in enumerate(lineage.pipeline(repo))}
    graph = repo.index.graph.subgraph(place).reverse()
    return list(networkx.lexicographical_topological_sort(graph, key=place.get))


def reasons(stage: Any, status: Mapping[str, list], sources: Sources) -> list[str]:
    """Why DVC would run the stage by itself, in words, from the `status` of all; nothing where it wouldn't.

    What another stage makes, which isn't as it should be either, isn't a reason: that one comes first. Results that
    changed or are gone are no reason where the cache has them: DVC takes them from there.
    """
    if not any(out.hash_info for out in stage.outs):
        return ["never ran"]
    found: list[str] = []
    changes = status.get(stage.addressing, [])
    unsettled = [out for one in lineage.pipeline(stage.repo) if one.addressing in status for out in one.outs]
    if changed := [*edited(stage, status, sources)]:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        found.append(f"{', '.join(changed[:3])}{more} changed")
    for change in changes:
        if change == "changed checksum":
            found.append("its command changed")
        elif "changed deps" in change:
            for path, state in change["changed deps"].items():
                if isinstance(state, Mapping):
                    found += [f"{key} {word}" for key, word in state.items()]
                elif not code.script_of(path) and not any(related(out.def_path, path) for out in unsettled):
                    found.append(f"{path} {state}")
    if not found and any("changed outs" in change for change in changes) and not stage.outs_cached():
        found = ["its result is neither here nor in the cache"]
    return found


def edited(stage: Any, status: Mapping[str, list], sources: Sources) -> Iterator[str]:
    """The modules that do something else now than when the stage ran, whether or not the stage `code` has seen that;
    the file of their digests itself where nothing tells what they were."""
    states = {path: state for change in status.get(stage.addressing, []) if "changed deps" in change
              for path, state in change["changed deps"].items()}  # fmt: skip
    for path in [dep.def_path for dep in stage.deps if code.script_of(dep.def_path)]:
        then = lineage.modules(stage)
        if path in states:  # what is here isn't what the stage ran with
            then = lineage.manifests().get(stage.name, {}).get("code", {})
        if then:
            now = sources.digests(code.script_of(path))
            yield from sorted(file for file in {*then, *now} if then.get(file) != now.get(file))
        else:
            yield path


def plan(repo: Any, manifests: Mapping[str, dict], measured: dict | None) -> Iterator[Planned]:
    """The stages that `dvc repro` would run, in order. What only follows another stage may turn out not to run."""
    rows: dict[str, tuple[float, float]] = {}  # a stage's rows now, and in its manifest
    running: set[str] = set()
    status, order, sources = lineage.status(repo), ordered(repo), Sources(repo.root_dir)
    for stage in order:
        if stage.name == "code":  # under a second, and what it finds is foreseen here
            continue
        before = [one for one in repo.index.graph.successors(stage)]
        why = reasons(stage, status, sources)
        after = [one.name for one in order if one in before and one.name in running]
        if after and not why:
            why = [f"after {', '.join(after[-3:])}" + (f" and {len(after) - 3} more" if len(after) > 3 else "")]
        found, params = reference(stage.name, manifests), now(stage)
        data = next((dep.def_path for dep in stage.deps if "data/" in dep.def_path), None)
        feeding = [one for one in before if any(related(out.def_path, data) for out in one.outs)] if data else []
        growth = grown(found, feeding, data, rows)
        need_now = need(stage, found, growth, params, measured)
        if found and need_now.rows is not None:
            rows[stage.name] = need_now.rows, found["rows"]["out"]
        if why:
            running.add(stage.name)
            yield Planned(stage, "; ".join(why), need_now)


def now(stage: Any) -> dict[str, Any]:
    """The stage's parameters as params.yaml has them."""
    return {key: value for dep in stage.deps if hasattr(dep, "params")
            for key, value in dep.read_params(flatten=False).items()}  # fmt: skip


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def short(number: float | None) -> str:
    if number is None:
        return "?"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size:
            return f"{number / min(size, 1e3 if unit == 'k' else size):,.1f} {unit}"
    return f"{number:,.0f}"


def total(values: list[float | None]) -> float | None:
    return None if any(value is None for value in values) else sum(values)


@click.command(cls=Command)
@click.option("--calibrate", is_flag=True, help="measure the model and engine of params.yaml on a few problems first")
def main(calibrate: bool) -> None:
    """Prints what would run, why, and what it would take."""
    manifests = lineage.manifests()
    measured = calibration.measure() if calibrate else calibration.known()
    with lineage.opened() as repo:
        planned = list(plan(repo, manifests, measured))
        others = {stage.addressing for stage in lineage.pipeline(repo)} - {one.stage.addressing for one in planned}
        restored = [name for name in lineage.status(repo) if name in others]
        table = Table(title="would run, in this order", title_justify="left", box=None, pad_edge=False)
        for column in ("stage", "rows", "tokens", "time", "disk", "why", "estimated by"):
            table.add_column(column, justify="right" if column in ("rows", "tokens", "time", "disk") else "left")
        for stage, why, one in planned:
            table.add_row(stage.name, short(one.rows), short(one.tokens), duration(one.seconds), short(one.disk), why,
                          one.basis)  # fmt: skip
    needs = [one.need for one in planned]
    known = [sum(value for one in needs if (value := getattr(one, name)) is not None) for name in Need._fields[:4]]
    open_ = sum(one.seconds is None for one in needs)
    table.add_row("together", *(short(v) for v in known[:2]), duration(known[2]), short(known[3]))
    console = lineage.terminal()
    console.print(table if planned else "nothing would run")
    if planned:
        console.print(
            f"\n{len(others) - len(restored)} stages are unchanged, {len(restored)} come back from the cache. This is "
            "the most: a stage that only comes `after` others doesn't run if their results come out the same."
        )
        devices = sorted({one["device"] for one in manifests.values()})
        console.print(f"The manifests are of {', '.join(devices)}" if devices else "There is no manifest yet")
    if open_:
        console.print(f"{open_} stages have no estimate of their time: `make plan CALIBRATE=1` measures this machine")


if __name__ == "__main__":
    main()
