"""Reasoning strategies: how a problem becomes a prompt, how a completion is told apart and checked.

Two prompts exist. Few-shot, for a model that hasn't been tuned: eight worked examples set the strategy. Trained, for a
tuned model: the strategy is the first word of the model's own answer, so choosing and solving are one generation, and
naming the word in the prompt forces the strategy under the very template that was trained.

What follows the colon is byte-identical in both (`lead` + solution), so a tuned model goes on from what the base knew.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from whetstone.errors import UserError
from whetstone.grading.attempts import program_of

Name = Literal["cot", "l2m", "pot"]


@dataclass(frozen=True)
class Strategy:
    """`tag` is the word by which a tuned model announces it, `lead` what stands between the colon and the solution."""

    name: Name
    tag: str
    lead: str
    title: str


STRATEGIES: dict[str, Strategy] = {
    "cot": Strategy("cot", "steps", " ", "chain of thought"),
    "l2m": Strategy("l2m", "questions", "\n", "least to most"),
    "pot": Strategy("pot", "program", "\n", "program of thoughts"),
}
OLD_NAMES = {"sub": "l2m"}  # what the original code called least-to-most


def strategy(name: str) -> Strategy:
    """Raises UserError for a name that is neither a strategy nor an old name of one."""
    found = STRATEGIES.get(OLD_NAMES.get(name, name))
    if found is None:
        raise UserError(f"unknown strategy {name!r}; known: {', '.join(STRATEGIES)} (and `sub`, the old name of l2m)")
    return found


class WorkedExample(BaseModel):
    model_config = ConfigDict(extra="forbid")
    question: str
    solution: str


class FewShotPrompt(BaseModel):
    """One `prompts/<task>/<strategy>.yaml`."""

    model_config = ConfigDict(extra="forbid")
    strategy: Name
    instruction: str = ""
    examples: list[WorkedExample] = Field(min_length=1)
    stop: list[str] = ["\n\n"]

    def render(self, question: str, shots: int | None = None) -> str:
        """The prompt up to `Answer:`; the model goes on with `lead` + solution + a blank line."""
        lead = STRATEGIES[self.strategy].lead
        blocks = [f"{self.instruction}\n\n"] if self.instruction else []
        blocks += [f"Question: {e.question}\nAnswer:{lead}{e.solution}\n\n" for e in self.examples[:shots]]
        return "".join(blocks) + f"Question: {question}\nAnswer:"


def load_prompt(path: str | Path, name: str) -> FewShotPrompt:
    """Reads and checks a prompt file: eight examples of the named strategy, each in that strategy's format.

    Raises:
        UserError: the file is missing or malformed, names another strategy, or an example breaks the format.
    """
    path, expected = Path(path), strategy(name)
    try:
        prompt = FewShotPrompt.model_validate(YAML(typ="safe").load(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such prompt file") from None
    except (ValidationError, YAMLError) as error:
        raise UserError(f"{path}: {error}") from error
    if prompt.strategy != expected.name:
        raise UserError(f"{path}: strategy is {prompt.strategy!r}, expected {expected.name!r}")
    for number, example in enumerate(prompt.examples, 1):
        fault = format_fault(example.solution, expected.name)
        if fault or "\n\n" in example.solution.strip():
            raise UserError(f"{path}: example {number}: {fault or 'a blank line ends a solution'}")
    return prompt


def trained_prompt(question: str, name: str | None = None) -> str:
    """The prompt of a tuned model, which goes on with ` tag:` + lead + solution. Naming a strategy puts the tag and
    its colon into the prompt."""
    choice = f" {STRATEGIES[name].tag}:" if name else ""
    return f"Question: {question}\nAnswer by{choice}"


def trained_completion(name: str, solution: str) -> str:
    """What a tuned model should write after `trained_prompt(question)`; `solution` loses its outer blank space."""
    return f" {STRATEGIES[name].tag}:{STRATEGIES[name].lead}{solution.strip()}"


def choices() -> dict[str, str]:
    """Strategy name to the text whose first token is the choice."""
    return {name: f" {s.tag}" for name, s in STRATEGIES.items()}


def split_completion(text: str) -> tuple[str | None, str]:
    """(strategy, solution) of a tuned model's free completion; strategy is None where no known tag opens it."""
    head, colon, solution = text.partition(":")
    by_tag = {s.tag: name for name, s in STRATEGIES.items()}
    name = by_tag.get(head.strip()) if colon else None
    return name, (solution if name else text).strip()


_SUB_QUESTION = re.compile(r"^Sub-?question\s*\d+\s*:", re.IGNORECASE | re.MULTILINE)
_CODE = re.compile(r"^\s*(?:[A-Za-z_]\w*\s*=[^=]|def\s+\w+\(|import\s|from\s+\w+\s+import|print\(|```)", re.MULTILINE)


def format_fault(solution: str, name: str) -> str | None:
    """Why a solution isn't of this strategy, or None.

    A program must parse and assign `answer` (or define `solution` or `solver`), least-to-most must ask sub-questions,
    a chain of thought must hold neither code nor sub-questions.
    """
    if not solution.strip():
        return "empty"
    if name == "pot":
        try:
            tree = ast.parse(program_of(solution).strip())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return "not a Python program"
        stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        found = {"answer", "ans"} & stored or {"solution", "solver"} & defined
        return None if found else "the program assigns no `answer`"
    if name == "l2m":
        return None if _SUB_QUESTION.search(solution) else "no sub-question"
    if _SUB_QUESTION.search(solution):
        return "sub-questions in a chain of thought"
    return "code in a chain of thought" if _CODE.search(solution) else None
