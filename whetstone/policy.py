"""A model that chooses its strategy: how it is asked, and what it would choose.

Untuned, it is shown worked examples of one strategy. Tuned, it names the strategy by the first word of its answer, or
is made to by that word in the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from whetstone import rollouts
from whetstone.curation.order import strategy_order
from whetstone.engines.base import Engine, Sampling
from whetstone.prompts import strategies
from whetstone.prompts.asks import Ask, ask
from whetstone.records import seed_of


def few_shot(problems: pd.DataFrame, prompt: strategies.FewShotPrompt, shots: int | None, k: int) -> list[Ask]:
    """k attempts at each problem in the strategy of the prompt's worked examples."""
    return [
        ask(problem, prompt.render(problem.question, shots), prompt.strategy, prompt.strategy)._replace(sample=sample)
        for problem in problems.itertuples()
        for sample in range(k)
    ]


def free(problems: pd.DataFrame) -> list[Ask]:
    """The trained prompt, which leaves the strategy to the model."""
    return [ask(problem, strategies.trained_prompt(problem.question), "free") for problem in problems.itertuples()]


def switching(
    problems: pd.DataFrame, shares: np.ndarray, *, k: int, max_attempts: int, model: str, seed: int
) -> list[list[Ask]]:
    """k episodes per problem, each a list of asks in the order of its turns.

    The first strategy is drawn from the model's own distribution over strategies (`shares`, a row a problem), each
    further one from what that distribution is on those not tried yet, its tag forced under the trained prompt, without
    a trace of the failures.
    """
    episodes = []
    for problem, row in zip(problems.itertuples(), shares, strict=True):
        weights = dict(zip(strategies.STRATEGIES, map(float, row), strict=True))
        for sample in range(k):
            order = strategy_order(weights, seed_of(seed, "order", problem.id, sample))
            episode: list[Ask] = []
            for turn, (name, probability) in enumerate(order[:max_attempts], 1):
                forced = ask(problem, strategies.trained_prompt(problem.question, name), name, name)
                parent = episode[-1].id(model) if episode else None
                episode.append(forced._replace(sample=sample, turn=turn, parent=parent, probability=probability))
            episodes.append(episode)
    return episodes


def preferred(problems: pd.DataFrame, shares: np.ndarray, mass: np.ndarray) -> list[Ask]:
    """Each strategy forced, in the order of the model's preference (`shares`, a row a problem).

    Where a tag is the most probable next token, the free greedy completion is the forced one of that tag. Where it may
    not be (`mass`: the probability of any tag), the free completion is asked for too and stands first, with no
    probability.
    """
    asks = []
    for problem, row, tagged in zip(problems.itertuples(), shares, mass, strict=True):
        left, turn = 1.0, 1
        if row.max() * tagged <= 1 - tagged:
            asks.append(ask(problem, strategies.trained_prompt(problem.question), "free"))
            turn += 1
        for name, share in sorted(zip(strategies.STRATEGIES, map(float, row), strict=True), key=lambda one: -one[1]):
            forced = ask(problem, strategies.trained_prompt(problem.question, name), name, name)
            asks.append(forced._replace(turn=turn, probability=min(1.0, share / left) if left > 0 else 1.0))
            left, turn = left - share, turn + 1
    return asks


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


def first_attempts(engine: Engine, problems: pd.DataFrame, sampling: Sampling) -> pd.DataFrame:
    """The model's free greedy completion of each problem, graded: what a checkpoint is chosen by, nothing kept."""
    return rollouts.attempts(
        engine, free(problems), sampling, model="checkpoint", seed=0, store=None, split=strategies.split_completion
    )


def greedy(
    engine: Engine,
    problems: pd.DataFrame,
    sampling: Sampling,
    *,
    model: str,
    store: Path | None,
    turns: int | None = None,
) -> pd.DataFrame:
    """The greedy solutions of `preferred`, graded; with `turns`, only the first so many of each problem."""
    asks = preferred(problems, *choice_distribution(engine, list(problems["question"])))
    asks = [one for one in asks if turns is None or one.turn <= turns]
    return rollouts.attempts(
        engine, asks, sampling, model=model, seed=0, store=store, split=strategies.split_completion
    )


def sampled(
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
    """k episodes per problem of a tuned model, graded (records.ATTEMPT); see `switching`.

    `until_solved` stops at the first right answer, `all_strategies` goes on, so that all outcomes are known.
    """
    shares, _ = choice_distribution(engine, list(problems["question"]))
    planned = switching(problems, shares, k=k, max_attempts=max_attempts, model=model, seed=seed)
    if explore == "all_strategies":
        asks = [one for episode in planned for one in episode]
        return rollouts.attempts(engine, asks, sampling, model=model, seed=seed, store=store)
    after = {one.id(model): other for episode in planned for one, other in pairwise(episode)}

    def another(one: Ask, attempt: pd.Series) -> Ask | None:
        return None if attempt["verdict"] == "correct" else after.get(one.id(model))

    first = [episode[0] for episode in planned]
    return rollouts.episodes(engine, first, another, sampling, model=model, seed=seed, store=store)
