"""Engines complete prompts. The journal (`whetstone.engines.journal`) makes any of them resumable."""

from __future__ import annotations

import inspect

from whetstone.engines.base import Engine
from whetstone.errors import UserError


def open_engine(kind: str, model: str, **settings: object) -> Engine:
    """Opens the engine that the parameters name; `settings` are the keyword arguments of that engine's class.

    Raises:
        UserError: there is no such engine, it has no such setting, or what it needs isn't installed.
    """
    if kind == "transformers":
        from whetstone.engines.transformers import TransformersEngine as Chosen
    elif kind == "vllm":
        from whetstone.engines.vllm import VllmEngine as Chosen
    elif kind == "openai":
        from whetstone.engines.openai import OpenAIEngine as Chosen
    else:
        raise UserError(f"engine {kind!r} is unknown; choose transformers, vllm or openai")
    try:
        inspect.signature(Chosen).bind(model, **settings)
    except TypeError as error:
        known = ", ".join(list(inspect.signature(Chosen).parameters)[1:])
        raise UserError(f"engine {kind}: {error}; its settings are {known}") from error
    return Chosen(model, **settings)
