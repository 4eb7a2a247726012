"""The messages in docs/troubleshooting.md are ones that the source can print."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob("whetstone/**/*.py"), *ROOT.glob("stages/**/*.py")]
QUOTED = [
    " ".join(block.split())
    for block in re.findall(r"```\n(.*?)\n```", (ROOT / "docs/troubleshooting.md").read_text(), re.DOTALL)
]
LEAST = 25  # letters that a message and a template must share at least


def template(node: ast.AST) -> list[str | None]:
    """A string expression as its constant parts, None for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in template(value)]
    return [None]


def templates() -> list[list[str | None]]:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(template(node))
    return found + [[" ".join(re.findall(r'"([^"]*)"', block))] for block in [(ROOT / "Makefile").read_text()]]


def constants(parts: list[str | None]) -> int:
    return sum(len(part) for part in parts if part)


TEMPLATES = [parts for parts in templates() if constants(parts) >= LEAST]


def printed_by(message: str, parts: list[str | None]) -> bool:
    """Whether the template's text stands in the message; `...` in the message stands for anything."""
    text = "".join(".*?" if part is None else re.escape(" ".join(part.split(" "))) for part in parts)
    if re.search(text, message, re.DOTALL):
        return True
    spoken = [piece.strip() for piece in message.split("...") if len(piece.strip()) >= 8]
    whole = "".join("\0" if part is None else part for part in parts)
    place = 0
    for piece in spoken:
        pattern = re.escape(piece).replace("\\ ", r"\s+")
        match = re.compile(pattern).search(whole, place)
        if match is None:
            return False
        place = match.end()
    return sum(map(len, spoken)) >= LEAST


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_source(message):
    assert any(printed_by(message, parts) for parts in TEMPLATES)


def test_a_message_that_is_nowhere_is_found_out():
    assert not any(
        printed_by("params.yaml: the moon is in the wrong phase; wait a week", parts) for parts in TEMPLATES
    )
    assert len(QUOTED) >= 15
