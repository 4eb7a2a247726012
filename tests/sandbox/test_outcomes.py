"""What a program's outcome is: the value of `answer`, `ans`, `solution()`, `solver()`, or what it printed last."""

from __future__ import annotations

import pytest

from whetstone.errors import UserError
from whetstone.grading.sandbox import run_programs

ANSWERS = {
    # plain values, each by its one exact text
    "answer = 18": "18",
    "answer = 0": "0",
    "answer = -0.0": "-0.0",
    "answer = 0.1 + 0.2": "0.30000000000000004",
    "answer = 2 ** 100": str(2**100),
    "answer = 7 / 2": "3.5",
    "answer = 1e22": "1e+22",
    "answer = float('nan')": "nan",
    "answer = 3 > 2": "True",
    "answer = '  B '": "B",
    "answer = Fraction(6, 4)": "3/2",
    "answer = Fraction(4, 2)": "2",
    "from fractions import Fraction as F\nanswer = F(1, 3) + F(1, 6)": "1/2",
    "answer = Decimal('1.10') + 1": "2.10",
    "answer = [5]": "5",
    "answer = {'x': 4}": "4",
    "answer = (4, 6.0)": "(4, 6.0)",
    "answer = date(2024, 2, 28) + timedelta(days=2)": "2024-03-01",
    # where the answer is looked for
    "ans = 5": "5",
    "answer = 4\nans = 5": "4",
    "answer = None\nans = 5": "5",
    "answer = None\nprint(9)": "9",
    "def solution():\n    a = 2\n    return a * 3": "6",
    "def solver():\n    return 7\nans = solver()": "7",
    "def solver():\n    return 8": "8",
    "def solution():\n    return 0": "0",
    "def solution():\n    print(5)": "5",
    "def answer():\n    return 1\nprint(2)": "2",
    "print('first')\nprint('x =', 12)\nprint()": "x = 12",
    "print(3, end='')": "3",
    "import sys\nsys.stdout.write('4\\n')": "4",
    "if __name__ == '__main__':\n    print(11)": "11",
    "answer = 1\nraise SystemExit": "1",
    "# a lone loop\nn = 0\nfor i in range(1000):\n    n += i\nanswer = n": "499500",
    "answer = f'{3.14159:.2f}'": "3.14",
    "answer = '{:.1f}'.format(2.55)": "2.5",
    "total: float = 2.5\nanswer = round(total)": "2",
    "try:\n    answer = 1 / 0\nexcept ZeroDivisionError:\n    answer = 'none'": "none",
    # names that need no import, and imports
    "answer = ceil(7 / 2) + floor(1.5) + gcd(12, 18) + lcm(4, 6)": "23",
    "answer = math.comb(5, 2)": "10",
    "from math import sqrt, pi as p\nanswer = sqrt(16) + (p > 3)": "5.0",
    "from math import *\nanswer = factorial(5)": "120",
    "def solution():\n    import math\n    return math.floor(2.5)\n": "2",
    "answer = statistics.mean([1, 2, 6])": "3",
    "answer = Counter('aab')['a']": "2",
    "answer = len(list(itertools.permutations(range(3))))": "6",
    "from datetime import datetime\nanswer = datetime.strptime('2024-01-02', '%Y-%m-%d').day": "2",
    "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nanswer = P(3).x": "3",
    "import re\nanswer = re.sub('a', 'b', 'aa')": "bb",
    "import random\nanswer = random.Random(0).randint(1, 6)": "4",
    # equations
    "x = Symbol('x')\nanswer = solve_it(Eq(2 * x, 7), x)[x]": "7/2",
    "a, b = symbols('a b')\nans = solve_it([a + b - 10, a - b - 4], [a, b])[a]": "7",
    "x = Symbol('x')\nans = solve_it(x - x + 1, x)[x]\nprint('nothing')": "nothing",
    "from sympy import *\nx = symbols('x', positive=True)\nanswer = solve(x**2 - 9, x)": "3",
    "import sympy as sp\nanswer = sp.Rational(1, 3) + 1": "4/3",
    "import sympy\nanswer = sympy.sqrt(2)": "1.4142135623730951",
    "import sympy\nprint(sympy.sqrt(8))": "2*sqrt(2)",
    "from sympy.solvers import solve\nfrom sympy import Symbol\nx = Symbol('x')\nanswer = solve(x - 3, x)[0]": "3",
    "import numpy as np\nanswer = np.mean([1, 2])": "1.5",
    "import numpy as np\nanswer = np.array([1, 2]).sum()": "3",
    "import numpy as np\nimport statistics\nans = 4": "4",
}

