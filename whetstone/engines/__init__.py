"""Engines complete prompts. The journal (`whetstone.engines.journal`) makes any of them resumable."""

from __future__ import annotations

from whetstone.engines.base import Engine
from whetstone.errors import UserError


def open_engine(kind: str, model: str, **settings: object) -> Engine:
    """Opens the engine that the parameters name; `settings` are the keyword arguments of that engine's class.

    Raises:
        UserError: there is no such engine, or what it needs isn't installed.
    """
    if kind == "transformers":
        from whetstone.engines.transformers import TransformersEngine as Chosen
    elif kind == "vllm":
        from whetstone.engines.vllm import VllmEngine as Chosen
    elif kind == "openai":
        from whetstone.engines.openai import OpenAIEngine as Chosen
    else:
        raise UserError(f"engine {kind!r} is unknown; choose transformers, vllm or openai")
    return Chosen(model, **settings)
