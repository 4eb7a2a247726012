"""Problems to graded attempts: few-shot sampling, episodes of a tuned model, and what evaluation needs.

A seed belongs to (problem, strategy, sample), so an attempt depends neither on the batch it was in nor on what was
tried before it: more samples or more problems add rows and change none.

`store` is the journal that makes sampling resumable; without one, completions are made anew and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from whetstone import strategies
from whetstone.curation.order import strategy_order
from whetstone.engines import journal
from whetstone.engines.base import Completion, Engine, Request, Sampling
from whetstone.engines.progress import Progress
from whetstone.grading.attempts import grade_attempts
from whetstone.records import fingerprint, seed_of


class _Ask(NamedTuple):
    """One attempt that is to be made; strategy None is a free completion of the trained prompt."""

    problem_id: str
    prompt: str
    strategy: str | None
    sample: int
    position: int
    probability: float | None


def _attempt(
    engine: Engine, asks: Sequence[_Ask], sampling: Sampling, *, model: str, seed: int, store: Path | None, label: str
) -> list[dict]:
    """ATTEMPT rows without a verdict, in the order of the asks; what `store` holds isn't sampled again."""
    greedy = sampling.temperature == 0
    seeds = [0 if greedy else seed_of(seed, a.problem_id, a.strategy, a.sample) for a in asks]
    requests = [Request(ask.prompt, sampling, one) for ask, one in zip(asks, seeds, strict=True)]
    tokens = {prompt: len(engine.encode(prompt)) for prompt in {ask.prompt for ask in asks}}
    rows, weights = [], engine.fingerprint
    for ask, one, (completion,) in zip(asks, seeds, _complete(engine, requests, store, label), strict=True):
        strategy, text = (ask.strategy, completion.text)
        if strategy is None:
            strategy, text = strategies.split_completion(completion.text)
        rows.append(
            {
                "id": f"{model}:{ask.problem_id}:{ask.strategy or 'free'}:{ask.sample}",
                "problem_id": ask.problem_id,
                "model": model,
                "strategy": strategy,
                "sample": ask.sample,
                "position": ask.position,
                "probability": ask.probability,
                "text": text,
                "finish_reason": completion.finish_reason,
                "prompt_tokens": tokens[ask.prompt] or None,  # None where only a server knows
                "completion_tokens": len(completion.token_ids) or None,
                "logprob": _logprob(completion),
                "prompt_hash": fingerprint(ask.prompt),
                "engine": weights,
                "seed": one,
            }
        )
    return rows


def _complete(engine: Engine, requests: Sequence[Request], store: Path | None, label: str) -> Iterable[tuple]:
    if store is not None:
        return journal.run(engine, requests, store, progress=Progress(label))
    found = dict(engine.generate(requests))
    return [found[index] for index in range(len(requests))]


def _logprob(completion: Completion) -> float | None:
    return float(sum(completion.logprobs)) if completion.logprobs else None


def graded(rows: Sequence[dict], problems: pd.DataFrame) -> pd.DataFrame:
    """The attempts with answer, verdict, rule and error, against their problems' gold; programs run in the sandbox."""
    own = problems.set_index("id").loc[[row["problem_id"] for row in rows]]
    options = [None if some is None else dict(zip(ascii_uppercase, some, strict=False)) for some in own["options"]]
    results = grade_attempts(
        [row["text"] for row in rows],
        [row["strategy"] for row in rows],
        list(own["answer"]),
        list(own["task"]),
        finish_reasons=[row["finish_reason"] for row in rows],
        options=options,
    )
    return pd.DataFrame([row | result._asdict() for row, result in zip(rows, results, strict=True)])


def few_shot(
    engine: Engine,
    problems: pd.DataFrame,
    prompt: strategies.FewShotPrompt,
    sampling: Sampling,
    *,
    k: int,
    shots: int | None,
    model: str,
    seed: int,
    store: Path | None,
) -> pd.DataFrame:
    """k attempts at each problem in the strategy of the prompt's worked examples, graded (records.ATTEMPT)."""
    asks = [
        _Ask(p.id, prompt.render(p.question, shots), prompt.strategy, sample, 1, None)
        for p in problems.itertuples()
        for sample in range(k)
    ]
    label = f"{model}, {prompt.strategy}"
    return graded(_attempt(engine, asks, sampling, model=model, seed=seed, store=store, label=label), problems)


