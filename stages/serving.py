"""The engine that the parameters name, for the stages that complete prompts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from stages import common, output
from whetstone import engines
from whetstone.engines.base import Completion, Request
from whetstone.locks import device_lock


class Engine(common.Strict):
    """What completes prompts. Part of every completion's identity, unlike what stands in `Runtime`.

    `options` are further settings of the engine's class that can change a completion, such as `base_url` and `api` of
    the openai engine or `max_model_len` of vllm.
    """

    kind: Literal["transformers", "vllm", "openai"] = "transformers"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    options: dict[str, Any] = {}


@contextlib.contextmanager
def open_engine(label: str) -> Iterator[engines.Engine]:
    """The engine of a model by its label, freed at the end; on a GPU, no other stage's engine beside it."""
    with open_engines(label) as (opened,):
        yield opened


@contextlib.contextmanager
def open_engines(*labels: str) -> Iterator[list[engines.Engine]]:
    """Engines of several models side by side.

    A server of the openai engine is asked for the base model by `model.name`, for an epoch's by its folder, which is
    what `vllm serve models/epoch1/merged` calls it.
    """
    spec, runtime = common.section("engine", Engine), common.runtime()
    settings = {"slots": runtime.slots, **spec.options, **runtime.options}
    device = "cpu"
    if spec.kind == "openai":
        base = common.section("model", common.Model).name
        models = [base if label == "base" else f"models/{label}/merged" for label in labels]
        settings["seen"] = common.scratch("served")
    else:
        models = [str(common.model_path(label)) for label in labels]
        settings["dtype"] = spec.dtype

        import torch

        device = runtime.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if spec.kind == "transformers":
            settings["device"] = device
    with device_lock(device), contextlib.ExitStack() as stack:
        opened = []
        for model in models:
            opened.append(engines.open_engine(spec.kind, model, **settings))
            stack.callback(opened[-1].close)
        yield [Metered(one) for one in opened]


class Metered:
    """An engine that tells the manifest what it sampled (a journal's rows aren't asked for) and how long that took."""

    def __init__(self, engine: engines.Engine):
        self.engine = engine
        output.count_sampled(0, 0, 0.0)  # said also where the journal has all

    @property
    def fingerprint(self) -> str:
        found = self.engine.fingerprint
        if served := getattr(self.engine, "served", None):  # how a server's model was known
            output.COUNTS.setdefault("served", {})[served["model"]] = served
        return found

    def encode(self, prompt: str) -> list[int]:
        return self.engine.encode(prompt)

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> np.ndarray:
        return self.engine.choice_logprobs(prompts, choices)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        started, completions, tokens = time.monotonic(), 0, 0
        try:
            for index, done in self.engine.generate(requests):
                completions, tokens = completions + len(done), tokens + sum(len(one.token_ids) for one in done)
                yield index, done
        finally:
            output.count_sampled(completions, tokens, time.monotonic() - started)
