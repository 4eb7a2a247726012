"""Takes the manifests of this machine's run into git's record of how the results were made (`make record`).

A run writes its manifests where git doesn't look (`manifests/local`), so that who only runs the pipeline has nothing
to commit. Whoever commits its results records beside them how they came about; experiments do so by themselves.
"""

from __future__ import annotations

from pathlib import Path

import click

from stages.run import Command, manifest
from tools import lineage


@click.command(cls=Command)
def main() -> None:
    """Copies the manifests that are about what dvc.lock says; those of stages that are no more go."""
    folder = Path(manifest.FOLDER)
    with lineage.opened() as repo:
        stages = [stage for stage in lineage.pipeline(repo) if stage.name != "code"]  # which has none
        found = {stage.name: record for stage in stages if (record := lineage.record(stage))}
    for name, record in found.items():
        manifest.write(folder / f"{name}.json", record)
    gone = {path.stem for path in folder.glob("*.json")} - {stage.name for stage in stages}
    for name in gone:
        (folder / f"{name}.json").unlink()
    manifest.git("add", "-A", "--", str(folder))
    click.echo(f"{folder}: {len(found)} of {len(stages)} stages recorded" + (f", {len(gone)} gone" if gone else ""))


if __name__ == "__main__":
    main()
