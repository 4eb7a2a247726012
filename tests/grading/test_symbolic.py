"""Symbolic answers: normal forms, math-verify behind them, and a timeout that holds anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from whetstone.grading import extract, grade, symbolic

SAME = [
    ("0.25", r"\frac14"),
    ("2/4", "1/2"),
    ("1.0", "1"),
    ("1000000", "1,000,000"),
    (r"\$32,\!348", "32348"),
    (r"90^\circ", "90"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"1\frac45", "9/5"),
    (r"\text{Evelyn}", "evelyn"),
    (r"\text{(C)}", "C"),
    (r"\left(3,\frac\pi2\right)", r"(3, \frac{\pi}{2})"),
    (r"\sqrt8", r"2\sqrt2"),
    (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt{3}}"),
    ("x=5", "5"),
    ("1,-2", "-2, 1"),
    (r"3\pm2\sqrt2", r"3+2\sqrt{2}, 3-2\sqrt{2}"),
    ("3*sqrt(13)", r"3\sqrt{13}"),  # as SymPy prints it
    ("x**2 + 2*x + 1", "(x+1)^2"),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{pmatrix} -\frac13 \\ \frac23 \end{pmatrix}"),
]
DIFFERENT = [
    (r"\boxed{\frac{\sqrt3}{2}}", r"\boxed{\frac{\sqrt{3}}{9}}"),  # nested braces are not cut
    (r"\boxed{\frac{\sqrt3}{7}+100}", r"\boxed{\frac{\sqrt{3}}{9}}"),
    ("(3,4]", "[3,4]"),
    (r"\text{east}", r"\text{west}"),
    ("5", "x"),
    ("81, 256", "81256"),
    (r"\boxed{1} or \boxed{2}", "1"),  # two boxes are two answers
    ("50%", "1/2"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_same(a: str, b: str) -> None:
    assert grade(a, b, "math").verdict == grade(b, a, "math").verdict == "correct"


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different(a: str, b: str) -> None:
    assert grade(a, b, "math").verdict == grade(b, a, "math").verdict == "wrong"


READ = [
    (r"So $x = 3$, the sum is $\boxed{\frac{\sqrt{3}}{9}}$. Our answer is correct.", r"\frac{\sqrt{3}}{9}", "boxed"),
    (r"\boxed{1} and \boxed{-2}", "1, -2", "boxed"),
    (r"The answer is $\frac{1}{2}$.", "0.5", "answer_is"),
    ("#### 72", "72", "hash"),
    (r"x \in [-2,7]", r"x\in[-2, 7]", "bare"),
    (r"We find that the two curves meet at $y = 2x + 3$.", "y=2x+3", "last_formula"),
    ("We find that the two curves meet at height 7", "7", "last_number"),
]


@pytest.mark.parametrize(("text", "value", "rule"), READ)
def test_reads(text: str, value: str, rule: str) -> None:
    answer = extract(text, "math")
    assert (answer.canonical, answer.rule) == (value, rule)


@pytest.mark.parametrize("text", ["", "We could not find out what happens here", r"\boxed{}", r"\boxed{\frac{1}{2"])
def test_refuses(text: str) -> None:
    assert extract(text, "math").value is None
    assert grade(text, text, "math").verdict == "unparsed"


def test_plain_numbers_and_equal_texts_never_leave_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic._COMPARER, "_ask", None)
    assert grade("18.0", "18", "math").verdict == "correct"
    assert grade("17", "18", "math").verdict == "wrong"
    assert grade(r"\dfrac{\pi}{2}", r"\frac\pi2", "math").verdict == "correct"


def test_the_timeout_holds_off_the_main_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    grade("x", "y+0", "math")  # the worker is up
    monkeypatch.setattr(symbolic, "SECONDS", 0.5)
    verdicts = []
    start = time.monotonic()
    thread = threading.Thread(target=lambda: verdicts.append(grade("9^{9^{9^{9}}}+a", "8^{9^{9^{9}}}", "math")))
    thread.start()
    thread.join(30)
    assert verdicts == [("unparsed", "bare+symbolic", "timeout")]
    assert time.monotonic() - start < 20
    monkeypatch.undo()
    assert grade("2(k+1)", "2k+2", "math").verdict == "correct"  # and the next one is answered by a new worker


def test_a_worker_that_was_killed_is_replaced() -> None:
    grade("x", "y+1", "math")
    symbolic._COMPARER._process.kill()
    symbolic._COMPARER._process.wait()
    assert grade("z+1", "1+z", "math").verdict == "correct"


def test_python_in_an_answer_is_not_run(tmp_path) -> None:
    target = tmp_path / "written"
    for code in (f"__import__('pathlib').Path('{target}').touch()", f"open('{target}', 'w')"):
        assert grade(code, "x+1", "math").verdict != "correct"
    assert not target.exists()


LATE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
worker.prepare()
asked = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        asked.append(name)
sys.meta_path.insert(0, Finder())
for a, b in json.loads(sys.argv[2]):
    worker.same(a, b)
print(json.dumps(asked))
"""


def test_nothing_is_imported_while_answers_are_compared() -> None:
    """Where they are compared no file can be opened: what comes late would be a wrong verdict without a word."""
    sums = (r"\sum_{n=1}^{\infty}\frac{1}{n^2}", r"\frac{\pi^2}{6}"), (r"\int_0^1 x e^x dx", "1")
    equations = ("x^5-x+1=0", "2x^5-2x+2=0"), (r"\lim_{x\to0}\frac{\sin x}{x}", "1+0x"), (r"x^2<4", r"-2<x<2")
    pairs = [*SAME, *DIFFERENT, *sums, *equations]
    run = subprocess.run(
        [sys.executable, "-c", LATE, Path(symbolic.__file__).with_name("symbolic_worker.py"), json.dumps(pairs)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []


def test_sums_and_roots_of_polynomials_are_still_evaluated() -> None:
    """Without the code that SymPy would make of them."""
    assert grade(r"\sum_{n=0}^{\infty}\frac{1}{n!}+x", "e+x", "math").verdict == "correct"
    assert grade(r"\sum_{n=1}^{\infty}\frac{1}{n^2}", r"\frac{\pi^2}{6}", "math").verdict == "correct"
    assert grade("x^5-x+1=0", "x^5=x-1", "math").verdict == "correct"
    assert grade("x^5-x+1=0", "x^5-x+2=0", "math").verdict == "wrong"
