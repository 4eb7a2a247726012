"""Which model a server answers with. Its name says little: other weights may be served by it tomorrow.

So a server is asked what it loaded (its path and the longest context), the folder of that name is read where it is
here, and the model itself is probed: greedy tokens after fixed prompts, with their log-probabilities. All three belong
to the key of every completion. Nothing is taken that changes with each start.

A probe is compared with those seen before, not hashed: a server that was started again, or is busy, rounds otherwise,
and a hash of rounded numbers would now and then call the same model another. Two are the same where the compared
log-probabilities differ by TOLERANCE on average. A bfloat16 logit between 16 and 32 is one of steps of 0.125, so that
the bound lets four tokens in ten be one step off; training moves them by more (docs/engines.md has what was measured).
Weights that differ by less can't be told apart from outside, only by their folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whetstone import records
from whetstone.errors import UserError

TOKENS = 8  # of each prompt
TOLERANCE = 0.05  # nats
_QUESTION = "Question: Tom has 12 pens and buys 7 more. How many pens does Tom have?"
PROMPTS = (
    *(f"{_QUESTION}\nAnswer by{tag}" for tag in ("", " steps:", " questions:", " program:")),
    f"{_QUESTION}\nA) 5\nB) 19\nC) 84\nD) 20\nAnswer:",
    "The capital of",
    "Once upon a time",
    "def mean(values):\n",
)
Spoken = Sequence[tuple[str, float | None]]  # tokens and log-probabilities; or one text, where none are told


def weights(*names: str | None) -> str | None:
    """The digest of the first of these that is a model's or an adapter's folder here."""
    for name in filter(None, names):
        if any(Path(name, file).is_file() for file in ("config.json", "adapter_config.json")):
            return records.weights_digest(name)
    return None


def same(one: Sequence[Spoken], other: Sequence[Spoken]) -> bool:
    """Whether two probes are of one model: texts where a server tells no log-probabilities, else these, up to the
    first token that differs. That one is a tie that rounding decided, or what another model says: the numbers tell."""
    gaps = []
    for before, now in zip(one, other, strict=True):
        for (token, value), (token_now, value_now) in zip(before, now, strict=False):
            if value is None or value_now is None:
                if (token, value) != (token_now, value_now):
                    return False
                break
            gaps.append(abs(value - value_now))
            if token != token_now:
                if max(value, value_now) > math.log(0.5) + TOLERANCE:  # no tie: one of the two is over half
                    return False
                break
    return not gaps or sum(gaps) / len(gaps) <= TOLERANCE


def identified(folder: Path | None, facts: Mapping[str, Any], probe: Sequence[Spoken]) -> str:
    """The id of the model with these facts and this probe: that of its record in `folder`, or a new one, which is
    written there. Without a folder nothing is compared: the id is of the rounded probe.

    Raises:
        UserError: the weights in the model's folder aren't those of an earlier record, and the server answers as then.
    """
    probe = [[[token, value if value is None else round(value, 4)] for token, value in spoken] for spoken in probe]
    if folder is None:
        coarse = [[[token, value and round(value, 1)] for token, value in spoken] for spoken in probe]
        return records.fingerprint(json.dumps([dict(facts), coarse], sort_keys=True))
    name = ("server", "model", "api")
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        if any(record["facts"][key] != facts[key] for key in name) or not same(record["probe"], probe):
            continue
        if record["facts"] == dict(facts):
            return file.stem
        if record["facts"]["weights"] != facts["weights"] and probe[0][0][1] is not None:
            raise UserError(
                f"{facts['model']} has other weights here than when {facts['server']} was asked before, but the "
                f"server answers as it did then: start it again, so that it serves the new ones. (If it has been, "
                f"they answer alike within {TOLERANCE} nats: delete {file})"
            )
    record = {"facts": dict(facts), "probe": probe}
    found = records.fingerprint(json.dumps(record, sort_keys=True))
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{found}.partial"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(folder / f"{found}.json")
    return found
