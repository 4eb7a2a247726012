"""Everything that can be wrong before anything runs: params.yaml in a second; with --all the rest (`make check`)."""

from __future__ import annotations

from typing import Any

import click

from stages import common, serving
from stages.run import Command
from tools import recipe
from whetstone.errors import UserError
from whetstone.validation import validated


def valid(params: dict[str, Any]) -> None:
    """Raises UserError for an unknown or missing section, or a value that it doesn't take."""
    own = recipe.here()
    if unknown := sorted(set(params) - set(own.SECTIONS) - set(own.LISTS)):
        raise UserError(
            f"{common.PARAMS}: unknown sections {unknown}; known: {', '.join([*own.LISTS, *own.SECTIONS])}"
        )
    for name, schema in own.SECTIONS.items():
        if name not in params:
            raise UserError(f"{common.PARAMS}: section `{name}` is missing (keys: {', '.join(schema.model_fields)})")
        validated(params[name] or {}, schema, str(common.PARAMS), name)
    for name in own.LISTS:
        if not isinstance(params.get(name), list) or not params[name]:
            raise UserError(f"{common.PARAMS}: `{name}` is {params.get(name)!r}; give a list of at least one")


def parameters() -> None:
    """Raises UserError for what is wrong in params.yaml, in a prompt that it names, or with the base model."""
    valid(common.read_params())
    recipe.here().check()
    if common.section("engine", serving.Engine).kind != "openai":  # a server has the model
        common.model_path("base")


@click.command(cls=Command)
@click.option("--all", "everything", is_flag=True, help="also dvc.yaml, tables, disk and device; says what it found")
def main(everything: bool) -> None:
    """Checks params.yaml, the prompts and the base model."""
    parameters()
    if everything:
        from tools import preflight

        preflight.run()


if __name__ == "__main__":
    main()
