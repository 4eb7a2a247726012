"""Answers that attack whoever compares them: LaTeX that wants to become code, to linger, or to take for ever.

Runs as whoever runs the tests; `test_ordinary_user.py` runs it again as an ordinary user when that is root.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from whetstone.errors import UserError
from whetstone.grading import extract, grade, layers, symbolic
from whetstone.grading.attempts import grade_attempts

GOLD = r"2\sqrt{3}"
RIGHT = r"\sqrt{12}"
WRONG = (r"\sqrt{13}", "x+1", r"\frac{\pi}{3}", "(1, 2)", r"2\sqrt{3}+1")


def spelled(code: str) -> str:
    """Python without a bracket or a quote of its own that executes `code`: its letters come from a docstring."""
    letters = open.__doc__
    text = "+".join(f"d[{letters.index(character)}]" for character in code)
    return f"[exit.__class__[{text}]for[d]in[[open.__doc__]]for[exit.__class__.__class_getitem__]in[[exec]]]"


TOUCH = "open('x','w')"
CODE = spelled(TOUCH)
ALWAYS = spelled("import __main__ as m;m.same=lambda a,b:True")


def series(name: str) -> str:
    """A sum that SymPy evaluates with generated code, in which `name` stands."""
    return rf"\sum_{{n=0}}^{{\infty}}\frac{{{name}^{{n}}}}{{n!}}+\pi"


SUM = series(rf"\text{{{CODE}}}")

# None equals GOLD.
ATTACKS = {
    # code as a name, by every way that leads to a name
    "text": series(rf"\text{{{CODE}}}"),
    "mbox": series(rf"\mbox{{{CODE}}}"),
    "mathrm": series(rf"\mathrm{{{CODE}}}"),
    "mathit": series(rf"\mathit{{{CODE}}}"),
    "textbf": series(rf"\textbf{{{CODE}}}"),
    "textnormal": series(rf"\textnormal{{{CODE}}}"),
    "operatorname": series(rf"\operatorname{{{CODE}}}"),
    "operatorname called": rf"\operatorname{{{CODE}}}(x)",
    "overline": series(rf"\overline{{{CODE}}}"),
    "vec": series(rf"\vec{{{CODE}}}"),
    "hat": series(rf"\hat{{{CODE}}}"),
    "variable": series(rf"\variable{{{CODE}}}"),
    "subscript": series(rf"x_{{\text{{{CODE}}}}}"),
    "command split by a dollar": series(rf"\te$xt{{{CODE}}}"),
    "command split by a space": series(rf"\te\!xt{{{CODE}}}"),
    "doubled backslash": series(rf"\\text{{{CODE}}}"),
    "poisons the comparing function": series(rf"\text{{{ALWAYS}}}"),
    "function of code": rf"\text{{{CODE}}}(x)+1",
    "exponent": rf"2^{{{SUM}}}",
    "plain call": rf"\text{{{TOUCH}}}",
    "lambda": series(r"\text{(lambda:open('x','w'))()}"),
    "dunder chain": series(r"\text{().__class__.__base__.__subclasses__()}"),
    "import": series(r"\text{__import__('os').system('touch x')}"),
    "walrus": series(r"\text{[x:=open][0]('x','w')}"),
    "f-string": series(r"\text{f'{open(chr(120),chr(119))}'}"),
    "comment and new line": series("\\text{n\n open('x','w')#}"),
    "semicolon": series(r"\text{n;open('x','w')}"),
    "decorator": series("\\text{n\n@exit\nclass a:0}"),
    "dunder without brackets": series(r"\text{exit.__class__.__doc__}"),
    # the ways on which SymPy evaluates
    "product": rf"\prod_{{n=1}}^{{\infty}}\left(1+\frac{{\text{{{CODE}}}}}{{n!}}\right)",
    "integral": rf"\int_0^1 \text{{{CODE}}}^x dx",
    "integral without limits": rf"\int \frac{{\text{{{CODE}}}}}{{x}} dx",
    "limit": rf"\lim_{{x\to 0}}\frac{{\text{{{CODE}}}^x-1}}{{x}}",
    "derivative": rf"\frac{{d}}{{dx}}\text{{{CODE}}}^x",
    "sum in an interval": rf"[{SUM}, 3]",
    "sum in an open interval": rf"({SUM}, 3)",
    "sum in a set": rf"\{{1, {SUM}\}}",
    "sum in a list": rf"1, {SUM}",
    "sum in a union": rf"(1, 2)\cup({SUM}, 9)",
    "sum in a matrix": rf"\begin{{pmatrix}}{SUM} & 1 \\ 2 & 3\end{{pmatrix}}",
    "sum in a determinant": rf"\det(\begin{{pmatrix}}{SUM}&1\\2&3\end{{pmatrix}})",
    "sum in a norm": rf"\|\begin{{pmatrix}}{SUM}\\2\end{{pmatrix}}\|",
    "equation": rf"x^5-x+\text{{{CODE}}}=0",
    "equation of sums": rf"x={SUM}",
    "inequality": rf"\text{{{CODE}}}<x\le 3",
    "chain of inequalities": rf"1<{SUM}<x<9",
    "membership": rf"\text{{{CODE}}}\in\{{1, 2\}}",
    "matrix of its own size": rf"A\in R^{{\text{{{CODE}}}\times 2}}",
    "absolute value": rf"|{SUM}|",
    "floor": rf"\lfloor {SUM}\rfloor",
    "greatest common divisor": rf"\gcd(\text{{{CODE}}}, 4)",
    "maximum": rf"\max(\text{{{CODE}}}, {TOUCH})",
    "eigenvalues": rf"\operatorname{{eigenvals}}(\begin{{pmatrix}}\text{{{CODE}}}&1\\2&3\end{{pmatrix}})",
    "percent of code": rf"\text{{{CODE}}}\%",
    "unit": rf"3 \text{{{TOUCH}}}",
    "evaluated at": rf"x^2|_{{x=\text{{{CODE}}}}}",
    "modulo": rf"7 \mod \text{{{CODE}}}",
    "logarithm of a base": rf"\log_{{\text{{{CODE}}}}} 3",
    "root of a degree": rf"\sqrt[\text{{{CODE}}}]{{3}}",
    "binomial": rf"\binom{{\text{{{CODE}}}}}{{2}}",
    "elementary transform": rf"\begin{{pmatrix}}1&2\\3&4\end{{pmatrix}}\xrightarrow{{r_1+\text{{{CODE}}}r_2}}",
    "python": TOUCH,
    "python behind a star": f"1*{TOUCH}",
    "sympify string": r"S('__import__(\"os\").system(\"touch x\")')",
    "number that is none": r"1__import__('os')2",
    # bytes that parsers stumble over
    "NUL": "\0x+1\0",
    "control characters": "".join(map(chr, range(1, 32))) + "x",
    "lone surrogate": "\ud800+x",
    "direction marks": "\u202e2\\sqrt{3\u202c",
    "other digits": "٢\\sqrt{٣",
    "a new line in a name": "\\text{x\ny}+1",
    "request and reply in one": '1\n1"]\n\x00\x00\x13\x88\x00\x00\x00\x05["1","1"]',
    "backslash at the end": "x+\\",
    "percent in a format": "%s%d{0.__class__}x",
    # size
    "deep brackets": "(" * 3000 + "x" + ")" * 3000,
    "deep roots": r"\sqrt{" * 400 + "x" + "}" * 400,
    "deep fractions": r"\frac{1}{1+" * 300 + "x" + "}" * 300,
    "deep signs": "-" * 20_000 + "x",
    "many open braces": "{" * 50_000 + "x",
    "many closed braces": "x" + "}" * 50_000,
    "many terms": "+".join(f"x_{{{i}}}" for i in range(3000)),
    "many elements": ",".join(f"x+{i}" for i in range(3000)),
    "many digits": "x+" + "9" * 100_000,
    "many bars": "|" * 2000 + "x",
    "many subscripts": "x" + "_{x" * 1000 + "}" * 1000,
    "many ambiguous pairs": "f(x)" * 500,
    "many boxes": r"\boxed{" * 500 + "x" + "}" * 500,
    "many texts": r"\text{a" * 2000 + "x",
    "a long name": rf"\text{{{'a' * 200_000}}}+x",
    "many units": "x" + r"\text{ cm}" * 3000,
    "many spaces": "x" + " " * 100_000 + "y",
    "huge matrix": r"\begin{pmatrix}" + r"\\".join("&".join("x" * 40) for _ in range(40)) + r"\end{pmatrix}",
}  # fmt: skip
# Each takes its whole time, or its memory; a few of them are enough.
BOMBS = {
    "tower": "x+9^{9^{9^{9}}}",
    "factorial": "x+(10^9)!",
    "factorials": "3!!!!!!+x",
    "digits of a power": r"\lfloor \pi\cdot 10^{10^8}\rfloor+x",
    "binomial": r"\binom{10^9}{5\cdot10^8}+x",
    "identity matrix": r"\operatorname{eye}(10^5)",
    "slow sum": r"\sum_{n=1}^{10^9}\sin(n)^n",
}  # fmt: skip


@pytest.fixture
def marks(monkeypatch):
    """Where the attacks' files would appear: anybody may write there, and what is started now starts there."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        monkeypatch.chdir(directory)
        symbolic._COMPARER._known.clear()
        yield Path(directory)
        assert os.listdir(directory) == []
        assert not Path("/x").exists()


