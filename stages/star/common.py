"""What the stages of recipes/star share: its iterations, its prompt, and whether an arm has been stopped.

They run in the recipe's folder, read its params.yaml, and write there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from stages import common
from whetstone import records
from whetstone.errors import UserError
from whetstone.prompts import choices

HINTED = "-hinted"
PROBLEMS = Path("data/problems")
STRATEGIES = ("sft", "sft_unique", "dpo")
OLD_NAMES = {"reinforce": "sft", "reinforce_unique": "sft_unique"}  # what the original called them
BANNER = (
    "THIS RUN TRAINS ON {rows:,} ROWS OF A PUBLISHED TEST SET: its numbers hold for this split alone and can't be "
    "compared with any published ones."
)


class Iteration(common.Strict):
    """`after`: whose samples it learns from; `start`: the model that training starts from; `attempts`: the table, that
    of `after` or the same with its hinted second tries; `strategy`: what is kept of them, by default what the trainer
    is called."""

    after: str
    start: str
    attempts: str
    trainer: Literal["sft", "dpo"]
    strategy: str | None = None

    @property
    def how(self) -> Literal["sft", "sft_unique", "dpo"]:
        """Raises UserError for a name that is neither a strategy of this trainer nor an old name of one."""
        found = OLD_NAMES.get(self.strategy or "", self.strategy or self.trainer)
        if found not in STRATEGIES or (found == "dpo") != (self.trainer == "dpo"):
            known = ", ".join([*STRATEGIES, *OLD_NAMES])
            raise UserError(f"no strategy {self.strategy!r} of the trainer {self.trainer}; known: {known}")
        return found


class Iterations(common.Strict):
    train: dict[str, Iteration] = Field(min_length=1)
    sample: list[str]
    rationalize: list[str] = []


class Prompt(common.Strict):
    """`task`: prompts/<task>.yaml. Worked examples before the question: `shots` for the base model, `trained_shots`
    for tuned ones, in training as in sampling."""

    task: str = "world"
    think: choices.Think = "target"
    shots: int = Field(0, ge=0)
    trained_shots: int = Field(0, ge=0)


class Sample(common.Strict):
    """How a model is sampled; `orders` of the options, through which a problem's k samples go in turn."""

    k: int = Field(4, ge=1)
    orders: int = Field(2, ge=1)
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(128, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _orders(self) -> Sample:
        if self.orders > self.k:
            raise ValueError(f"orders ({self.orders}) is more than k ({self.k}): some would never be asked")
        return self


def check_orders(sample: Sample, min_right: int) -> None:
    """Raises UserError where no problem could be right under enough orders to teach."""
    if min_right > sample.orders:
        raise UserError(
            f"{common.PARAMS}: `curate.min_right` is {min_right}, but `sample.orders` is {sample.orders}: no problem "
            "can be right under more orders of its options than it is asked under; raise `sample.orders`"
        )


class Stop(common.Strict):
    """An arm is stopped once dev accuracy was below its best for so many iterations in a row."""

    patience: int = Field(2, ge=1)


def iterations() -> Iterations:
    """Raises UserError for an iteration that names what doesn't come before it, or an unknown strategy."""
    found = common.section("iterations", Iterations)
    where, known = f"{common.PARAMS}: `iterations", ["base"]
    for name, one in found.train.items():
        for key, value in (("after", one.after), ("start", one.start)):
            if value not in known:
                raise UserError(f"{where}.train.{name}.{key}` is {value!r}; expected {' or '.join(known)}")
        if one.attempts not in (one.after, one.after + HINTED):
            raise UserError(
                f"{where}.train.{name}.attempts` is {one.attempts!r}; it learns from {one.after}: expected "
                f"{one.after} or {one.after}{HINTED}"
            )
        lists = [("sample", found.sample)] + [("rationalize", found.rationalize)] * one.attempts.endswith(HINTED)
        for key, names in lists:
            if one.after not in names:
                raise UserError(f"{where}.{key}` lacks {one.after}, which {name} learns from")
        try:
            one.how  # noqa: B018
        except UserError as error:
            raise UserError(f"{where}.train.{name}.strategy`: {error}") from error
        if one.how == "dpo" and one.attempts.endswith(HINTED):
            raise UserError(f"{where}.train.{name}`: dpo prefers between samples; hinted tries are for sft")
        known.append(name)
    for key, names in (("sample", found.sample), ("rationalize", found.rationalize)):
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"{where}.{key}` names {', '.join(unknown)}, which `iterations.train` lacks")
    return found


def iteration(name: str) -> Iteration:
    """Raises UserError for an iteration that params.yaml doesn't have."""
    found = iterations().train
    if name not in found:
        raise UserError(f"{common.PARAMS}: `iterations.train` has no {name!r}, but {', '.join(found)}")
    return found[name]


def number(name: str) -> int:
    """1 for an iteration after base, 2 for the one after that ..."""
    found, count = iterations().train, 0
    while name != "base":
        name, count = found[name].after, count + 1
    return count


def prompt(section: Prompt) -> choices.ChoicePrompt:
    return choices.load_prompt(Path("prompts") / f"{section.task}.yaml")


def problems(split: str) -> pd.DataFrame:
    return records.read(PROBLEMS / f"{split}.parquet", records.PROBLEM)


def evaluation(name: str) -> dict[str, Any]:
    """The metrics of a model's evaluation. Raises UserError where there are none."""
    path = Path("metrics/evaluation") / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such metrics; `dvc repro` makes them") from None


def stopped(name: str) -> str | None:
    """The best model so far where the arm that `name` belongs to was stopped at it or before, else None."""
    found = evaluation(name)
    return found["best"] if found["stopped"] else None
