"""Multiple-choice problems to graded attempts: samples under several orders of the options, and hinted second tries.

A seed belongs to (problem, sample), so an attempt doesn't depend on the batch that it was in. `store` is the journal
that makes sampling resumable; without one, completions are made anew and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from whetstone import choices
from whetstone.engines import journal
from whetstone.engines.base import Engine, Request, Sampling
from whetstone.engines.progress import Progress
from whetstone.grading.attempts import grade_attempts
from whetstone.records import fingerprint, seed_of


class Asking(NamedTuple):
    """How problems are put to a model: the prompt, the language to think in, and how many worked examples."""

    prompt: choices.ChoicePrompt
    think: choices.Think = "target"
    shots: int = 0

    def text(self, problem: Any, number: int, hinted: bool = False) -> tuple[str, list[str], str]:
        """(prompt, options as shown, right letter) of a PROBLEM row under the order of this number."""
        order = choices.order_of(problem.id, number, len(problem.options))
        options, letter = choices.shown(problem.options, problem.answer, order)
        text = self.prompt.render(
            problem.question,
            options,
            think=self.think,
            language=choices.language_of(problem.source),
            shots=self.shots,
            hinted=letter if hinted else None,
        )
        return text, options, letter


def attempts(
    engine: Engine,
    problems: pd.DataFrame,
    asking: Asking,
    sampling: Sampling,
    *,
    k: int,
    orders: int,
    model: str,
    seed: int,
    store: Path | None,
    hinted: bool = False,
) -> pd.DataFrame:
    """k attempts at each problem, graded (records.ATTEMPT); sample s sees the options in order s modulo `orders`.

    Hinted attempts have the right option marked; they are second tries (position 2) under the problem's own order.
    """
    asked, rows, requests, weights = [], [], [], engine.fingerprint
    greedy = sampling.temperature == 0
    kind = "hinted" if hinted else "direct"
    for problem in problems.itertuples():
        for sample in range(k):
            text, options, letter = asking.text(problem, 0 if hinted else sample % orders, hinted)
            one_seed = 0 if greedy else seed_of(seed, problem.id, kind, sample)
            asked.append((options, letter))
            requests.append(Request(text, sampling, one_seed))
            rows.append(
                {
                    "id": f"{model}:{problem.id}:{kind}:{sample}",
                    "problem_id": problem.id,
                    "model": model,
                    "strategy": "cot",
                    "sample": sample,
                    "position": 2 if hinted else 1,
                    "probability": None,
                    "prompt_tokens": len(engine.encode(text)) or None,  # None where only a server knows
                    "prompt_hash": fingerprint(text),
                    "engine": weights,
                    "seed": one_seed,
                }
            )
    if not rows:
        return pd.DataFrame()
    completions = _complete(engine, requests, store, f"{model}, {kind}")
    texts = [one.text for (one,) in completions]
    results = grade_attempts(
        texts,
        ["cot"] * len(texts),
        [letter for _, letter in asked],
        "choice",
        finish_reasons=[one.finish_reason for (one,) in completions],
        options=[options for options, _ in asked],
    )
    for row, (completion,), result in zip(rows, completions, results, strict=True):
        row |= {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "completion_tokens": len(completion.token_ids) or None,
            "logprob": float(sum(completion.logprobs)) if completion.logprobs else None,
            **result._asdict(),
        }
    frame = pd.DataFrame(rows)
    return frame.astype(object).where(frame.notna(), None)


def _complete(engine: Engine, requests: Sequence[Request], store: Path | None, label: str) -> list[tuple]:
    if store is not None:
        return list(journal.run(engine, requests, store, progress=Progress(label)))
    found = dict(engine.generate(requests))
    return [found[index] for index in range(len(requests))]


def failed(attempts: pd.DataFrame) -> list[str]:
    """Ids of the problems that no attempt got right, sorted."""
    right = set(attempts.loc[attempts["verdict"] == "correct", "problem_id"])
    return sorted(set(attempts["problem_id"]) - right)
