"""The process that compares expressions with math-verify: started by `symbolic.py` as a script, never imported by the
user's process.

math-verify hands what a model wrote to SymPy, which prints names into Python code and executes it. So this process
takes an attacker's code for granted. It imports and warms up what comparing needs, gives up all rights
(`sandbox_jail`), and forks a child for each comparison. The child reads the two texts, compares them, answers one byte
and ends: this process never holds a text, and nothing that a text does outlives its own comparison.

Frames on stdin, which only the child reads: 4 bytes with the CPU milliseconds that it may take, 4 bytes of length,
then JSON [a, b]. On stdout a JSON line with the layers that hold, then a byte for each frame: `SAME`, `DIFFERENT` or
`UNDECIDED`.

Arguments: the parent's process id, layers to leave out.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import importlib.util
import json
import logging
import os
import re
import select
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAME, DIFFERENT, UNDECIDED = b"1", b"0", b"t"
MEMORY = 1 << 30  # bytes that one comparison may take on top of what is imported
CPU = 60  # seconds after which a comparison ends that has disarmed its clock
RECURSION = 2000
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
NAME = re.compile(r"(?!.*__)[\w{}\\^+*/=<>|!,.:'-]+", re.DOTALL)  # of a variable


def _sibling(name: str) -> types.ModuleType:
    """A module beside this file, without putting its directory on the path, where it would hide library modules."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


jail = _sibling("sandbox_jail")

# What SymPy and its kin import inside of functions. Files are out of reach when a comparison comes to them.
LATE = (
    "antlr4.LL1Analyzer", "secrets", "sympy.abc", "sympy.assumptions.facts", "sympy.assumptions.handlers.matrices",
    "sympy.assumptions.lra_satask", "sympy.assumptions.satask", "sympy.assumptions.wrapper",
    "sympy.codegen.abstract_nodes", "sympy.combinatorics.galois", "sympy.concrete.delta",
    "sympy.discrete.recurrences", "sympy.integrals.manualintegrate", "sympy.integrals.prde",
    "sympy.integrals.risch", "sympy.logic.algorithms.dpll", "sympy.logic.algorithms.dpll2",
    "sympy.matrices.expressions.applyfunc", "sympy.physics.matrices", "sympy.physics.units",
    "sympy.physics.units.util", "sympy.polys.dispersion", "sympy.polys.distributedmodules",
    "sympy.polys.domains.old_polynomialring", "sympy.polys.domains.quotientring",
    "sympy.polys.numberfields.resolvent_lookup", "sympy.sets.handlers.add", "sympy.sets.handlers.functions",
    "sympy.sets.handlers.issubset", "sympy.sets.handlers.mul", "sympy.sets.handlers.power", "sympy.sets.setexpr",
    "sympy.tensor.array.array_derivatives", "sympy.tensor.array.expressions", "sympy.tensor.tensor",
    "sympy.vector",
)  # fmt: skip
# Compared once before the first fork: every child finds the parser's tables and SymPy's caches warm.
WARM = (
    (r"\frac{x^2-1}{x-1}+2\sqrt{2}", r"x+1+\sqrt{8}"), (r"3\pm2\sqrt{2}", r"3+2\sqrt{2}, 3-2\sqrt{2}"),
    (r"\left(3,\frac{\pi}{2}\right)", r"(3, \frac{\pi}{4})"), (r"(-\infty,-2]\cup[7, \infty)", r"x\le-2"),
    (r"\{1, 2, 3\}", "1, 3, 2"), ("y=2x+3", "2x-y=-3"), (r"0<x\leq 1", r"x\in(0, 1]"), (r"x \neq 2", r"x\ge3"),
    (r"\begin{pmatrix}1&2\\-3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\\frac{1}{3}&x\end{pmatrix}"),
    (r"\sin^2\theta+\cos^{2}\theta", r"\tan x\cdot\cot x"), (r"\log_2 8+\ln(e)+e^{i\pi}", "|x|+5"),
    (r"\binom{5}{2}+3!", r"\lfloor x\rfloor+16"), (r"\text{Evelyn}", "x_1+x_{12}"), (r"12.5\%", "0.125"),
    (r"\sum_{n=0}^{\infty}\frac{1}{n!}", "e"), (r"\angle ABC=90", r"\overline{AB}"), ("f(x)=x^3-1", "-4(x-1)(2y+z)"),
)  # fmt: skip
GENERATORS = 32  # variables of the polynomials whose arithmetic SymPy writes as code, and so must write beforehand


