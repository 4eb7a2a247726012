"""Pydantic's errors in the words of this project: which file, which key, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from whetstone.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def validated(values: Any, schema: type[Model], where: str, name: str) -> Model:
    """The values as `schema`. Errors name the file `where` and the key as `name.key`, one line each.

    Raises:
        UserError: an unknown key, a missing one, or a value that the schema doesn't take.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [f"{where}: {_explain(name, schema, one)}" for one in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from error


def _explain(name: str, schema: type[BaseModel], error: Mapping[str, Any]) -> str:
    key = ".".join([name, *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        known = list(schema.model_fields) if len(error["loc"]) == 1 else []
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f" (did you mean `{close[0]}`?)" if close else f" (known keys: {', '.join(known)})" if known else ""
        return f"`{key}` is unknown; remove it or correct its name{hint}"
    if error["type"] == "missing":
        return f"`{key}` is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    return f"`{key}` is {error['input']!r}: {message}" if error["loc"] else f"`{name}`: {message}"
