"""Symbolic answers (MATH): LaTeX in a normal form, numbers exactly, the rest by math-verify under a hard timeout."""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Collection
from multiprocessing.connection import wait
from pathlib import Path

from whetstone.errors import UserError
from whetstone.grading.answers import Answer, Verdict, canonical, unparsed
from whetstone.grading.layers import Layer, require
from whetstone.grading.numbers import Number, equal, find_numbers, number, number_alone, tidy
from whetstone.grading.text import adjacent, closing_braces, statements

SECONDS = 5.0
"""CPU time that one comparison may take. Past it the verdict is "unparsed" with the error "timeout"."""

_REPLIES = {b"1": True, b"0": False, b"t": None}
_START = 120  # seconds in which the process must be ready
_GRACE = 60  # seconds beyond those of a comparison after which the process is given up

_TAIL = 20_000  # characters at the end in which formulas are looked for
_SPAN = ".{1,1000}?"
_MATH = re.compile(rf"\$\$({_SPAN})\$\$|\$({_SPAN})\$|\\\(({_SPAN})\\\)|\\\[({_SPAN})\\\]", re.DOTALL)
_PROSE = re.compile(r"(?<![^\W\d_])[^\W\d_]{2,}+(?:[\s,]++[^\W\d_]{2,}+){3}")
_TOKEN = r"(?:\\[A-Za-z]+|(?<![A-Za-z])[A-Za-z]|[0-9])"
_REWRITES = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\(?:left|right|[bB]ig[lr]?|displaystyle|limits)(?![A-Za-z])", ""),
        (r"(?<!\\)\\[,;:! ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:mbox|textrm|textbf|textit|mathrm|mathbf|operatorname)\s*\{", r"\\text{"),
        (r"\^\s*+(?:\{\s*+)?\\circ\s*\}?|\\degree(?![A-Za-z])|°|\\text\{\s*degrees?\s*\}", ""),
        (r"\\?[$%]", ""),
        (r"(?<=[^\s{(,=])\s*\\text\{[^{}]*\}(?:\^\s*\{?\d\}?)?\s*$", ""),  # a unit
        (rf"\\frac\s*({_TOKEN})\s*({_TOKEN})", r"\\frac{\1}{\2}"),
        (rf"\\frac\s*({_TOKEN})\s*\{{", r"\\frac{\1}{"),
        (rf"(\\frac\s*\{{[^{{}}]*\}})\s*({_TOKEN})", r"\1{\2}"),
        (rf"\\sqrt\s*({_TOKEN})", r"\\sqrt{\1}"),
        (r"([_^])\s*\{\s*([0-9A-Za-z])\s*\}", r"\1\2"),
    )
]
_WORDS = re.compile(r"[^\W\d_][^\W\d_' -]{2,}(?:[\s'-]+[^\W\d_]+)*")
_PYTHON = re.compile(r"\*|\bsqrt\(|\bpi\b")


def extract_math(text: str) -> Answer:
    """The final expression of a text: the last box (several side by side are one list of answers), else the last other
    statement; a text that is nothing but an expression; the last formula between dollars; the last number."""
    text = tidy(text)
    found = statements(text)
    found = [statement for statement in found if statement.rule == "boxed"] or found
    for at in range(len(found) - 1, -1, -1):
        parts = [_expression(found[at].clause, found[at].rule)]
        if not parts[0]:
            continue
        first = at
        while found[at].rule == "boxed" and first and found[first - 1].rule == "boxed":
            if not adjacent(text, found[first - 1], found[first]):
                break
            first -= 1
            parts.insert(0, found[first].clause)
        normal = [normalise(part) for part in parts]
        value = normal[0] if len(set(normal)) == 1 else ", ".join(canonical(part) for part in normal)
        return _answer(value, text[found[first].start : found[at].end], found[at].rule)
    alone = text.strip()
    if not found and alone and "\n" not in alone and len(alone) <= 400 and not _PROSE.search(alone):
        if "\\boxed" in alone or alone.count("{") != alone.count("}"):
            return unparsed("malformed", "bare", alone)
        return _answer(normalise(alone), alone, "bare")
    spans = [next(filter(None, span.groups())) for span in _MATH.finditer(text[-_TAIL:])]
    if spans:
        return _answer(normalise(spans[-1]), spans[-1], "last_formula")
    tokens = find_numbers(text)
    value = number(tokens[-1]) if tokens else None
    return unparsed("no_answer") if value is None else Answer(value, tokens[-1][0], "last_number")


def _answer(value: Number | str, text: str, rule: str) -> Answer:
    return unparsed("no_answer", rule, text.strip()) if value == "" else Answer(value, text.strip(), rule)


def _expression(clause: str, rule: str) -> str:
    """The formulas of a clause, from the first dollar to the last; all of it where there is none. "" for prose."""
    clause = clause.strip().strip("*_").strip()
    if rule in ("boxed", "tag"):
        return clause
    clause = clause[-_TAIL:]
    spans = list(_MATH.finditer(clause))
    if spans:
        return clause[spans[0].start() : spans[-1].end()]
    return "" if _PROSE.search(clause) else clause


