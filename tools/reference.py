"""docs/params.md: every parameter with its type, its value in params.yaml and what it means, from the schemas.

What a parameter means is its field's description, or else the comment beside it in params.yaml, or else stands here.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stages import common
from stages.recipe import LISTS, SECTIONS
from stages.run import Command

PAGE = Path("docs/params.md")
HEAD = """# Parameters

Everything in `params.yaml`, from the schemas that check it (`make docs` writes this page). An unknown key, a value of
the wrong type or out of its range stops a stage before it does anything. `dvc exp run -S sft.rank=16` sets one for an
experiment; `dvc params diff` shows what differs from the last commit. What stages declare decides what runs again:
`runtime` is declared by none.
"""
ELSEWHERE = {"problems.sources": "[data.md](data.md)"}  # pages that explain a schema
MEANINGS = {
    "strategies": "cot: chain of thought; l2m: least to most; pot: program of thoughts",
    "epochs.train": "each epoch's model, in the order in which they are made",
    "epochs.evaluate": "epochs whose models are evaluated",
    "epochs.train.start": "`base`, or an epoch before this one: the model that is trained",
    "epochs.train.attempts": "`base`, or an epoch before this one: whose attempts become its training data",
    "epochs.train.trainer": "sft: supervised fine-tuning on examples; dpo: preferences, on pairs",
    "problems.world.train": "problems to learn from, dealt into five parts",
    "problems.world.dev": "problems on which checkpoints are chosen",
    "problems.world.test": "problems of the evaluation set `test`",
    "problems.world.test_hard": "longer and larger problems than any in training",
    "infer.shots": "worked examples in the prompt",
    "preprocess.max_attempts": "attempts of an episode; what comes later is ignored",
    "sample.max_attempts": "strategies that an episode tries",
    "temperature": "of sampling; 0 is greedy",
    "top_p": "share of the probability that is sampled from; 1 is all of it",
    "max_tokens": "most tokens of a completion; one that is cut off has given no answer",
    "stop": "texts that end a completion",
    "seed": "another one gives other draws",
}
SHAPE = """## The pipeline's shape

| parameter | value | meaning |
| --- | --- | --- |
"""


def comments(text: str) -> dict[str, str]:
    """What stands beside `section.key: value  # here` in params.yaml, by key; of top-level keys too."""
    found, section = {}, ""
    for line in text.splitlines():
        if match := re.match(r"(\s*)([\w]+):\s*(.*?)(?:\s+#\s*(.*))?$", line):
            indent, key, _, comment = match.groups()
            section = key if not indent else section
            name = key if not indent else f"{section}.{key}"
            if comment and not comment.startswith("---"):
                found[name] = comment
    return found


def kind(annotation: Any) -> str:
    """A type in words: `integer`, `number`, one of some texts, a list, nothing (null)."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in inside)
    if origin in (Union, types.UnionType):
        names = [kind(one) for one in inside if one is not type(None)]
        return " or ".join([*names, *(["null"] if type(None) in inside else [])])
    if origin in (list, tuple):
        return f"list of {kind(inside[0])}s" if get_origin(inside[0]) is not Literal else f"list of {kind(inside[0])}"
    if origin is dict:
        return f"{kind(inside[0])}: {kind(inside[1])}"
    known = {int: "integer", float: "number", bool: "true or false", str: "text", type(None): "null", Any: "anything"}
    return known.get(annotation) or f"see {annotation.__name__}"


def bounds(field: Any) -> str:
    signs = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}
    found = [(signs.get(type(one).__name__), one) for one in field.metadata]
    return ", ".join(f"{sign} {getattr(one, type(one).__name__.lower()):g}" for sign, one in found if sign)


def inner(annotation: Any) -> Iterator[type[BaseModel]]:
    """Schemas inside of a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from inner(one)


def shown(value: Any) -> str:
    """A value as YAML has it, in a table's cell."""
    if value is PydanticUndefined:
        return "must be given"
    if value is None or isinstance(value, bool):
        value = {None: "null", True: "true", False: "false"}[value]
    text = str(list(value) if isinstance(value, tuple) else value)
    return f"`{text}`".replace("|", r"\|")


def table(name: str, schema: type[BaseModel], values: dict | None, said: dict[str, str]) -> str:
    """A section's table, then those of the schemas inside."""
    doc = " ".join((schema.__doc__ or "").split()) if schema.__doc__ != BaseModel.__doc__ else ""
    column = "value" if values is not None else "default"
    lines = [f"## {name}\n", *([f"{doc}\n"] if doc else [])]
    lines += [f"| parameter | type | {column} | meaning |", "| --- | --- | --- | --- |"]
    nested = []
    for key, field in schema.model_fields.items():
        full = f"{name}.{key}"
        default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
        value = values[key] if values is not None and key in values else default
        within = list(inner(field.annotation))
        if full in ELSEWHERE:
            about = f"list, see {ELSEWHERE[full]}"
        elif within:
            about = f"see {full} below"
            nested += [(full, one) for one in within]
        else:
            about = ", ".join(filter(None, (kind(field.annotation), bounds(field))))
        meaning = field.description or said.get(full) or MEANINGS.get(full) or MEANINGS.get(key, "")
        meaning = meaning.replace("|", r"\|")
        lines.append(f"| `{key}` | {about} | {'' if within and value else shown(value)} | {meaning} |")
    return "\n\n".join(["\n".join(lines), *(table(title, one, None, said) for title, one in nested)])


def page(params: dict[str, Any], text: str) -> str:
    """The whole page, from params.yaml as read and as written."""
    said = comments(text)
    shape = "".join(f"| `{name}` | {shown(params[name])} | {said.get(name) or MEANINGS[name]} |\n" for name in LISTS)
    tables = [table(name, schema, params[name] or {}, said) for name, schema in SECTIONS.items()]
    return "\n".join([HEAD, SHAPE + shape, "\n\n".join(tables)]) + "\n"


@click.command(cls=Command)
def main() -> None:
    """Writes docs/params.md."""
    PAGE.write_text(page(common.read_params(), common.PARAMS.read_text()))
    click.echo(PAGE)


if __name__ == "__main__":
    main()
