"""The first wrong step of any text of one step a line, told exactly: by computing with the problem's own steps."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from fractions import Fraction

from whetstone.problems.steps.ledger import Ledger
from whetstone.problems.steps.logic import Logic, first_wrong_line

_ANSWER = re.compile(r"The answer is (\d{1,9})\.")
_SIDE = re.compile(r"\d{1,9}(?: [-+*/] \d{1,9}){0,3}")
_FIRST = re.compile(r"(\d{1,9}) ([-+*/]) (\d{1,9})")
_SIGNS: dict[str, Callable] = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def lines(text: str) -> list[str]:
    """The steps of a solution: its lines, the blank ones left out. The last one states the answer."""
    return [line for line in text.split("\n") if line.strip()]


def states(text: str) -> list[str]:
    """What stands after each line, so that a model can go on from there: `"".join` of the lines so far, each ended."""
    told = lines(text)
    return ["".join(f"{line}\n" for line in told[:end]) for end in range(1, len(told) + 1)]


def first_wrong(problem: Ledger | Logic, text: str) -> int | None:
    """Position (from 1) of the first wrong line; None where every line is right and the last one states the answer.

    A line of a ledger is right if its first side is a step of the problem whose numbers are known by then (which may
    be told before its turn, or again) and all its sides come to the same. A text that ends without an answer is wrong
    in the line that is missing.
    """
    told = lines(text)
    if isinstance(problem, Logic):
        return first_wrong_line(problem, told)
    done: set[int] = set()
    for position, line in enumerate(told, 1):
        answer = _ANSWER.fullmatch(line)
        if answer:
            right = answer[1] == problem.answer and len(problem.steps) - 1 in done and position == len(told)
            return None if right else position
        step = _step_told(problem, line, done)
        if step is None:
            return position
        done.add(step)
    return len(told) + 1


def _step_told(problem: Ledger, line: str, done: set[int]) -> int | None:
    """The step that a line works out rightly."""
    sides = line.split(" = ")
    first = _FIRST.fullmatch(sides[0])
    if first is None or len(sides) < 2 or not sides[-1].isdecimal() or not all(map(_SIDE.fullmatch, sides)):
        return None
    left, sign, right = int(first[1]), first[2], int(first[3])
    orders = {(left, right), (right, left)} if sign in "+*" else {(left, right)}
    for position in sorted(range(len(problem.steps)), key=done.__contains__):  # what is new before what is known
        step = problem.steps[position]
        told = step.sign == sign and (step.left, step.right) in orders and done.issuperset(step.needs)
        if told and all(value_of(side) == step.value for side in sides):
            return position
    return None


def value_of(side: str) -> Fraction | None:
    """The value of `47 * 20 + 47`: whole numbers, products before sums. None for a division by zero."""
    tokens = side.split(" ")
    total, term, sign = Fraction(0), Fraction(int(tokens[0])), 1
    for symbol, text in zip(tokens[1::2], tokens[2::2], strict=True):
        number = Fraction(int(text))
        if symbol in "*/":
            if symbol == "/" and number == 0:
                return None
            term = _SIGNS[symbol](term, number)
        else:
            total, term, sign = total + sign * term, number, 1 if symbol == "+" else -1
    return total + sign * term
