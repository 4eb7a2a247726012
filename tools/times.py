"""How long each stage took, from the manifests: a page beside the report, which is an out and can't know it.

The report follows from the outs alone and is the same wherever it is made; times, machines and versions aren't.
"""

from __future__ import annotations

from pathlib import Path

import click

from stages.run import Command, manifest
from tools import lineage

PAGE = Path(manifest.FOLDER) / "index.html"


@click.command(cls=Command)
def main() -> None:
    """Writes manifests/index.html."""
    from whetstone.report.times import html

    with lineage.opened() as repo:
        own = [stage for stage in lineage.pipeline(repo) if stage.name != "code"]
        records = {stage.name: lineage.record(stage) for stage in own}
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(html(records))
    click.echo(f"{PAGE}: {sum(one is not None for one in records.values())} of {len(records)} stages")


if __name__ == "__main__":
    main()
