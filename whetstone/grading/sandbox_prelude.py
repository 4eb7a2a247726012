"""The names that a program finds without importing them, how its result becomes text, and the limits of both.

Its functions are for the sandbox's own interpreter; `sandbox.py` reads the constants. `light` programs get the
standard library's mathematics; `heavy` ones also sympy and numpy, which take a third of a second to import and make
every fork slower.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import functools
import itertools
import math
import numbers
import random
import statistics
import warnings
from collections.abc import Callable

MODULES = (
    "__future__", "_strptime", "abc", "array", "bisect", "calendar", "cmath", "collections", "collections.abc", "copy",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq", "itertools", "json", "math",
    "numbers", "operator", "os", "random", "re", "statistics", "string", "sys", "textwrap", "time", "types", "typing",
)  # fmt: skip
HEAVY_MODULES = ("mpmath", "numpy", "sympy")
ANSWER_NAMES = ("answer", "ans")
ANSWER_FUNCTIONS = ("solution", "solver")
ANSWER_LIMIT = 10_000  # characters
REPLY_LIMIT = 1 << 20  # bytes that a child may send, of one program or of many
SLICE = 0.1  # seconds of a plain program among others; who needs more gets a process of its own

LIGHT = {
    "math": math, "fractions": fractions, "decimal": decimal, "datetime": datetime, "statistics": statistics,
    "itertools": itertools, "collections": collections, "functools": functools, "random": random,
    "Fraction": fractions.Fraction, "Decimal": decimal.Decimal, "date": datetime.date, "timedelta": datetime.timedelta,
    "Counter": collections.Counter, "defaultdict": collections.defaultdict,
    **{name: getattr(math, name) for name in ("ceil", "comb", "factorial", "floor", "gcd", "lcm", "perm", "pi",
                                              "prod", "sqrt")},
}  # fmt: skip
HEAVY_NAMES = ("Eq", "Rational", "Symbol", "mpmath", "np", "numpy", "nsolve", "simplify", "solve", "solve_it",
               "solve_linear", "symbols", "sympy")  # fmt: skip


class TooLong(Exception):
    """The result has more characters than an answer may have."""


def heavy_names() -> dict[str, object]:
    """The prelude of programs that use sympy or numpy. Each package is left out where it isn't installed."""
    names = dict(LIGHT)
    try:
        import mpmath
        import sympy
    except ImportError:
        pass
    else:
        names |= {"sympy": sympy, "mpmath": mpmath, "solve_it": _solve_it(sympy), "solve_linear": _solve_it(sympy)}
        names |= {name: getattr(sympy, name) for name in
                  ("Eq", "Rational", "Symbol", "nsolve", "simplify", "solve", "symbols")}  # fmt: skip
        _warm_up(sympy)
    try:
        import numpy
    except ImportError:
        pass
    else:
        names |= {"numpy": numpy, "np": numpy}
    return names


def _solve_it(sympy: object) -> Callable:
    def solve_it(equations: object, unknowns: object) -> dict:
        """First solution as {unknown: value}; every unknown is there, with None where nothing was found."""
        found = sympy.solve(equations, unknowns, dict=True)
        wanted = unknowns if isinstance(unknowns, (list, tuple, set)) else [unknowns]
        return {unknown: None for unknown in wanted} | (found[0] if found else {})

    return solve_it


