"""Parameters of a kind of run, by its name: `make star PRESET=english` edits the recipe's params.yaml."""

from __future__ import annotations

import click

from stages.run import Command
from stages.star.check import check
from tools import preset
from whetstone.errors import UserError


@click.command(cls=Command)
@click.argument("name")
def main(name: str) -> None:
    """Applies recipes/star/presets/NAME.yaml to params.yaml and says what it changed."""
    path = preset.FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no preset {name!r}; there are {', '.join(preset.names())}")
    preset.apply(path, check, "make star PRESET=default")


if __name__ == "__main__":
    main()
