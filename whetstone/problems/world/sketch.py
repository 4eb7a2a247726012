"""A word problem before it is told: givens, steps, and how each strategy writes the steps down.

One list of steps serves all three strategies, so every reference answer is computed, never typed in. A step is an
expression over givens and earlier steps; chains of thought say it in a sentence, least-to-most asks for it first,
programs assign it.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from dataclasses import dataclass, field
from fractions import Fraction

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Step:
    """`name = expression`. `ask` is its sub-question, `say` its sentence with `{e}` for the worked equation; `work`
    replaces the equation where arithmetic alone doesn't tell how it is done."""

    name: str
    expression: str
    ask: str
    say: str = "{e}."
    work: str | None = None


@dataclass(frozen=True)
class Sketch:
    """A problem of one family and level.

    `habits` says how the *pretraining corpus* writes a strategy where that differs from the reference: other steps (a
    classic misconception), `"terse"` (one nested expression), or for programs another text. Reference solutions and
    gold answers never look at it.
    """

    family: str
    level: int
    question: str
    givens: dict[str, int]
    steps: tuple[Step, ...]
    program: str | None = None
    habits: dict[str, tuple[Step, ...] | str] = field(default_factory=dict)
    kind: str = ""  # variant of the family; for a problem without numbers, all that tells it from another

    @property
    def answer(self) -> Fraction:
        return values(self.givens, self.steps)[self.steps[-1].name]

    @property
    def key(self) -> str:
        """What makes two problems the same whatever their wording and names: family, variant and numbers."""
        return f"{self.family}|{self.kind}|{' '.join(f'{name}={value}' for name, value in self.givens.items())}"


def compute(expression: str, names: dict[str, Fraction]) -> Fraction:
    """Exact value of an arithmetic expression over +, -, *, /, //, %, ceil() and the given names."""

    def walk(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int() as number):
                return Fraction(number)
            case ast.Name(id=name):
                return names[name]
            case ast.BinOp(left=left, op=op, right=right):
                return Fraction(_OPERATORS[type(op)](walk(left), walk(right)))
            case ast.Call(func=ast.Name(id="ceil"), args=[inner]):
                return Fraction(math.ceil(walk(inner)))
        raise ValueError(f"not arithmetic: {expression}")

    return walk(ast.parse(expression, mode="eval").body)


def values(givens: dict[str, int], steps: tuple[Step, ...]) -> dict[str, Fraction]:
    """Every given and step by name."""
    known = {name: Fraction(value) for name, value in givens.items()}
    for step in steps:
        known[step.name] = compute(step.expression, known)
    return known


def number(value: Fraction | int) -> str:
    """An integer, or a decimal with at most two places. Raises ValueError for what doesn't fit in two places."""
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    cents = value * 100
    if cents.denominator != 1:
        raise ValueError(f"{value} has more than two decimal places")
    return f"{float(value):.2f}".rstrip("0")


_NAME = re.compile(r"[a-z_]\w*")


def equation(step: Step, known: dict[str, Fraction]) -> str:
    """The step with numbers in place of names: `3 * 4 = 12`."""
    if step.work:
        return step.work
    told = _NAME.sub(lambda m: number(known[m.group()]) if m.group() in known else m.group(), step.expression)
    return f"{told} = {number(known[step.name])}"


def nested(givens: dict[str, int], steps: tuple[Step, ...]) -> str:
    """All steps as one expression: `40 - (3 * 4 + 5)`."""
    told = {name: number(value) for name, value in givens.items()}
    for step in steps:
        inner = _NAME.sub(lambda m: told.get(m.group(), m.group()), step.expression)
        bare = (
            step is steps[-1] or re.fullmatch(r"\w+", inner) or (step.expression.count(" ") == 2 and _additive(steps))
        )
        told[step.name] = inner if bare else f"({inner})"
    return told[steps[-1].name]


def _additive(steps: tuple[Step, ...]) -> bool:
    """A running total needs no brackets."""
    return all(re.fullmatch(r"\w+ [+-] \w+", step.expression) for step in steps)


def chain_of_thought(givens: dict[str, int], steps: tuple[Step, ...], *, terse: bool = False) -> str:
    known = values(givens, steps)
    answer = number(known[steps[-1].name])
    if terse:
        said = [steps[-1].say.replace("{e}", f"{nested(givens, steps)} = {answer}")]
    else:
        said = [step.say.replace("{e}", equation(step, known)) for step in steps]
    return " ".join([*said, f"The answer is {answer}."])


def least_to_most(givens: dict[str, int], steps: tuple[Step, ...], *, terse: bool = False) -> str:
    known = values(givens, steps)
    answer = number(known[steps[-1].name])
    if terse:
        parts = [(steps[-1].ask, f"{nested(givens, steps)} = {answer}")]
    else:
        parts = [(step.ask, equation(step, known)) for step in steps]
    lines = [f"Sub-question {i}: {ask}\nAnswer {i}: {work}" for i, (ask, work) in enumerate(parts, 1)]
    return "\n".join([*lines, f"The answer is {answer}."])


def program_of_thoughts(givens: dict[str, int], steps: tuple[Step, ...]) -> str:
    lines = [f"{name} = {value}" for name, value in givens.items()]
    lines += [f"{step.name} = {step.expression}" for step in steps[:-1]]
    return "\n".join([*lines, f"answer = {steps[-1].expression}"])


def reference(sketch: Sketch, strategy: str) -> str:
    """The correct solution in a strategy."""
    if strategy == "cot":
        return chain_of_thought(sketch.givens, sketch.steps)
    if strategy == "l2m":
        return least_to_most(sketch.givens, sketch.steps)
    return sketch.program or program_of_thoughts(sketch.givens, sketch.steps)


def habitual(sketch: Sketch, strategy: str) -> str:
    """The solution as the pretraining corpus writes it, right or wrong."""
    habit = sketch.habits.get(strategy)
    if habit is None:
        return reference(sketch, strategy)
    if strategy == "pot":
        return habit if isinstance(habit, str) else program_of_thoughts(sketch.givens, habit)
    write = chain_of_thought if strategy == "cot" else least_to_most
    if habit == "terse":
        return write(sketch.givens, sketch.steps, terse=True)
    return write(sketch.givens, habit)
