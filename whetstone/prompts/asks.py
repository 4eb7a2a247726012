"""What a model is asked: an `Ask` becomes one graded attempt (whetstone.rollouts).

A seed belongs to (problem, key, sample), so an attempt depends neither on the batch it was in nor on what was tried
before it: more samples or more problems add rows and change none.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Ask(NamedTuple):
    """One attempt that is to be made.

    key: tells it from the others at its problem that have the same `sample`; part of its id and of its seed.
    answer, task, options: what its answer is graded against, as the prompt shows them; options A first.
    strategy: None where the completion's own first word tells it.
    sample: which of the problem's k episodes, from 0. turn: which attempt of its episode, from 1.
    parent: id of the attempt before it in the episode.
    variant: how the problem was put where there are several ways, such as the number of the options' order.
    probability: of the strategy among those still allowed, where the model chose.
    """

    problem_id: str
    prompt: str
    key: str
    answer: str
    task: str
    strategy: str | None = None
    options: tuple[str, ...] | None = None
    sample: int = 0
    turn: int = 1
    parent: str | None = None
    variant: str | None = None
    probability: float | None = None

    def id(self, model: str) -> str:
        return f"{model}:{self.problem_id}:{self.key}:{self.sample}"


def ask(problem: Any, prompt: str, key: str, strategy: str | None = None) -> Ask:
    """One attempt at a PROBLEM row as it is."""
    options = None if problem.options is None else tuple(problem.options)
    return Ask(problem.id, prompt, key, problem.answer, problem.task, strategy, options)
