"""Multiple choice: how a question with its options becomes a prompt, in which order and language, hinted or not.

One template serves sampling, training and evaluation, so a model is trained on the very text that it was sampled with.
The order of the options follows from the problem and a number alone, so whoever knows the number of a sample knows
which letter meant what.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from whetstone.errors import UserError
from whetstone.prompts.asks import Ask
from whetstone.records import seed_of

LETTERS = "ABCDEFGHIJ"
Think = Literal["target", "english", "translate"]


class ChoiceExample(BaseModel):
    """A worked example; `answer` is the letter of the right option, which `rationale` ends with."""

    model_config = ConfigDict(extra="forbid")
    question: str
    options: list[str] = Field(min_length=2, max_length=len(LETTERS))
    answer: str
    rationale: str


class ChoicePrompt(BaseModel):
    """One `recipes/star/prompts/<task>.yaml`."""

    model_config = ConfigDict(extra="forbid")
    template: str = Field(description="with {meta}, {question} and {options}; the model goes on after its end")
    option: str = Field("{letter}) {text}", description="one line of the options")
    hint: str = Field(" (CORRECT)", description="what follows the right option where the model is told")
    lead: str = Field(" ", description="what stands between the prompt and an example's rationale")
    between: str = Field("\n\n", description="what separates worked examples")
    stop: tuple[str, ...] = ("\n\n",)
    meta: dict[Think, str] = Field(description="the instruction, by the language that the model is to think in")
    examples: dict[str, list[ChoiceExample]] = Field(default_factory=dict, description="worked examples by language")

    @model_validator(mode="after")
    def _complete(self) -> ChoicePrompt:
        for name in ("{question}", "{options}"):
            if self.template.count(name) != 1:
                raise ValueError(f"template: {name} occurs {self.template.count(name)} times, expected once")
        for name in ("{letter}", "{text}"):
            if name not in self.option:
                raise ValueError(f"option: {name} is missing")
        for language, examples in self.examples.items():
            for number, example in enumerate(examples, 1):
                if example.answer not in LETTERS[: len(example.options)]:
                    raise ValueError(f"examples of {language}: {number}: no option {example.answer!r}")
        return self

    def block(self, question: str, options: Sequence[str], think: Think, hinted: str | None = None) -> str:
        """One question up to where the model goes on; `hinted` is the letter that gets the hint."""
        lines = [
            _filled(self.option, letter=letter, text=text) + (self.hint if letter == hinted else "")
            for letter, text in zip(LETTERS, options, strict=False)
        ]
        return _filled(self.template, meta=self.meta[think], question=question, options="\n".join(lines))

    def render(
        self,
        question: str,
        options: Sequence[str],
        *,
        think: Think = "target",
        language: str | None = None,
        shots: int = 0,
        hinted: str | None = None,
    ) -> str:
        """The whole prompt. With a hint the worked examples carry theirs too, as the model needs to see what it means.

        Raises:
            UserError: fewer than `shots` worked examples in this language, or this way of thinking has none.
        """
        if think not in self.meta:
            raise UserError(f"the prompt has no instruction to think `{think}`, but {', '.join(self.meta)}")
        examples = self.examples.get(language or "", [])
        if shots and rationale_language(language, think) != language:
            raise UserError(f"worked examples think in the question's language, {language}; `{think}` takes no shots")
        if len(examples) < shots:
            raise UserError(f"the prompt has {len(examples)} worked examples in {language}; {shots} were asked for")
        told = [
            self.block(e.question, e.options, think, e.answer if hinted else None)
            + self.lead
            + e.rationale
            + self.between
            for e in examples[:shots]
        ]
        return "".join(told) + self.block(question, options, think, hinted)


def _filled(template: str, **values: str) -> str:
    """The template with `{name}` replaced; braces in a value, or any others, are text."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)


def load_prompt(path: str | Path) -> ChoicePrompt:
    """Reads and checks a prompt file.

    Raises:
        UserError: it is missing or malformed.
    """
    try:
        return ChoicePrompt.model_validate(YAML(typ="safe").load(Path(path)))
    except FileNotFoundError:
        raise UserError(f"{path}: no such prompt file") from None
    except (ValidationError, YAMLError) as error:
        raise UserError(f"{path}: {error}") from error


def order_of(problem_id: str, number: int, options: int, seed: int = 0) -> list[int]:
    """The order in which a problem's options are shown the number-th time: position -> index of the option. Order 0 is
    the problem's own; orders 0 to n - 1 together put every option at every letter once; later ones are shuffled."""
    shift = number % options
    order = [*range(shift, options), *range(shift)]
    if number >= options:
        Random(seed_of(seed, "order", problem_id, number)).shuffle(order)
    return order


def shown(options: Sequence[str], answer: str, order: Sequence[int]) -> tuple[list[str], str]:
    """(the options in this order, the letter of the right one there); `answer` is its letter in the problem."""
    gold = LETTERS.index(answer)
    return [options[index] for index in order], LETTERS[list(order).index(gold)]


class Shown(NamedTuple):
    """A problem's options as a prompt shows them, A first, and the letter of the right one there."""

    options: tuple[str, ...]
    answer: str


def in_order(problem: Any, number: int) -> Shown:
    """A PROBLEM row under the order of this number."""
    options, letter = shown(problem.options, problem.answer, order_of(problem.id, number, len(problem.options)))
    return Shown(tuple(options), letter)


def asks(
    problems: pd.DataFrame,
    prompt: ChoicePrompt,
    *,
    think: Think,
    shots: int,
    k: int,
    orders: int,
    hinted: bool = False,
) -> list[Ask]:
    """k attempts at each problem; sample s sees the options in order s modulo `orders`, which is the ask's variant.

    Hinted, the right option is marked: variant "hinted", under the problem's own order.
    """
    made = []
    for problem in problems.itertuples():
        for sample in range(k):
            number = 0 if hinted else sample % orders
            asked = in_order(problem, number)
            text = prompt.render(
                problem.question,
                asked.options,
                think=think,
                language=problem.language,
                shots=shots,
                hinted=asked.answer if hinted else None,
            )
            made.append(
                Ask(
                    problem.id,
                    text,
                    key="hinted" if hinted else "direct",
                    answer=asked.answer,
                    task=problem.task,
                    strategy="cot",
                    options=asked.options,
                    sample=sample,
                    variant="hinted" if hinted else str(number),
                )
            )
    return made


def option_of(letter: str, order: Sequence[int]) -> int:
    """The index of the option that a letter meant in this order."""
    return order[LETTERS.index(letter)]


def rationale_language(language: str | None, think: Think) -> str | None:
    """The language in which a rationale is expected."""
    return language if think == "target" else "en"
