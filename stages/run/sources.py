"""What a module does, as a digest, and which modules a script reaches.

A digest is of a module's syntax tree, without comments, docstrings, layout, imports for type checkers, and what only a
person reads (`MESSAGES`).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("stages", "whetstone")
PLUMBING = {
    "stages/__init__.py": "refuses a Python that lacks the project's packages",
    "stages/output.py": "counts rows and tokens for the manifest, and prints a stage's last lines",
    "stages/run/lockfile.py": "puts right what a killed DVC left half-written of its own",
    "stages/run/manifest.py": "writes the record of a run, which no stage reads",
    "stages/run/signals.py": "ends a stage's process",
    "stages/run/terminal.py": "takes control characters out of what is printed",
    "whetstone/engines/progress.py": "prints a line of progress",
}
"""Modules that every run passes through and that can't change an out: tests/test_pipeline.py sees that they write
none. They count for nothing, nor does what only they import."""
MESSAGES = ("UserError", "click.echo", "click.secho", "output.finish")
"""Calls whose results only a person reads: an error that ends the stage, a line and the table on the terminal."""


def digest(source: str) -> str:
    """16 hexadecimal digits of what a module does: the same for every Python from 3.11 on, whatever its layout."""
    return _hash(_Bare().visit(ast.parse(source)))


def _hash(tree: ast.Module) -> str:
    return hashlib.sha256("".join(_told(tree)).encode()).hexdigest()[:16]


class _Bare(ast.NodeTransformer):
    """Takes out what can't change a result."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _idle(one)] or [ast.Pass()]
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(one) for one in node.orelse]
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        node.values = [one for one in node.values if not (isinstance(one, ast.Constant) and one.value == "")]
        return self.generic_visit(node)  # some Pythons leave an empty text at the end of a format

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Call) and _called(node.value) in MESSAGES:
            return ast.Pass()
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _called(node) in MESSAGES:
            return ast.Call(func=node.func, args=[], keywords=[])
        if _called(node) == "click.option":
            node.keywords = [one for one in node.keywords if one.arg != "help"]
        return self.generic_visit(node)


def _idle(node: ast.stmt) -> bool:
    """A docstring, the text below an attribute, a version, or what a message left behind."""
    if isinstance(node, ast.Assign):
        return all(isinstance(name, ast.Name) and name.id.startswith("__") for name in node.targets)
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return text or isinstance(node, ast.Pass)


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func) if isinstance(call.func, ast.Name | ast.Attribute) else ""


def _told(node: object) -> Iterator[str]:
    """A syntax tree as text. Empty fields are left out: newer Pythons have more of them."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name in node._fields:
            value = getattr(node, name, None)
            if value not in (None, []) and name not in ("ctx", "kind", "type_comment"):
                yield f" {name}="
                yield from _told(value)
        if isinstance(node, ast.Constant) and node.value is None:
            yield " value=None"
        yield ")"
    elif isinstance(node, list):
        for one in node:
            yield from _told(one)
    else:
        yield repr(node)


EMPTY = digest("")


class Sources:
    """The project's modules below `root`, each read once."""

    def __init__(self, root: str | Path = ROOT):
        self.root = Path(root)
        self._trees: dict[Path, ast.Module] = {}
        self._digests: dict[Path, str] = {}

    def tree(self, file: Path) -> ast.Module:
        if file not in self._trees:
            self._trees[file] = _Bare().visit(ast.parse((self.root / file).read_text(encoding="utf-8")))
        return self._trees[file]

    def scripts(self) -> list[Path]:
        """The scripts of stages: those whose command is a `Stage`."""
        files = sorted(path.relative_to(self.root) for path in (self.root / "stages").rglob("*.py"))
        return [file for file in files if _is_stage(self.tree(file))]

    def digests(self, script: Path) -> dict[str, str]:
        """Module to digest for all that a script reaches; modules that do nothing are left out."""
        for file in self.closure(script):
            self._digests.setdefault(file, _hash(self.tree(file)))
        found = {file.as_posix(): self._digests[file] for file in sorted(self.closure(script))}
        return {file: one for file, one in found.items() if one != EMPTY}

    def closure(self, script: Path) -> set[Path]:
        """All modules that a script reaches, itself included, without plumbing."""
        reached: set[Path] = set()
        todo = [script]
        while todo:
            file = todo.pop()
            if file not in reached and file.as_posix() not in PLUMBING:
                reached.add(file)
                todo += self.imported(file)
        return reached

    def imported(self, file: Path) -> set[Path]:
        """Files of the project that this one imports, inside of functions too, and programs beside it that it starts.

        Importing a.b.c runs the packages a and a.b as well. A program that another process runs knows of no packages:
        it names its neighbours alone, or loads them by path (then any of them counts).
        """
        found: set[Path] = set()
        for node in ast.walk(self.tree(file)):
            names, beside = [], set()
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                beside = {f"{name}.py" for name in names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
                beside = {node.value}
            elif isinstance(node, ast.Attribute) and node.attr == "spec_from_file_location":
                beside = {path.name for path in (self.root / file).parent.glob("*.py")}
            own = [name.split(".") for name in names if name.split(".")[0] in PACKAGES]
            dotted = {".".join(parts[:length]) for parts in own for length in range(1, len(parts) + 1)}
            found |= {path for name in dotted if (path := self._file(name))}
            found |= {file.parent / name for name in beside if (self.root / file.parent / name).is_file()}
        return found - {file}

    def _file(self, module: str) -> Path | None:
        """The project's file that a dotted name imports; a package is its __init__."""
        path = self.root.joinpath(*module.split("."))
        found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
        return found[0].relative_to(self.root) if found else None


def _is_stage(tree: ast.Module) -> bool:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) == "click.command")
    classes = (ast.unparse(keyword.value) for call in calls for keyword in call.keywords if keyword.arg == "cls")
    return any(name.rpartition(".")[2] == "Stage" for name in classes)