def _warm_up(sympy: object) -> None:
    """Run what imports its modules on first use, since no file can be opened later."""
    x, y, n = sympy.Symbol("x"), sympy.Symbol("y", positive=True), sympy.Symbol("n", integer=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for action in (
            lambda: sympy.solve([x + y - 3, x - y - 1], [x, y]),
            lambda: sympy.solve(x**3 - 2 * x + 1, x),
            lambda: sympy.solve(sympy.sqrt(y) - 3, y),
            lambda: sympy.solve(sympy.exp(x) - 3, x),
            lambda: sympy.solve(sympy.sin(x) - 1, x),
            lambda: sympy.solve(x**2 < 4, x),
            lambda: sympy.solve([x**2 + y**2 - 25, x - y - 1], [x, y]),
            lambda: sympy.solveset(x**2 - 4, x, sympy.S.Reals),
            lambda: sympy.linsolve([x + y - 3], [x, y]),
            lambda: sympy.nonlinsolve([x**2 - y], [x, y]),
            lambda: sympy.nsolve(sympy.cos(x) - x, 1),
            lambda: sympy.diophantine(2 * x + 3 * n - 5),
            lambda: sympy.simplify((x**2 - 1) / (x - 1)),
            lambda: sympy.factor(x**4 - 1).expand(),
            lambda: sympy.integrate(x * sympy.exp(x), (x, 0, 1)),
            lambda: sympy.diff(sympy.sin(x) ** 2, x),
            lambda: sympy.limit(sympy.sin(x) / x, x, 0),
            lambda: sympy.summation(1 / n**2, (n, 1, sympy.oo)),
            lambda: sympy.series(sympy.exp(x), x, 0, 4),
            lambda: sympy.Matrix([[1, 2], [3, 4]]).inv().eigenvals(),
            lambda: sympy.rsolve(sympy.Function("f")(n + 1) - 2 * sympy.Function("f")(n), sympy.Function("f")(n)),
            lambda: sympy.dsolve(sympy.Function("g")(x).diff(x) - x, sympy.Function("g")(x)),
            lambda: (sympy.factorint(360), sympy.isprime(97), sympy.divisors(60), sympy.totient(12), sympy.sqrt(8)),
            lambda: (sympy.latex(x / y), sympy.pretty(x / y), str(x / y), sympy.N(sympy.pi, 30)),
            lambda: sympy.parse_expr("2*x + 1"),
            lambda: sympy.lambdify(x, x**2)(3),
            lambda: sympy.sympify("1/3"),
            lambda: sympy.reduce_inequalities([x > 1, x < 3], x),
            lambda: sympy.geometry.Point(0, 0).distance(sympy.geometry.Point(3, 4)),
            lambda: sympy.stats.E(sympy.stats.Die("D", 6)) if __import__("sympy.stats") else None,
        ):
            try:
                action()
            except Exception:  # a future sympy may refuse one of them: then that one is imported late, and refused
                pass


def answer_of(names: dict[str, object], stdout: Callable[[], str]) -> str | None:
    """The text of what a program computed: `answer`, `ans`, what `solution()` or `solver()` returns, or the last line
    that it printed. None if there is none of these."""
    for name in ANSWER_NAMES:
        if name in names and not callable(names[name]):
            text = canonical(names[name])
            if text:
                return text
    for name in ANSWER_FUNCTIONS:
        if callable(names.get(name)):
            text = canonical(names[name]())
            if text:
                return text
    lines = stdout().strip().splitlines()
    return _bounded(lines[-1].strip()) if lines else None


def canonical(value: object) -> str | None:
    """One exact text for a value: `7`, `7/3`, `0.1` (float by repr), `True`; None for nothing.

    A container of one value counts as that value (what equation solvers return); a sympy constant that is irrational
    becomes the nearest float.
    """
    if value is None:
        return None
    if type(value) is int:
        return _text(value)
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, (bool, str)):
        return _bounded(str(value).strip()) or None
    if isinstance(value, dict):
        return canonical(next(iter(value.values()))) if len(value) == 1 else _text(value) if value else None
    if isinstance(value, (list, tuple, set, frozenset)):
        return canonical(next(iter(value))) if len(value) == 1 else _text(value) if value else None
    if isinstance(value, numbers.Rational):  # Fraction, and the integers and rationals of sympy and numpy
        return _text(fractions.Fraction(int(value.numerator), int(value.denominator)))
    if getattr(value, "is_number", False) and value.is_real:  # sympy
        return repr(float(value))
    if hasattr(value, "tolist"):  # numpy
        return canonical(value.tolist())
    return _text(value)


def _text(value: object) -> str:
    try:
        return _bounded(str(value))
    except ValueError as error:  # an integer beyond the interpreter's limit of digits
        if "integer string conversion" in str(error):
            raise TooLong from None
        raise


def _bounded(text: str) -> str:
    if len(text) > ANSWER_LIMIT:
        raise TooLong
    return text