def fresh(text: str, gold: str = GOLD) -> str:
    """A verdict that doesn't come from the parent's memory."""
    symbolic._COMPARER._known.clear()
    return grade(text, gold, "math").verdict


def untouched() -> None:
    """An honest answer is still right, and five wrong ones are still wrong."""
    assert fresh(RIGHT) == "correct"
    assert [fresh(wrong) for wrong in WRONG] == ["wrong"] * 5


def test_text_in_a_sum_runs_neither_as_an_answer_nor_from_a_program(marks):
    """SymPy writes the name into the code of a function, and calls it."""
    symbolic._COMPARER.close()  # the next one starts in this directory
    text = rf"\boxed{{{ATTACKS['text']}}}"
    graded = grade_attempts([text, f"answer = r'''{text}'''"], ["cot", "pot"], [r"2\sqrt{3}", r"3\sqrt{3}"], "math")
    assert [attempt.verdict for attempt in graded] == ["wrong", "wrong"]
    assert os.listdir(marks) == []


@pytest.mark.slow
def test_no_answer_runs_lingers_or_passes(marks, monkeypatch):
    monkeypatch.setattr(symbolic, "SECONDS", 0.5)
    seen, before = {}, time.monotonic()
    for name, text in ATTACKS.items():
        seen[name] = fresh(rf"\boxed{{{text}}}")
        assert os.listdir(marks) == [], name
    took = time.monotonic() - before
    assert {name: verdict for name, verdict in seen.items() if verdict not in ("wrong", "unparsed")} == {}
    assert took < len(ATTACKS) * 10
    untouched()


