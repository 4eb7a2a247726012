"""What the project takes on the disk, and what of it can be made again (`make status`, `make free`).

Merged models aren't in DVC's cache: an adapter and its base make them again. Journals and checkpoints in the scratch
folder only spare a killed stage its work. Without either, dvc.lock still holds, and `dvc repro` makes again what a
stage that has to run asks for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from stages import common
from stages.run import Command
from tools import lineage
from whetstone.engines.journal import clear, size


def uncached(repo: Any) -> Iterator[Path]:
    """Models that a stage makes again rather than DVC's cache keeps."""
    for out in [out for stage in lineage.pipeline(repo) for out in stage.outs]:
        path = Path(out.def_path)
        if path.parts[0] == "models" and not out.use_cache and path.exists():
            yield path


def taken(path: Path) -> int:
    """Bytes."""
    return size(path)[1] if path.is_dir() else path.stat().st_size if path.exists() else 0


@click.command(cls=Command)
@click.option("--clear", "clears", is_flag=True, help="delete the scratch folder, unless a stage is using it")
@click.option("--free", "frees", is_flag=True, help="delete the scratch folder and the models that can be made again")
def main(clears: bool, frees: bool) -> None:
    """Prints what takes how much space."""
    scratch = common.scratch()
    if clears or frees:
        click.echo(f"{scratch}: {clear(scratch) / 1e6:,.1f} MB freed")
    with lineage.opened() as repo:
        models, cache = list(uncached(repo)), Path(repo.cache.local.path)
        if frees:
            for path in models:
                click.echo(f"{path}: {taken(path) / 1e6:,.1f} MB freed")
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if clears or frees:
            return
        outs = [Path(out.def_path) for stage in lineage.pipeline(repo) for out in stage.outs]
        results = [path for path in outs if path not in models]
    rows = {
        "results in the workspace": (sum(map(taken, results)), "dvc.lock names them"),
        "merged models": (sum(map(taken, models)), "`make free` deletes them, their stages make them again"),
        "scratch": (taken(scratch), "what killed stages go on from; `make free` or `make clean-scratch` deletes it"),
        "DVC's cache": (taken(cache), "every version of every result; `dvc gc -w` keeps those of the workspace"),
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, (used, meaning) in rows.items():
        table.add_row(name, f"{used / 1e6:,.1f} MB", meaning)
    lineage.terminal().print(table)


if __name__ == "__main__":
    main()
