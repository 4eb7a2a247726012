"""Which programs are so plain that they can't touch anything but their own variables.

Such a program may share a process with others like it, which is what makes thousands of them a second possible. The
rule is an allow-list over the syntax tree: what isn't named here makes the program an ordinary one, which gets a
process of its own. Nothing here decides whether a program may run, only where.

Why it holds. A plain program's namespace starts empty and its builtins are the functions below. It can define
functions but no class, can't catch an exception (so the clock's can't be swallowed), can't write an attribute, and can
read only attributes named below, none of which leads from a value to a module, a frame, a class or a mutable object
that it didn't make. No `str.format`, whose field syntax reads attributes; no `type`, `getattr`, `id`, `input`, `open`.
A name that ordinary programs would find and plain ones don't makes a program ordinary, so that both ways give one
result. Memory and time aren't part of the proof: a program that runs out of either is run again in its own process.
"""

from __future__ import annotations

import ast
import builtins
import math
from collections.abc import Collection, Mapping

MAX_SOURCE = 20_000  # characters

BUILTINS = (
    "abs", "all", "any", "bin", "bool", "chr", "complex", "dict", "divmod", "enumerate", "filter", "float", "format",
    "frozenset", "hex", "int", "isinstance", "iter", "len", "list", "map", "max", "min", "next", "oct", "ord", "pow",
    "print", "range", "repr", "reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip",
)  # fmt: skip
MATH_NAMES = frozenset(name for name in dir(math) if not name.startswith("_"))
METHODS = (
    # list, tuple, dict, set
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort", "get",
    "items", "keys", "setdefault", "update", "values", "add", "difference", "discard", "intersection", "issubset",
    "issuperset", "union",
    # str
    "capitalize", "endswith", "find", "isalpha", "isdigit", "isnumeric", "join", "ljust", "lower", "lstrip", "replace",
    "rjust", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper", "zfill",
    # int, float, complex
    "as_integer_ratio", "bit_length", "conjugate", "denominator", "imag", "is_integer", "numerator", "real",
)  # fmt: skip
ATTRIBUTES = MATH_NAMES.union(METHODS)

# Node type: the fields whose nodes are looked at in turn. Operators and contexts have nothing to look at.
CHILDREN: dict[type, tuple[str, ...]] = {
    ast.Module: ("body",), ast.Expr: ("value",), ast.Assign: ("targets", "value"), ast.AugAssign: ("target", "value"),
    ast.AnnAssign: ("target", "annotation", "value"), ast.If: ("test", "body", "orelse"),
    ast.For: ("target", "iter", "body", "orelse"), ast.While: ("test", "body", "orelse"), ast.Pass: (),
    ast.Break: (), ast.Continue: (), ast.Return: ("value",), ast.Assert: ("test", "msg"), ast.Import: ("names",),
    ast.ImportFrom: ("names",), ast.alias: (), ast.FunctionDef: ("args", "body", "returns"),
    ast.Lambda: ("args", "body"),
    ast.arguments: ("posonlyargs", "args", "vararg", "kwonlyargs", "kw_defaults", "kwarg", "defaults"),
    ast.arg: ("annotation",), ast.BinOp: ("left", "right"), ast.UnaryOp: ("operand",), ast.BoolOp: ("values",),
    ast.Compare: ("left", "comparators"), ast.IfExp: ("test", "body", "orelse"), ast.Constant: (), ast.Name: (),
    ast.Attribute: ("value",), ast.Call: ("func", "args", "keywords"), ast.keyword: ("value",), ast.List: ("elts",),
    ast.Tuple: ("elts",), ast.Set: ("elts",), ast.Dict: ("keys", "values"), ast.Starred: ("value",),
    ast.Subscript: ("value", "slice"), ast.Slice: ("lower", "upper", "step"), ast.ListComp: ("elt", "generators"),
    ast.SetComp: ("elt", "generators"), ast.DictComp: ("key", "value", "generators"),
    ast.GeneratorExp: ("elt", "generators"), ast.comprehension: ("target", "iter", "ifs"), ast.JoinedStr: ("values",),
    ast.FormattedValue: ("value", "format_spec"), type(None): (),
}  # fmt: skip


def plain_builtins(prelude: Mapping[str, object]) -> dict[str, object]:
    """The builtins of plain programs: the harmless ones, and of the prelude what comes from `math`."""
    names = {name: getattr(builtins, name) for name in BUILTINS}
    names |= {name: value for name, value in prelude.items() if name == "math" or name in MATH_NAMES}
    return names | {"__import__": lambda name, *_: {"math": math}[name]}


def ordinary_names(prelude: Collection[str], shared: Collection[str]) -> frozenset[str]:
    """What an ordinary program finds without defining it and a plain one doesn't: whoever uses one is ordinary."""
    return frozenset(dir(builtins)).union(prelude).difference(shared)


def plain(tree: ast.Module, ordinary: frozenset[str], modules: Collection[str]) -> bool:
    """Whether a program is plain. Drops, in place, the top-level imports of `modules` whose names it never uses."""
    unused = _drop_imports(tree, modules)
    names: set[str] = set()
    add = names.add
    stack: list[object] = [tree]
    pop, extend = stack.pop, stack.extend
    while stack:
        node = pop()
        kind = type(node)
        fields = CHILDREN.get(kind)
        if fields is None:
            return False
        if kind is ast.Name:
            add(node.id)
            continue
        for field in fields:
            child = getattr(node, field)
            if type(child) is list:
                extend(child)
            else:
                stack.append(child)
        if kind is ast.Attribute:
            if node.attr not in ATTRIBUTES or type(node.ctx) is not ast.Load:
                return False
        elif kind is ast.arg:
            add(node.arg)
        elif kind is ast.FunctionDef:
            if node.decorator_list or getattr(node, "type_params", None):
                return False
            add(node.name)
        elif kind is ast.Import:
            if any(alias.name != "math" for alias in node.names):
                return False
            names.update(alias.asname or alias.name for alias in node.names)
        elif kind is ast.ImportFrom:
            if node.module != "math" or node.level or any(alias.name not in MATH_NAMES for alias in node.names):
                return False
            names.update(alias.asname or alias.name for alias in node.names)
    names.discard("__name__")
    return names.isdisjoint(ordinary) and names.isdisjoint(unused) and not any(name[:2] == "__" for name in names)


def _drop_imports(tree: ast.Module, modules: Collection[str]) -> set[str]:
    """Remove `import a, b as c` at the top level for known modules other than math; return the names they'd bind."""
    unused: set[str] = set()
    for node in tree.body:
        if type(node) is ast.Import:
            for alias in node.names:
                if alias.name in modules and alias.name != "math":
                    unused.add(alias.asname or alias.name)
            node.names = [alias for alias in node.names if alias.name == "math" or alias.name not in modules]
    if unused:
        tree.body = [node for node in tree.body if type(node) is not ast.Import or node.names]
    return unused
