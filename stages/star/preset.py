"""Parameters of a kind of run, by its name: `make star PRESET=english` edits the recipe's params.yaml."""

from __future__ import annotations

import click
from ruamel.yaml import YAML

from stages import common, preset
from stages.run import Command
from stages.star.check import check
from whetstone.errors import UserError


@click.command(cls=Command)
@click.argument("name")
def main(name: str) -> None:
    """Applies recipes/star/presets/NAME.yaml to params.yaml and says what it changed."""
    path = preset.FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no preset {name!r}; there are {', '.join(preset.names())}")
    params, text, lines = common.read_params(), common.PARAMS.read_text(), []
    for section, key, before, value in preset.differences(params, YAML(typ="safe").load(path)):
        text = preset.edited(text, section, key, value)
        (params[section] if section else params)[key] = value
        lines.append(f"{f'{section}.' if section else ''}{key}: {preset.shown(before)} -> {preset.shown(value)}")
    check(params)
    if not preset.holds(text, params):
        raise UserError(f"{common.PARAMS}: its layout is too unusual to edit; set by hand\n" + "\n".join(lines))
    common.PARAMS.write_text(text)
    click.echo(preset.header(path.read_text()) + "\n" + "\n".join(lines or ["nothing to change"]))


if __name__ == "__main__":
    main()
