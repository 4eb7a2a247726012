"""The engine that the parameters name, for the stages that complete prompts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from stages import common
from whetstone import engines
from whetstone.engines.progress import device_lock


class Engine(common.Strict):
    """What completes prompts. Part of every completion's identity, unlike what stands in `Runtime`."""

    kind: Literal["transformers", "vllm", "openai"] = "transformers"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Runtime(common.Strict):
    """Knobs that can't change a result, so that no stage depends on them."""

    device: str | None = None
    slots: int = Field(256, ge=1)


@contextlib.contextmanager
def open_engine(label: str) -> Iterator[engines.Engine]:
    """The engine of a model by its label, freed at the end; on a GPU, no other stage's engine beside it."""
    spec, runtime = common.section("engine", Engine), common.section("runtime", Runtime)
    path = common.model_path(label)

    import torch

    with device_lock(runtime.device or ("cuda" if torch.cuda.is_available() else "cpu")):
        opened = engines.open_engine(
            spec.kind, str(path), dtype=spec.dtype, device=runtime.device, slots=runtime.slots
        )
        try:
            yield opened
        finally:
            opened.close()
