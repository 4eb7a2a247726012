"""What a jailed child does with programs: one in a process of its own, or many plain ones after each other.

Imported by `sandbox_worker.py`, so only by the sandbox's own interpreter.
"""

from __future__ import annotations

import ast
import builtins
import gc
import io
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from json import dumps

import sandbox_prelude as prelude
import sandbox_verify as verify

OUTPUT_LIMIT = 1 << 20  # characters that a program may print
STDOUT_LIMIT = 1 << 16  # the first of them that are reported
DETAIL_LIMIT = 500  # characters
LONE = "lone"  # what a batch says of a program that needs a process of its own

Row = list  # [answer, stdout, error, detail, seconds]


class Stdout(io.TextIOBase):
    """Keeps what a program prints; calls `full` when that exceeds the limit."""

    def __init__(self, full: Callable[[Stdout], None]) -> None:
        self.parts: list[str] = []
        self.room = OUTPUT_LIMIT
        self.full = full

    def write(self, text: str) -> int:
        self.parts.append(text[: self.room])
        self.room -= len(text)
        if self.room < 0:
            self.full(self)
        return len(text)

    def text(self) -> str:
        return "".join(self.parts)

    def head(self) -> str:
        return self.text()[:STDOUT_LIMIT]


class Again(BaseException):
    """This program needs a process of its own."""


class Invalid(Exception):
    """This text is no program."""


def parse(source: str) -> ast.Module:
    try:
        return ast.parse(source, "<program>")
    except (SyntaxError, ValueError) as error:  # ValueError: a null character or a lone surrogate
        raise Invalid(f"{type(error).__name__}: {error}") from None


def compiled(tree: ast.Module) -> types.CodeType:
    try:
        return compile(tree, "<program>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise Invalid(f"SyntaxError: {error}") from None


def run(code: types.CodeType, names: dict[str, object], out: Stdout, start: float) -> Row:
    """Run untrusted code. Only in a jailed child that serves this request and nothing after it."""
    sys.stdout = out
    try:
        exec(code, names)  # the one place where untrusted code runs
    except SystemExit:
        pass
    answer = prelude.answer_of(names, out.text)
    if answer is None:
        return row(out, "no_answer", "the program set no `answer` and printed nothing", start)
    return [answer, out.head(), None, "", time.perf_counter() - start]


def row(out: Stdout | None, error: str, detail: str, start: float) -> Row:
    return [None, out.head() if out else "", error, detail[:DETAIL_LIMIT], time.perf_counter() - start]


def failure(error: BaseException, out: Stdout | None, start: float) -> Row:
    """The outcome of a program that raised `error`."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, Invalid):
        return row(out, "syntax", str(error), start)
    if isinstance(error, prelude.TooLong):
        return row(out, "output", f"the answer has more than {prelude.ANSWER_LIMIT} characters", start)
    if isinstance(error, MemoryError):
        return row(out, "memory", detail, start)
    # BlockingIOError: a fork beyond the limit of processes
    if isinstance(error, (PermissionError, ModuleNotFoundError, BlockingIOError)) or "start new thread" in detail:
        return row(out, "forbidden", detail, start)
    return row(out, "exception", detail, start)


def lone(source: str, names: dict[str, object], send: Callable[[object], None]) -> None:
    """One program in this process. Whatever it does to the process, the process ends with it."""
    start = time.perf_counter()

    def full(out: Stdout) -> None:
        send(row(out, "output", f"more than {OUTPUT_LIMIT} characters printed", start))
        os._exit(0)

    out = Stdout(full)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__.update(names, __builtins__=builtins)
    gc.enable()
    try:
        try:
            code = compiled(parse(source))
        except (MemoryError, RecursionError):
            raise Invalid("nested too deeply to be compiled") from None
        result = run(code, main.__dict__, out, start)
    except BaseException as error:
        result = failure(error, out, start)
    send(result)


def batch(sources: list[str], rules: tuple, begin: Callable[[], object]) -> str:
    """Run the plain programs among `sources`, one after the other. JSON of their rows, with `LONE` for a program that
    needs a process of its own, and for whose row the reply has no room.

    `begin` is called before each program: the last one that was begun is to blame if this process dies.
    """
    shared, ordinary, modules = rules
    running = False

    def clock(*_: object) -> None:
        if running:
            raise Again

    def full(_: Stdout) -> None:
        raise Again

    def one(source: str) -> Row | str:
        nonlocal running
        start = time.perf_counter()
        if len(source) > verify.MAX_SOURCE:
            return LONE
        out = Stdout(full)
        try:
            running = True
            signal.setitimer(signal.ITIMER_REAL, prelude.SLICE)
            tree = parse(source)
            if not verify.plain(tree, ordinary, modules):
                return LONE
            return run(compiled(tree), {"__builtins__": shared, "__name__": "__main__"}, out, start)
        except (Again, MemoryError, RecursionError):
            return LONE
        except Exception as error:
            return failure(error, out, start)
        finally:
            running = False

    signal.signal(signal.SIGALRM, clock)
    lone_row = dumps(LONE)
    rows, room = [], prelude.REPLY_LIMIT - len(sources) * (len(lone_row) + 2)
    for source in sources:
        begin()
        text = dumps(one(source))
        rows.append(text if len(text) <= room else lone_row)
        room -= len(rows[-1])
    return f"[{','.join(rows)}]"
