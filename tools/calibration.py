"""How fast this machine samples and trains with the model and engine of params.yaml, from a few completions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from stages import common, serving
from stages.run import scratch
from tools import recipe

PROBLEMS = 64
# A trained token costs about three times a read one: the gradients of weights and activations cost a forward pass each
TRAINED = 3


def place() -> Path:
    return scratch() / "calibration.json"


def subject() -> dict[str, Any]:
    """What a measurement is of."""
    model, engine = common.section("model", common.Model), common.section("engine", serving.Engine)
    return {"model": model.model_dump(), "engine": engine.model_dump()}


def known() -> dict[str, Any] | None:
    """The last measurement, where it was of this model and engine."""
    found = json.loads(place().read_text()) if place().exists() else None
    return found if found and found["subject"] == subject() else None


def measure() -> dict[str, Any]:
    """Samples a few problems. {start, seconds_per_completion, seconds_per_trained_token} in seconds,
    and what it is a measurement of."""
    typical = recipe.here().typical(PROBLEMS)
    began = time.monotonic()
    with serving.open_engine("base") as engine:
        from stages.run.manifest import device
        from whetstone.engines.base import Request, Sampling

        start = time.monotonic() - began
        requests = [Request(text, sampling, number) for number, (text, sampling) in enumerate(typical)]
        began = time.monotonic()
        completions = sum(len(done) for _, done in engine.generate(requests))
        sampling = time.monotonic() - began
        read = [text for text, _ in typical[:PROBLEMS]]
        tokens = sum(len(engine.encode(text)) for text in read)
        began = time.monotonic()
        sum(1 for _ in engine.generate([Request(text, Sampling(max_tokens=1)) for text in read]))
        reading = time.monotonic() - began
    found = {
        "subject": subject(),
        "device": device(),
        "start": round(start, 3),
        "seconds_per_completion": sampling / completions,
        "seconds_per_trained_token": TRAINED * reading / tokens,
    }
    place().write_text(json.dumps(found, indent=1) + "\n")
    return found