def prepare() -> None:
    """Import, warm up and disarm math-verify. After this, nothing in this process turns text into code."""
    global parse, verify, config
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(RECURSION)
    from latex2sympy2_extended import latex2sympy2
    from math_verify import LatexExtractionConfig, parse, verify

    for module in LATE:
        importlib.import_module(module)
    from sympy.core import random
    from sympy.polys.monomials import MonomialOps

    random.seed(0)
    config = [LatexExtractionConfig(boxed_match_priority=0)]  # LaTeX only: the other readers evaluate Python
    for count in range(1, GENERATORS + 1):
        ops = MonomialOps(count)
        for name in ("mul", "pow", "mulpow", "ldiv", "div", "lcm", "gcd"):
            getattr(ops, name)()
    latex2sympy2._Latex2Sympy.create_parser = quick(latex2sympy2._Latex2Sympy.create_parser)
    latex2sympy2._Latex2Sympy.create_symbol = named(latex2sympy2._Latex2Sympy.create_symbol)
    latex2sympy2.get_symbol = named(latex2sympy2.get_symbol)
    for name, by in (("lambdify", polynomial), ("parse_expr", number)):
        for module in list(sys.modules.values()):
            if callable(getattr(module, name, None)):
                setattr(module, name, by)
    for pair in WARM:
        same(*pair)
    for name in ("compile", "eval", "exec"):
        setattr(builtins, name, refused)


def refused(*_: object, **__: object) -> None:
    raise PermissionError("nothing that a text says becomes code")


def number(text: str, *_: object, **__: object) -> object:
    """What `parse_expr` gives for the digits of a number (all that SymPy's `Number` asks it for), without evaluating
    anything. ValueError for other texts."""
    from sympy import Float, Integer

    if not NUMBER.fullmatch(text):
        raise ValueError(f"no number: {text[:80]!r}")
    return Float(text) if set(text) & set(".eE") else Integer(text)


def polynomial(argument: object, expression: object, *_: object, **__: object) -> Callable[[Any], Any]:
    """What `lambdify` gives, for a polynomial with whole coefficients in one symbol (all that comparing asks it for),
    without making code of it. ValueError for anything else."""
    from sympy import Poly
    from sympy.core.numbers import Integer

    coefficients = []
    for coefficient in Poly(expression, argument).all_coeffs():
        real, imaginary = coefficient.as_real_imag()
        if not isinstance(real, Integer) or not isinstance(imaginary, Integer):
            raise ValueError(f"{coefficient} is no whole number")
        coefficients.append(int(real) if not imaginary else complex(int(real), int(imaginary)))

    def value(at: Any) -> Any:
        total = 0
        for coefficient in coefficients:
            total = total * at + coefficient
        return total

    return value


def named(make: Callable[..., object]) -> Callable[..., object]:
    """The same maker of symbols, for names in a narrow alphabet: no brackets, no quotes, no double underscore."""

    def checked(*arguments: Any, **keywords: Any) -> object:
        symbol = make(*arguments, **keywords)
        if not NAME.fullmatch(str(symbol)):
            raise ValueError(f"no name of a variable: {symbol!r}")
        return symbol

    return checked


def quick(create: Callable[..., Any]) -> Callable[..., Any]:
    """The same maker of parsers, whose parsers try ANTLR's cheap prediction (SLL) first. It finds the same tree as the
    full one or fails (Parr, Harwell, Fisher, 2014, "Adaptive LL(*) parsing", section 3.2), and takes half the time."""
    from antlr4.atn.PredictionMode import PredictionMode

    def created(converter: object, latex: str) -> Any:
        parser = create(converter, latex)
        parser._interp.predictionMode = PredictionMode.SLL
        whole = parser.math

        def math() -> Any:
            try:
                return whole()
            except Exception:
                return create(converter, latex).math()

        parser.math = math
        return parser

    return created