FAILURES = {
    "": "no_answer",
    "x = 3": "no_answer",
    "answer = None": "no_answer",
    "answer = []": "no_answer",
    "print('   ')": "no_answer",
    "answer =": "syntax",
    "return 5": "syntax",
    "    answer = 1": "syntax",
    "Let's think step by step.": "syntax",
    "answer = 1 / 0": "exception",
    "answer = undefined": "exception",
    "answer = 5\nraise ValueError('no')": "exception",
    "def solution(x):\n    return x": "exception",
    "x = Symbol('x')\nanswer = solve_it(x - x + 1, x)[x] + 1": "exception",
    "import requests": "forbidden",
    "open('x')": "forbidden",
    "while True: pass": "timeout",
}


@pytest.fixture(scope="module")
def answers():
    return dict(zip(ANSWERS, run_programs(list(ANSWERS)), strict=True))


@pytest.mark.parametrize("program", ANSWERS)
def test_answers(answers, program):
    outcome = answers[program]
    assert (outcome.answer, outcome.error, outcome.detail) == (ANSWERS[program], None, "")


def test_failures_have_a_class_and_no_answer():
    outcomes = run_programs(list(FAILURES), timeout=0.5)
    assert {p: o.error for p, o in zip(FAILURES, outcomes, strict=True)} == FAILURES
    assert all(outcome.answer is None and outcome.detail for outcome in outcomes)


def test_an_exception_names_its_type_and_message():
    outcome, other = run_programs(["answer = {}['key']", "raise ValueError('x' * 10_000)"])
    assert outcome.detail == "KeyError: 'key'"
    assert other.detail.startswith("ValueError: xxx") and len(other.detail) == 500


def test_stdout_is_kept_and_capped():
    short, long = run_programs(["print('a')\nprint('b')\nanswer = 3", "print('y' * 100_000)\nprint('last')"])
    assert (short.answer, short.stdout) == ("3", "a\nb\n")
    assert long.answer == "last" and len(long.stdout) == 1 << 16


def test_order_is_kept_and_repeats_agree():
    programs = [f"answer = {i}" if i % 3 else f"class A:\n    x = {i}\nanswer = A.x" for i in range(400)]
    first, second = run_programs(programs), run_programs(programs, workers=1)
    assert [o.answer for o in first] == [o.answer for o in second] == [str(i) for i in range(400)]


def test_outcomes_are_deterministic():
    programs = [
        "answer = list({'a', 'b', 'c', 'd', 'e', 'f'})",
        "import random\nanswer = random.random()",
        "import numpy as np\nanswer = np.random.rand()",
    ]
    assert [o.answer for o in run_programs(programs * 3)] == [o.answer for o in run_programs(programs)] * 3


def test_nothing_to_do():
    assert run_programs([]) == []


@pytest.mark.parametrize("wrong", ["answer = 1", [1], [None]])
def test_programs_are_a_list_of_texts(wrong):
    with pytest.raises(UserError, match="list of program texts"):
        run_programs(wrong)


@pytest.mark.parametrize("timeout", [0, -1, 0.05, 86_401, 3e6, float("inf"), float("nan")])
def test_a_time_limit_that_cannot_be_kept_is_refused(timeout):
    """A tenth of a second is what a program among others gets; the system's clocks can't count to 3e6 seconds."""
    with pytest.raises(UserError, match="timeout=.* must be between 0.1 and 86,400"):
        run_programs(["answer = 1"], timeout=timeout)


@pytest.mark.parametrize("option", [{"memory_mb": 0}, {"memory_mb": 10**14}, {"memory_mb": float("nan")}])
def test_a_memory_limit_that_cannot_be_kept_is_refused(option):
    with pytest.raises(UserError, match="memory_mb=.* must be between 1 and 1,048,576"):
        run_programs(["answer = 1"], **option)


def test_some_program_must_run_at_a_time():
    with pytest.raises(UserError, match="workers=0: must be positive"):
        run_programs(["answer = 1"], workers=0)


def test_the_greatest_limits_work():
    (outcome,) = run_programs(["class A: pass\nanswer = 1"], timeout=86_400, memory_mb=1 << 20)
    assert outcome.answer == "1"


def test_memory_limit_is_what_the_caller_says():
    program = "class A: pass\nanswer = len(bytearray(200 << 20)) >> 20"
    assert run_programs([program], memory_mb=300)[0].answer == "200"
    assert run_programs([program], memory_mb=100)[0].error == "memory"