def normalise(latex: str) -> Number | str:
    """A number where the expression is one, else LaTeX without spacing, units and spelling variants."""
    latex = tidy(latex).strip().removesuffix(".")
    for pattern, by in _REWRITES:
        latex = pattern.sub(by, latex)
    latex = latex.strip().removesuffix(".").strip()
    value = number_alone(latex)
    if value is not None:
        return value
    if latex.startswith("\\text{") and closing_braces(latex).get(5) == len(latex):
        latex = latex[6:-1].strip()
    if len(latex) == 3 and latex[0] == "(" and latex[2] == ")":  # the letter of a choice
        return latex[1]
    if _WORDS.fullmatch(latex):
        return " ".join(latex.casefold().split())
    if "\\" not in latex and _PYTHON.search(latex):
        latex = _from_python(latex)
    latex = re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])", "\\1\0", latex)
    return re.sub(r"\s+", "", latex).replace("\0", " ").replace(",", ", ")  # 81, 256 is not 81,256


def _from_python(text: str) -> str:
    """What SymPy prints ("3*sqrt(13)", "x**2/2") as LaTeX."""
    text = text.replace("**", "^").replace("*", "\\cdot ")
    text = re.sub(r"\^\(([^()]*)\)", r"^{\1}", re.sub(r"\bpi\b", r"\\pi ", text))
    return re.sub(r"\bsqrt\(([^()]*)\)", r"\\sqrt{\1}", text)


def equivalent(prediction: Answer, gold: Answer, tolerance: float | None = None) -> Verdict:
    """Compares two parsed, different answers: numbers exactly, words as words, the rest by math-verify."""
    a, b = prediction.value, gold.value
    if not isinstance(a, str) and not isinstance(b, str):
        if equal(a, b, tolerance):
            return Verdict("correct", f"{prediction.rule}+tolerance")
        return Verdict("wrong", prediction.rule)
    texts = canonical(a), canonical(b)
    if any(_WORDS.fullmatch(text) for text in texts):
        return Verdict("wrong", prediction.rule)
    same = _COMPARER.same(*sorted(texts))
    if same is None:
        return Verdict("unparsed", f"{prediction.rule}+symbolic", "timeout")
    return Verdict("correct" if same else "wrong", f"{prediction.rule}+symbolic")


class _Comparer:
    """One confined process, started when first needed, which compares each pair in a child of its own."""

    CACHED = 20_000

    def __init__(self, without: Collection[str] = ()) -> None:
        self.without = without  # layers of isolation to leave out: to test that the others hold on their own
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._known: dict[tuple[str, str], bool | None] = {}

    def same(self, a: str, b: str, seconds: float | None = None) -> bool | None:
        """Whether two LaTeX expressions are equal; None when that took too long or too much. Works in any thread.

        Raises:
            UserError: this system can't confine the process (`whetstone.grading.layers`).
            RuntimeError: the process does not start, or does not stay.
        """
        with self._lock:
            if (a, b) in self._known:
                return self._known[a, b]
            reply = self._ask(a, b, SECONDS if seconds is None else seconds)
            if len(self._known) >= self.CACHED:
                self._known.clear()
            self._known[a, b] = _REPLIES[reply]
            return self._known[a, b]

    def _ask(self, a: str, b: str, seconds: float) -> bytes:
        body = json.dumps([a, b]).encode()
        head = int(seconds * 1000).to_bytes(4, "big") + len(body).to_bytes(4, "big")
        for _ in range(2):  # the process may have been killed since it was last asked
            process = self._worker()
            try:
                process.stdin.write(head + body)
                answers = wait([process.stdout], 10 * seconds + 10 + _GRACE)
                reply = os.read(process.stdout.fileno(), 1) if answers else b""
            except BrokenPipeError:
                reply = b""
            if reply in _REPLIES:
                return reply
            self.close()
        raise RuntimeError(f"the process that compares answers ended twice on {a[:80]!r} and {b[:80]!r}")

    def _worker(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid():
            return self._process
        if not hasattr(os, "fork"):
            raise UserError("comparing symbolic answers needs fork (Linux, macOS, or WSL on Windows)")
        path = Path(__file__).with_name("symbolic_worker.py")
        environment = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}  # the order of SymPy's sets depends on the seed
        if "LD_LIBRARY_PATH" in os.environ:  # some interpreters find their own library this way
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-B", "-Wignore", path, str(os.getpid()), ",".join(self.without)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        self._owner = os.getpid()
        greeting = b""
        while not greeting.endswith(b"\n"):
            piece = os.read(self._process.stdout.fileno(), 1 << 16) if wait([self._process.stdout], _START) else b""
            if not piece:
                self._process.kill()
                trouble = self._process.stderr.read().decode(errors="replace").strip()[-2000:]
                self.close()
                raise RuntimeError(
                    "the math-verify process did not start: is math-verify installed beside this package?\n" + trouble
                )
            greeting += piece
        self._process.stderr.close()
        try:
            require({name: Layer(*layer) for name, layer in json.loads(greeting).items()}, self.without)
        except UserError:
            self.close()
            raise
        return self._process

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()


_COMPARER = _Comparer()
atexit.register(_COMPARER.close)