def choice_distribution(engine: Engine, questions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """pi(strategy | question) under the trained prompt, from one forward pass each.

    Returns:
        shape (questions, strategies) in the order of STRATEGIES, rows adding up to 1; and the probability, shape
        (questions,), that the next token is any strategy's tag at all.
    """
    prompts = [strategies.trained_prompt(question) for question in questions]
    logprobs = np.asarray(engine.choice_logprobs(prompts, list(strategies.choices().values())), dtype=float)
    shares = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True), np.exp(logprobs).sum(axis=1)


def episodes(
    engine: Engine,
    problems: pd.DataFrame,
    sampling: Sampling,
    *,
    k: int,
    max_attempts: int,
    explore: Literal["until_solved", "all_strategies"],
    model: str,
    seed: int,
    store: Path | None,
) -> pd.DataFrame:
    """k episodes per problem of a tuned model, graded (records.ATTEMPT).

    The first strategy is drawn from the model's own distribution; each further one from what that distribution is on
    the strategies not tried yet, its tag forced under the trained prompt, without a trace of the failures.
    `until_solved` stops at the first right answer, `all_strategies` goes on, so that all outcomes are known.
    """
    shares, _ = choice_distribution(engine, list(problems["question"]))
    rounds: list[list[_Ask]] = [[] for _ in range(max_attempts)]
    for problem, row in zip(problems.itertuples(), shares, strict=True):
        weights = dict(zip(strategies.STRATEGIES, map(float, row), strict=True))
        for sample in range(k):
            order = strategy_order(weights, seed_of(seed, "order", problem.id, sample))
            for position, (name, probability) in enumerate(order[:max_attempts], 1):
                prompt = strategies.trained_prompt(problem.question, name)
                rounds[position - 1].append(_Ask(problem.id, prompt, name, sample, position, probability))
    if explore == "all_strategies":
        rounds = [[ask for asks in rounds for ask in asks]]
    made, solved = [], set()
    for number, asks in enumerate(rounds, 1):
        left = [ask for ask in asks if (ask.problem_id, ask.sample) not in solved]
        if not left:
            break
        label = f"{model}, attempt {number}" if len(rounds) > 1 else model
        rows = _attempt(engine, left, sampling, model=model, seed=seed, store=store, label=label)
        made.append(graded(rows, problems))
        right = made[-1][made[-1]["verdict"] == "correct"]
        solved |= set(zip(right["problem_id"], right["sample"], strict=True))
    return pd.concat(made, ignore_index=True)


def first_attempts(engine: Engine, problems: pd.DataFrame, sampling: Sampling) -> pd.DataFrame:
    """The model's free greedy completion of each problem, graded: what a checkpoint is chosen by, nothing kept."""
    asks = [_Ask(p.id, strategies.trained_prompt(p.question), None, 0, 1, None) for p in problems.itertuples()]
    return graded(_attempt(engine, asks, sampling, model="checkpoint", seed=0, store=None, label=""), problems)


def greedy_policy(
    engine: Engine,
    problems: pd.DataFrame,
    sampling: Sampling,
    *,
    model: str,
    store: Path | None,
    attempts: int | None = None,
) -> pd.DataFrame:
    """Each strategy's forced greedy solution of each problem in the order of the model's preference, graded; or only
    the first so many `attempts` of each problem.

    Where a tag is the most probable next token, the free greedy completion is the forced one of that tag. Where it may
    not be, the free completion is generated too and stands first, with no probability.
    """
    shares, mass = choice_distribution(engine, list(problems["question"]))
    asks = []
    for problem, row, tagged in zip(problems.itertuples(), shares, mass, strict=True):
        left, position = 1.0, 1
        if row.max() * tagged <= 1 - tagged:
            asks.append(_Ask(problem.id, strategies.trained_prompt(problem.question), None, 0, position, None))
            position += 1
        for name, share in sorted(zip(strategies.STRATEGIES, map(float, row), strict=True), key=lambda one: -one[1]):
            prompt = strategies.trained_prompt(problem.question, name)
            probability = min(1.0, share / left) if left > 0 else 1.0
            asks.append(_Ask(problem.id, prompt, name, 0, position, probability))
            left, position = left - share, position + 1
    asks = [ask for ask in asks if attempts is None or ask.position <= attempts]
    return graded(_attempt(engine, asks, sampling, model=model, seed=0, store=store, label=model), problems)
