"""Parameters for a model and the hardware that it needs: `make preset NAME=rtx4090-mistral-7b` edits params.yaml."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages import common
from stages.run import Command
from tools import check, recipe
from whetstone.errors import UserError

FOLDER = Path("presets")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def header(text: str) -> str:
    """The comment that a preset begins with."""
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:end])


def differences(params: Mapping[str, Any], preset: Mapping[str, Any]) -> Iterator[tuple[str | None, str, Any, Any]]:
    """(section or None, key, value now, value in the preset) where the two differ.

    Raises:
        UserError: the preset sets a section that the parameters lack.
    """
    for section, values in preset.items():
        if section not in params:
            raise UserError(f"{common.PARAMS} has no section `{section}`, which the preset sets")
        if not isinstance(values, Mapping):
            section, values, own = None, {section: values}, params
        else:
            own = params[section] or {}
        for key, value in values.items():
            if key not in own or own[key] != value:
                yield section, key, own.get(key), value


def comment_at(line: str) -> int | None:
    """Where the comment behind a value begins."""
    blanked = QUOTED.sub(lambda match: "'" * len(match[0]), line)
    found = re.search(r"(?<=\S)\s+(?=#)", blanked)
    return found.end() if found else None


def edited(text: str, section: str | None, key: str, value: Any) -> str:
    """The YAML text with one value set, everything else as it is. A comment behind the value stays in the column where
    most comments of the text stand, or one blank behind the value."""
    lines = text.splitlines()
    columns = Counter(at for line in lines if (at := comment_at(line)))
    column = columns.most_common(1)[0][0] if columns else 0
    indent, start, end = "", 0, len(lines)
    if section:
        start = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:")) + 1
        end = next((i for i in range(start, end) if lines[i][:1].strip("#")[:1].strip()), end)
        indent = "  "
    place = next((i for i in range(start, end) if lines[i].startswith(f"{indent}{key}:")), None)
    if place is None:
        last = max((i for i in range(start, end) if lines[i].startswith(" ")), default=start - 1)
        return "\n".join([*lines[: last + 1], f"{indent}{key}: {shown(value)}", *lines[last + 1 :], ""])
    after = place + 1  # lines that go on with the value are deeper, or items of a list
    while after < end and re.match(rf"{indent}(\s|- )\s*[^\s#]", lines[after]):
        after += 1
    line = f"{indent}{key}: {shown(value)}"
    if at := comment_at(lines[place]):
        line = f"{line.ljust(column - 1)} {lines[place][at:]}"
    return "\n".join([*lines[:place], line, *lines[after:], ""])


def holds(text: str, params: Mapping[str, Any]) -> bool:
    try:
        return YAML(typ="safe").load(text) == params
    except YAMLError:
        return False


def shown(value: Any) -> str:
    """A value on one line, as YAML writes it; 0.001 as 1.0e-3."""
    if isinstance(value, float) and 0 < value < 0.01:
        number, power = f"{value:e}".split("e")
        return f"{float(number)}e{int(power)}"
    yaml, text = YAML(typ="safe"), io.StringIO()
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = True, 10_000, False
    yaml.dump(value, text)
    return text.getvalue().removesuffix("...\n").strip()


def apply(path: Path, back: str) -> None:
    """Edits params.yaml by the preset in `path` and says what it changed; `back` is the command that undoes it.

    Raises:
        UserError: the preset isn't YAML, the result isn't valid, or params.yaml is laid out too unusually.
    """
    params, text, lines = common.read_params(), common.PARAMS.read_text(), []
    try:
        preset = YAML(typ="safe").load(path)
    except YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    for section, key, before, value in differences(params, preset):
        text = edited(text, section, key, value)
        (params[section] if section else params)[key] = value
        lines.append(f"{f'{section}.' if section else ''}{key}: {shown(before)} -> {shown(value)}")
    check.valid(params)
    click.echo(header(path.read_text()) + "\n")
    if not lines:
        click.echo(f"{common.PARAMS} has these values already")
        return
    if not holds(text, params):
        raise UserError(f"{common.PARAMS}: its layout is too unusual to edit; set by hand\n" + "\n".join(lines))
    partial = common.PARAMS.with_name(common.PARAMS.name + ".partial")
    partial.write_text(text)
    partial.replace(common.PARAMS)
    click.echo("\n".join(lines))
    click.echo(f"\n{len(lines)} values of {common.PARAMS} changed. `{back}` takes them back")


@click.command(cls=Command)
@click.argument("name", required=False, default="")
def main(name: str) -> None:
    """Applies a preset to params.yaml and says what it changed; without a name, lists them."""
    path = FOLDER / f"{name}.yaml"
    if name and path.is_file():
        own = recipe.name()
        return apply(path, f"make preset NAME=default RECIPE={own}" if own else "make preset NAME=tiny")
    heads = {one: header((FOLDER / f"{one}.yaml").read_text()).splitlines()[0] for one in names()}
    listed = "\n".join(f"  {one:24} {head}" for one, head in heads.items())
    if name:
        raise UserError(f"no preset {name!r}; there are\n{listed}")
    click.echo(listed)


if __name__ == "__main__":
    main()
