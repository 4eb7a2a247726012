"""What the source may do in one place only: run text as Python, and send something to the Hub."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS_TEXT = {"exec", "eval"}
SENDS = {"HfApi", "create_commit", "create_repo", "push_to_hub", "upload_file", "upload_folder", "upload_large_folder"}


def naming(wanted: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """(file of the product, node) for each name, attribute or import that is one of these; texts don't count."""
    rooms = ("whetstone", "stages", "tools", "models")
    for file in sorted(path for room in rooms for path in (ROOT / room).glob("**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [getattr(node, "id", None), getattr(node, "attr", None)]
            names += [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if wanted & {*names}:
                yield str(file.relative_to(ROOT)), node


def test_text_runs_as_python_at_one_place_and_that_is_in_the_sandbox():
    (place,) = [file for file, node in naming(RUNS_TEXT) if isinstance(node, ast.Name)]  # not `model.eval()`
    assert Path(place).parent == Path("whetstone/grading") and Path(place).name.startswith("sandbox_")


def test_only_publishing_sends_to_the_hub():
    assert {file for file, _ in naming(SENDS)} == {"tools/publish.py"}