@pytest.mark.slow
def test_an_answer_of_a_program_fares_no_better(marks, monkeypatch):
    monkeypatch.setattr(symbolic, "SECONDS", 0.5)
    symbolic._COMPARER._known.clear()
    programs = [f"answer = {text!r}" for text in ATTACKS.values() if len(text) < 5000]
    programs += ["answer = '\\\\sqrt{12}'", "answer = '\\\\sqrt{13}'"]
    graded = grade_attempts(programs, ["pot"] * len(programs), [GOLD] * len(programs), "math", workers=1)
    assert {attempt.verdict for attempt in graded[:-2]} <= {"wrong", "unparsed"}
    assert [attempt.verdict for attempt in graded[-2:]] == ["correct", "wrong"]


@pytest.mark.slow
def test_a_bomb_costs_its_time_or_its_memory_and_no_more(marks, monkeypatch):
    monkeypatch.setattr(symbolic, "SECONDS", 0.5)
    verdicts = {name: fresh(rf"\boxed{{{text}}}") for name, text in BOMBS.items()}
    assert verdicts["tower"] == "unparsed"
    assert set(verdicts.values()) <= {"wrong", "unparsed"}
    untouched()


def test_a_child_that_is_killed_before_it_has_read_its_request_costs_no_verdict(marks):
    """What is left of the request can't be taken for the next one: the process goes too, and is replaced."""
    fresh(RIGHT)
    before = symbolic._COMPARER._process
    for child in children(before.pid):  # the one that waits for the next request, and the last one if it still ends
        os.kill(child, signal.SIGKILL)
    untouched()
    assert symbolic._COMPARER._process is not before


def children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("left_out", ["seccomp", "landlock", "network", "user", "limits", "capabilities"])
def test_no_single_layer_carries_it_alone(marks, monkeypatch, left_out):
    monkeypatch.setattr(symbolic, "_COMPARER", symbolic._Comparer((left_out,)))
    for name in ("text", "sum in an interval", "poisons the comparing function"):
        assert fresh(rf"\boxed{{{ATTACKS[name]}}}") == "wrong"
    untouched()
    symbolic._COMPARER.close()


def test_where_a_layer_is_missing_nothing_is_compared(marks, monkeypatch):
    held = {"seccomp": layers.Layer(False, "no table")}
    monkeypatch.setattr(symbolic, "_COMPARER", symbolic._Comparer())
    monkeypatch.setattr(symbolic, "require", lambda *_: layers.require(held))
    with pytest.raises(UserError, match="seccomp: no table"):
        fresh(RIGHT)
    monkeypatch.setenv(layers.MAY_LACK, "seccomp")
    with pytest.warns(RuntimeWarning, match="without layers"):
        assert fresh(RIGHT) == "correct"
    symbolic._COMPARER.close()


def test_what_compares_is_confined_and_holds_no_text(marks):
    """Of the process that forks, and of the child that waits: no file, no variable, no rights, no trace of a pair."""
    fresh(r"\text{qzjvxk}+17x", r"\text{wqpzmv}+x")
    zygote = symbolic._COMPARER._process.pid
    for process in (zygote, *children(zygote)):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    if os.geteuid() == 0:
        assert not contains(zygote, b"qzjvxk") and not contains(zygote, b"wqpzmv")


def contains(process: int, text: bytes) -> bool:
    with open(f"/proc/{process}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if "rw" in line and "[v" not in line:
                memory.seek(start)
                if text in memory.read(end - start):
                    return True
    return False


@pytest.mark.parametrize("task", ["number", "choice", "math"])
def test_reading_takes_time_in_proportion_to_the_text(task):
    """In the user's own process, where no clock stops it."""
    for text in ("a" * 20_000 + "1", "^" + " " * 100_000 + "y", "^{" + " " * 100_000 + "y"):
        for form in ("%s", "The answer is %s", r"\boxed{%s}"):
            before = time.process_time()
            extract(form % text, task)
            assert time.process_time() - before < 1, (form, text[:3])
