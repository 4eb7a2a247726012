"""Asks to graded attempts, one by one or turn by turn.

`store` is the journal that makes sampling resumable; without one, completions are made anew and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from whetstone.engines import journal
from whetstone.engines.base import Completion, Engine, Request, Sampling
from whetstone.engines.progress import Progress
from whetstone.grading.attempts import grade_attempts
from whetstone.prompts.asks import Ask
from whetstone.records import ATTEMPT, fingerprint, seed_of


def attempts(
    engine: Engine,
    asks: Sequence[Ask],
    sampling: Sampling,
    *,
    model: str,
    seed: int,
    store: Path | None,
    label: str | None = None,
    split: Callable[[str], tuple[str | None, str]] | None = None,
) -> pd.DataFrame:
    """An attempt for each ask, graded (records.ATTEMPT), in their order; what `store` holds isn't sampled again.

    model: the label of the checkpoint, which is part of an attempt's id. label: what the line of progress says.
    split: a completion to (strategy, solution), where an ask leaves the strategy to the model.
    """
    greedy = sampling.temperature == 0
    seeds = [0 if greedy else seed_of(seed, one.problem_id, one.key, one.sample) for one in asks]
    requests = [Request(one.prompt, sampling, own) for one, own in zip(asks, seeds, strict=True)]
    tokens = {prompt: len(engine.encode(prompt)) for prompt in {one.prompt for one in asks}}
    rows, weights = [], engine.fingerprint
    for one, own, (completion,) in zip(asks, seeds, _complete(engine, requests, store, label or model), strict=True):
        strategy, text = one.strategy, completion.text
        if strategy is None and split is not None:
            strategy, text = split(completion.text)
        rows.append(
            {
                "id": one.id(model),
                "problem_id": one.problem_id,
                "model": model,
                "strategy": strategy,
                "sample": one.sample,
                "turn": one.turn,
                "parent": one.parent,
                "variant": one.variant,
                "gold": one.answer,
                "options": one.options and list(one.options),
                "probability": one.probability,
                "text": text,
                "finish_reason": completion.finish_reason,
                "prompt_tokens": tokens[one.prompt] or None,  # None where only a server knows
                "completion_tokens": len(completion.token_ids) or None,
                "logprob": float(sum(completion.logprobs)) if completion.logprobs else None,
                "prompt_hash": fingerprint(one.prompt),
                "engine": weights,
                "seed": own,
            }
        )
    graded = grade_attempts(
        [row["text"] for row in rows],
        [row["strategy"] for row in rows],
        [one.answer for one in asks],
        [one.task for one in asks],
        finish_reasons=[row["finish_reason"] for row in rows],
        options=[one.options for one in asks],
    )
    table = pd.DataFrame([row | found._asdict() for row, found in zip(rows, graded, strict=True)])
    return table.reindex(columns=ATTEMPT.names).astype(object).where(lambda frame: frame.notna(), None)


def _complete(engine: Engine, requests: Sequence[Request], store: Path | None, label: str) -> Iterable[tuple]:
    if store is not None:
        return journal.run(engine, requests, store, progress=Progress(label))
    found: dict[int, tuple[Completion, ...]] = dict(engine.generate(requests))
    return [found[index] for index in range(len(requests))]


def episodes(
    engine: Engine,
    asks: Sequence[Ask],
    next_ask: Callable[[Ask, pd.Series], Ask | None],
    sampling: Sampling,
    *,
    model: str,
    seed: int,
    store: Path | None,
) -> pd.DataFrame:
    """Episodes that begin with these asks, turn by turn: all first attempts together, then what `next_ask` makes of
    each and its graded attempt, until it is None everywhere.

    Raises ValueError where nothing is asked."""
    made: list[pd.DataFrame] = []
    turns = list(asks)
    while turns:
        label = f"{model}, turn {len(made) + 1}"
        made.append(attempts(engine, turns, sampling, model=model, seed=seed, store=store, label=label))
        replies = [next_ask(one, row) for one, (_, row) in zip(turns, made[-1].iterrows(), strict=True)]
        turns = [one for one in replies if one is not None]
    return pd.concat(made, ignore_index=True)