def parsed(latex: str) -> list[object]:
    return parse(f"\\boxed{{{latex}}}", config, fallback_mode="no_fallback", parsing_timeout=None)


def same(a: str, b: str) -> bool:
    """math-verify tells gold from prediction; equality here does not."""
    a, b = parsed(a), parsed(b)
    return verify(a, b, timeout_seconds=None) or verify(b, a, timeout_seconds=None)


class Zygote:
    """Forks a child for each comparison and passes on the one byte that it answers. Never reads a text."""

    def __init__(self, parent: int, without: list[str]) -> None:
        self.process = os.getpid()
        self.null = os.open(os.devnull, os.O_RDWR)
        self.watched = [(0, 0)]  # our standard input breaks when the parent ends
        try:  # and the kernel tells us, also when a process that the parent forked keeps the pipe open
            self.watched.append((os.pidfd_open(parent), select.POLLIN))
        except (AttributeError, OSError):
            pass
        self.memory = jail.address_space() + MEMORY
        self.layers = jail.enter(without)

    def serve(self) -> None:
        os.write(1, json.dumps(self.layers).encode() + b"\n")
        os.dup2(self.null, 2)
        gc.disable()
        gc.freeze()
        child, answers = self.fork()
        while True:
            self.wait(child, answers, None)
            milliseconds = os.read(answers, 4)
            if len(milliseconds) < 4:  # the rest of its request would be taken for the next one
                os._exit(1)
            following = self.fork()
            seconds = int.from_bytes(milliseconds, "big") / 1000
            deadline = time.monotonic() + 10 * seconds + 10  # of the clock: for who sleeps, and long on a busy machine
            answer = os.read(answers, 1) if self.wait(child, answers, deadline) else b""
            os.write(1, answer if answer in (SAME, DIFFERENT) else UNDECIDED)
            os.close(answers)
            kill(child)
            os.waitpid(child, 0)
            child, answers = following

    def fork(self) -> tuple[int, int]:
        """A child that waits for a request, and where its answer comes from."""
        answers, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.child(writer)
            finally:
                os._exit(1)
        os.close(writer)
        return child, answers

    def wait(self, child: int, answers: int, deadline: float | None) -> bool:
        """Until the child says something (True) or the time is over (False); a dead parent ends child and us."""
        poll = select.poll()
        poll.register(answers, select.POLLIN)
        for descriptor, event in self.watched:
            poll.register(descriptor, event)
        ready = dict(poll.poll(None if deadline is None else max(0, deadline - time.monotonic()) * 1000))
        if answers not in ready and ready:
            kill(child)
            os._exit(0)
        return answers in ready

    def child(self, writer: int) -> None:
        """Makes ready for one comparison, waits for it, answers, and ends."""
        os.closerange(2, writer)
        os.closerange(writer + 1, 64)
        jail.confine_child(self.layers, self.memory, CPU, self.process)
        milliseconds = read(4)
        request = read(int.from_bytes(read(4), "big"))
        os.close(0)
        os.close(1)
        os.write(writer, milliseconds)
        signal.setitimer(signal.ITIMER_PROF, int.from_bytes(milliseconds, "big") / 1000)  # no code can hold this up
        gc.enable()
        try:
            answer = SAME if same(*json.loads(request)) else DIFFERENT
        except MemoryError:
            answer = UNDECIDED
        except Exception:
            answer = DIFFERENT
        os.write(writer, answer)
        os._exit(0)


def read(length: int) -> bytes:
    """That many bytes of our standard input; ends the process when the parent is gone."""
    data = b""
    while len(data) < length:
        piece = os.read(0, length - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def kill(child: int) -> None:
    """The child, and its group in case a kernel without seccomp let it fork."""
    for target in (-child, child):
        try:
            os.kill(target, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def main() -> None:
    parent, without = int(sys.argv[1]), sys.argv[2].split(",")
    if os.getppid() != parent:
        return
    os.environ.clear()
    prepare()
    sys.path.clear()
    sys.path_importer_cache.clear()
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory ends, the kernel takes us first
    except OSError:
        pass
    Zygote(parent, without).serve()


if __name__ == "__main__":
    main()
