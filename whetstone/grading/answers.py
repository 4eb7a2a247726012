"""What the grader hands out: an answer that was read from a text, and a verdict on it."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

Value = int | Fraction | float | str
"""An exact number (int, Fraction), a number known to double precision only (float), a choice letter, or a LaTeX
expression in normal form (str)."""

DOUBLE_DIGITS = 13
"""From so many significant digits on, a decimal is taken for a printed double (1 in 10,000 is shorter)."""


class Answer(NamedTuple):
    """One answer as read from a text. `value` is None when nothing usable was found; then `error` says why.

    rule: the rule that found it, e.g. "boxed", "answer_is", "last_number".
    text: the words that the rule matched, after Unicode normalisation.
    error: None, or "no_answer", "contradiction", "malformed", "not_an_option".
    """

    value: Value | None
    text: str
    rule: str
    error: str | None = None

    @property
    def canonical(self) -> str | None:
        """One string per value, for storage and for votes; reading it again gives the same string."""
        return None if self.value is None else canonical(self.value)


class Verdict(NamedTuple):
    """verdict: "correct", "wrong" or "unparsed". rule: how the prediction was read, "+tolerance" or "+symbolic" added
    when that decided the comparison. error: None unless unparsed."""

    verdict: str
    rule: str
    error: str | None = None


def unparsed(error: str, rule: str = "none", text: str = "") -> Answer:
    return Answer(None, text, rule, error)


def canonical(value: Value) -> str:
    """Integers in digits, short terminating decimals as decimals, other fractions as n/d, doubles to 15 digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return format(value, "#.15g").rstrip(".")  # zeros too: many digits mark a double
    if isinstance(value, int):
        return str(value)
    numerator, denominator = value.numerator, value.denominator
    if denominator == 1:
        return str(numerator)
    twos = (denominator & -denominator).bit_length() - 1
    rest, fives = denominator >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{numerator}/{denominator}"
    places = max(twos, fives)
    digits = str(abs(numerator) * 10**places // denominator)
    if max(len(digits), places) >= DOUBLE_DIGITS:  # as a decimal it would be taken for a printed double
        return f"{numerator}/{denominator}"
    digits = digits.rjust(places + 1, "0")
    return f"{'-' if numerator < 0 else ''}{digits[:-places]}.{digits[-places:]}"
