"""What `make check` looks at beyond params.yaml, without importing torch: the pipeline, tables, disk and device."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from stages import common, serving
from stages.run import manifest
from tools import lineage, plan, recipe
from whetstone import records
from whetstone.errors import UserError

SCHEMAS = {name: getattr(records, name) for name in ("PROBLEM", "ATTEMPT", "EXAMPLE", "PAIR")}


def pipeline(repo: Any) -> str:
    """dvc.yaml: every input is a file of the project or made by a stage, every section is one that stages know."""
    stages = lineage.pipeline(repo)
    outs = [Path(out.def_path) for stage in stages for out in stage.outs]
    for stage in stages:
        for dep in stage.deps:
            path = Path(dep.def_path)
            if not (path.exists() or any(path == out or path in out.parents or out in path.parents for out in outs)):
                raise UserError(f"dvc.yaml: {stage.name} reads {path}, which isn't there and which no stage makes")
            for key in getattr(dep, "params", []):
                if key.partition(".")[0] not in (*recipe.here().SECTIONS, *recipe.here().LISTS):
                    raise UserError(f"dvc.yaml: {stage.name} declares the parameter {key}, which no stage knows")
    plan.ordered(repo)
    return f"{len(stages)} stages without a cycle, every input at hand or made by one"


def tables(repo: Any) -> str:
    """Every table that is here has the columns of one of the four kinds of records, each of its type."""
    counts = dict.fromkeys(SCHEMAS, 0)
    for path in [Path(out.def_path) for stage in lineage.pipeline(repo) for out in stage.outs]:
        files = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path] * (path.suffix == ".parquet")
        for file in filter(Path.exists, files):
            kind = kind_of(file)
            if kind is None:
                raise UserError(f"{file}: its columns are those of no kind of records; delete it and run `dvc repro`")
            counts[kind] += 1
    return ", ".join(f"{n} of {name.lower()}s" for name, n in counts.items() if n) or "none here yet"


def kind_of(file: Path) -> str | None:
    try:
        found = pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file}: no Parquet file ({error}); delete it and run `dvc repro`") from error
    return next((name for name, own in SCHEMAS.items() if found.remove_metadata() == own), None)


def disk(repo: Any) -> str:
    """There is room for what would run."""
    needed = sum(one.need.disk or 0 for one in plan.plan(repo, lineage.manifests(), None))
    free = shutil.disk_usage(".").free
    if needed > free:
        raise UserError(f"disk: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} would be written; try `make free`")
    return f"{free / 1e9:,.1f} GB free, about {needed / 1e9:,.2f} GB would be written"


def device() -> str:
    """What the parameters ask of the machine is there, as far as can be told without torch."""
    engine, runtime = common.section("engine", serving.Engine), common.runtime()
    gpu = shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()
    if engine.kind == "vllm" and importlib.util.find_spec("vllm") is None:
        raise UserError(f"{common.PARAMS}: `engine.kind` is vllm, which isn't installed here; `make vllm` does")
    if (runtime.device or "").startswith("cuda") and not gpu:
        raise UserError(f"{common.PARAMS}: `runtime.device` is {runtime.device}, but no GPU is here; null takes a CPU")
    own = recipe.here()
    if quantised := [name for name in sorted(own.trainers())
                     if common.section(name, own.SECTIONS[name]).adapter == "qlora"]:  # fmt: skip
        if not gpu:
            raise UserError(f"{common.PARAMS}: `{quantised[0]}.adapter` is qlora, which needs a GPU; take lora")
    return f"{engine.kind} on {runtime.device or ('a GPU' if gpu else 'the CPU')}, {manifest.device()}"


def sandbox() -> str:
    """Model-written programs can be confined here, or what is missing may be."""
    from whetstone.grading import layers, sandbox

    common.runtime()
    held = sandbox.layers()
    layers.require(held)
    missing = [name for name, layer in held.items() if not layer.holds]
    return f"whole: {', '.join(held)}" if not missing else f"lacks {', '.join(missing)}, which was accepted"


def findings() -> Iterator[tuple[str, str]]:
    yield "params.yaml", "valid, with its prompts and base model"
    with lineage.opened() as repo:
        yield "dvc.yaml", pipeline(repo)
        yield "tables", tables(repo)
        yield "disk", disk(repo)
    yield "device", device()
    yield "sandbox", sandbox()


def run() -> None:
    """Prints what was found. Raises UserError for the first thing that is wrong."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, found in findings():
        table.add_row(name, found)
    lineage.terminal().print(table)
