"""The rule that lets programs share a process: it accepts the everyday ones and nothing that could reach another."""

from __future__ import annotations

import ast
import math
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.grading import sandbox_prelude as prelude
from whetstone.grading import sandbox_verify as verify
from whetstone.grading.sandbox import run_programs

SHARED = verify.plain_builtins(prelude.LIGHT)
ORDINARY = verify.ordinary_names({*prelude.LIGHT, *prelude.HEAVY_NAMES}, SHARED)
MODULES = frozenset({*prelude.MODULES, *prelude.HEAVY_MODULES})


def is_plain(program: str) -> bool:
    return verify.plain(ast.parse(program), ORDINARY, MODULES)


@pytest.mark.parametrize(
    "program",
    [
        "a = 3\nb = a * 2.5\nanswer = round(a / b, 2)",
        "import math\nanswer = math.ceil(7 / 2)",
        "from math import sqrt as root\nanswer = root(2)",
        "import math\nimport numpy as np\nimport statistics\ndef solver():\n    return 3\nans = solver()",
        "import sympy\nanswer = 3",
        "def f(n: int, k=2, *rest, **named) -> int:\n    '''doc'''\n    return n * k\nprint(f(3))",
        "xs = [i * i for i in range(5) if i % 2]\nxs.append(1)\nanswer = sum(sorted(xs, key=lambda x: -x))",
        "while n > 0:\n    n -= 1\nelse:\n    n = 5",
        "answer = f'{x:.2f}' if x else 'none'",
        "d = {'a': 1}\nfor k, v in d.items():\n    d[k] = v + 1\nassert d, 'no'",
        "if __name__ == '__main__':\n    print(1)",
    ],
)
def test_everyday_programs_are_plain(program):
    assert is_plain(program)


@pytest.mark.parametrize(
    "program",
    [
        # ways to other people's objects
        "import os\nx = os",
        "import builtins\nbuiltins.print = None",
        "import math\nmath.pi = 3",
        "import math\ndel math.pi",
        "import math\nmath.pi += 1",
        "for math.pi in [3]: pass",
        "[0 for math.pi in [3]]",
        "math.__dict__['pi'] = 3",
        "print.__self__.print = None",
        "().__class__.__base__.__subclasses__()",
        "(lambda: 0).__globals__",
        "(lambda: 0).__code__.co_consts",
        "(i for i in [1]).gi_frame.f_back.f_globals",
        "f = lambda: 0\nf.count = 1",
        "'{0.__class__}'.format(1)",
        "'{x}'.format_map({'x': 1})",
        "getattr(math, 'pi')",
        "setattr(math, 'pi', 3)",
        "type('A', (), {})",
        "globals()['x'] = 1",
        "vars(math)['pi'] = 3",
        "eval('1')",
        "exec('x = 1')",
        "compile('1', 'f', 'eval')",
        "breakpoint()",
        "__import__('os')",
        "__builtins__['print'] = None",
        "__builtins__ = {}",
        "def __builtins__(): pass",
        "f = lambda __builtins__: 0",
        "import math as __builtins__",
        "from math import pi as __builtins__",
        "for __builtins__ in [{}]: pass",
        "[0 for __builtins__ in [{}]]",
        "def f(*__builtins__): pass",
        "def f(*, __class__): pass",
        "from os import system",
        "from math import *",
        "from . import x",
        "from .math import x",
        "import math.x",
        "import numpy as np\nx = np.array([1])",
        "import statistics\ndef f():\n    return statistics.mean([1])",
        "import numpy\nnumpy = 1",
        "def f():\n    import numpy",
        # ways to hold the clock's exception, or to run code later
        "try:\n    x = 1\nexcept BaseException:\n    pass",
        "try:\n    x = 1\nfinally:\n    x = 2",
        "with x: pass",
        "raise ValueError",
        "class A: pass",
        "@f\ndef g(): pass",
        "def f():\n    yield 1",
        "f = lambda: (yield)",
        "async def f(): pass",
        "global x",
        "def f():\n    nonlocal x",
        "del x",
        "x = (y := 1)",
        "match x:\n    case 1: pass",
        "try:\n    pass\nexcept* ValueError:\n    pass",
        # names that ordinary programs would find elsewhere
        "x = input()",
        "x = Fraction(1, 2)",
        "x = Symbol('x')",
        "x = id(1)",
        "x = ValueError",
    ],
)
def test_programs_that_could_reach_further_are_not(program):
    assert not is_plain(program)


