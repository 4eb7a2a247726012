"""A sampling run that a test kills: `python killed_run.py STORE OUT SLOWNESS [MODEL]`.

Writes every completion, in order, to OUT when it is through. Without a model, a scripted engine answers, in batches of
eight that take SLOWNESS seconds, and each completion that it makes is a line in OUT.made.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

from whetstone.engines import open_engine
from whetstone.engines.base import Request, Sampling
from whetstone.engines.journal import run
from whetstone.engines.scripted import ScriptedEngine

REQUESTS, BATCH = 240, 8


class Slow(ScriptedEngine):
    made: Path
    slowness: float

    def generate(self, requests):
        for index, completions in super().generate(requests):
            if index % BATCH == 0:
                time.sleep(self.slowness)
            with self.made.open("a") as file:
                file.write(".")
            yield index, completions


def main(store: str, out: str, slowness: str, model: str | None = None) -> None:
    if model:
        engine, prompt = open_engine("transformers", model, slots=32), "Question: {} plus {}?\nAnswer:"
    else:
        engine, prompt = Slow(lambda prompt: [f"{prompt} says {i} \U0001f600" for i in range(3)]), "{} {}"
        engine.made, engine.slowness = Path(out + ".made"), float(slowness)
    sampling = Sampling(24, temperature=1.0, n=2, stop=("\n\n",))
    requests = [Request(prompt.format(i, 7 * i), sampling, seed=i) for i in range(REQUESTS)]
    results = [[dataclasses.asdict(c) for c in completions] for completions in run(engine, requests, store)]
    Path(out).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
