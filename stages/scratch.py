"""The scratch folder: journals of completions and unfinished training, which make a killed stage resumable."""

from __future__ import annotations

import click

from stages import common
from whetstone.engines.journal import clear, size


@click.command(cls=common.Stage)
@click.option("--clear", "clears", is_flag=True, help="delete it, unless a stage is using it")
def main(clears: bool) -> None:
    """Prints what the scratch folder holds."""
    folder = common.scratch()
    if clears:
        click.echo(f"{folder}: {clear(folder) / 1e6:,.1f} MB freed")
    else:
        files, total = size(folder)
        click.echo(f"{folder}: {files:,} files, {total / 1e6:,.1f} MB (`make clean-scratch` deletes them)")


if __name__ == "__main__":
    main()