def test_no_allowed_attribute_leads_anywhere():
    """Over every kind of value that a plain program can make: what its allowed attributes give is a number or a
    method, never a module, class, frame, code or dictionary."""
    function = lambda x: x  # noqa: E731
    values = [
        0, 1.5, 2j, True, None, ..., NotImplemented, "text", b"bytes", [1], (1,), {1: 2}, {1}, frozenset({1}),
        range(3), slice(1), math, function, (i for i in [1]), map(int, []), filter(int, []), zip([]), enumerate([]),
        reversed([1]), iter([]), iter(()), iter({}), iter(set()), iter(""), iter(range(2)), iter(int, 1), {}.items(),
        {}.keys(), {}.values(), iter({}.items()), reversed({}), [].append, math.floor, str.join, "x".join,
        *SHARED.values(),
    ]  # fmt: skip
    harmless = (int, float, types.BuiltinFunctionType, types.MethodDescriptorType, types.GetSetDescriptorType)
    harmless += (types.MemberDescriptorType, types.ClassMethodDescriptorType)
    seen = 0
    for value in values:
        for name in verify.ATTRIBUTES & set(dir(value)):
            seen += 1
            assert isinstance(getattr(value, name), harmless), (value, name)
    assert seen > 200


def test_plain_builtins_are_functions_and_immutable_types():
    for name, value in SHARED.items():
        if isinstance(value, type):
            with pytest.raises(TypeError):
                value.canary = 1
        else:
            assert callable(value) or isinstance(value, float) or value is math, name


def test_dropping_unused_imports_changes_nothing_else():
    tree = ast.parse("import numpy as np, math\nimport sympy\nanswer = math.pi")
    assert verify.plain(tree, ORDINARY, MODULES)
    assert ast.unparse(tree) == "import math\nanswer = math.pi"
    assert not verify.plain(ast.parse("import nowhere\nanswer = 1"), ORDINARY, MODULES)


ALONE = "\ntry:\n    pass\nfinally:\n    pass\n"  # makes any program ordinary and changes nothing in it
names = st.sampled_from(["a", "b", "c", "answer", "total", "sum", "max"])
numbers = st.one_of(st.integers(-50, 50), st.sampled_from([0.1, 0.5, 2.5, 1e16, 10**20])).map(str)
expressions = st.recursive(
    st.one_of(names, numbers, st.sampled_from(["'x'", "[1, 2]", "()", "None", "True", "math.pi", "range(4)"])),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+ - * / // % ** == < and or in".split()), inner),
        st.builds("{}({})".format, st.sampled_from(["round", "abs", "len", "str", "float", "sorted", "ceil"]), inner),
        st.builds("[{} for a in {}]".format, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("{}[{}]".format, inner, inner),
    ),
    max_leaves=6,
)
statements = st.one_of(
    st.builds("{} = {}".format, names, expressions),
    st.builds("{} += {}".format, names, expressions),
    st.builds("print({})".format, expressions),
    st.builds("for b in {}:\n    a = {}".format, expressions, expressions),
    st.builds("def solution(a=1):\n    return {}".format, expressions),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(statements, min_size=1, max_size=5).map("\n".join), min_size=1, max_size=20))
def test_sharing_a_process_changes_no_outcome(programs):
    shared = run_programs(programs, timeout=2)
    alone = run_programs([program + ALONE for program in programs], timeout=2)
    for program, one, other in zip(programs, shared, alone, strict=True):
        assert (one.answer, one.stdout, one.error, one.detail) == (
            other.answer, other.stdout, other.error, other.detail), program  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=30))
def test_any_text_has_an_outcome(texts):
    for outcome in run_programs(texts, timeout=2):
        assert (outcome.answer is None) != (outcome.error is None)
        outcome.detail.encode()
