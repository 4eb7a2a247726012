"""What counts as a change of a stage's code, and what a stage's code is."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.code import place, script_of
from stages.run.sources import Sources, digest
from tests.project import Copy

MODULE = '''"""What it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import pandas as pd

__version__ = "1"
LIMIT = 3
"""How many."""


@click.command()
@click.option("--part", type=int, help="which part")
def main(part: int) -> float:
    """Does it."""
    if part > LIMIT:
        raise UserError(f"{part} is too much")
    click.echo("done")
    return f"{part:>{LIMIT}} {part!r}" if part else None
'''

SAME = {
    "a comment": ("LIMIT = 3", "LIMIT = 3  # of a hundred"),
    "a docstring": ("Does it.", "Does nothing else."),
    "a docstring less": ('    """Does it."""\n', ""),
    "the text below a constant": ("How many.", "The number."),
    "layout": ("main(part: int)", "main(\n    part: int,\n)"),
    "another quote": ('"--part"', "'--part'"),
    "an import for type checkers": ("import pandas as pd", "import numpy as np"),
    "a version": ('__version__ = "1"', '__version__ = "2"'),
    "an error's message": ("is too much", "is more than there are"),
    "what is printed": ('click.echo("done")', 'click.echo("finished", err=True)'),
    "a line less on the terminal": ('    click.echo("done")\n', ""),
    "a command's help": ("which part", "the part"),
}
OTHER = {
    "a constant": ("LIMIT = 3", "LIMIT = 4"),
    "a float for an int": ("LIMIT = 3", "LIMIT = 3.0"),
    "a comparison": ("part > LIMIT", "part >= LIMIT"),
    "which error": ("raise UserError", "raise ValueError"),
    "an option's type": ("type=int", "type=float"),
    "a format": (":>{LIMIT}", ":<{LIMIT}"),
    "a conversion": ("!r", "!s"),
    "None for zero": ("else None", "else 0"),
    "an annotation, which pydantic reads": ("part: int)", "part: float)"),
    "an import": ("import click\n", "import click as other\n"),
    "a text that isn't the first of its body": ('return f"', 'x = "Does it."; return f"'),
}


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_what_no_result_depends_on_is_no_change(old, new):
    assert old in MODULE
    assert digest(MODULE.replace(old, new, 1)) == digest(MODULE)


@pytest.mark.parametrize(("old", "new"), OTHER.values(), ids=OTHER)
def test_what_a_result_can_depend_on_is_a_change(old, new):
    assert old in MODULE
    assert digest(MODULE.replace(old, new, 1)) != digest(MODULE)


def test_every_python_gives_the_same_digest():
    """Of Python 3.11, 3.12 and 3.13: newer ones have more fields in a syntax tree, and read f-strings otherwise."""
    assert digest(MODULE) == "811678e74ddbac5c"


def test_programs_that_a_stage_starts_belong_to_its_code():
    reached = {file.as_posix() for file in Sources().closure(Path("stages/infer.py"))}
    started = {f"whetstone/grading/sandbox_{name}.py" for name in ("worker", "child", "jail", "prelude", "verify")}
    assert {*started, "whetstone/grading/symbolic_worker.py", "whetstone/rollouts.py"} <= reached
    assert not {file for file in reached if file.startswith(("whetstone/training", "whetstone/report"))}


def test_a_module_that_nothing_imports_counts_for_no_stage(tmp_path):
    folder = Copy.made(tmp_path / "project").folder
    before = {script: Sources(folder).digests(script) for script in Sources(folder).scripts()}
    (folder / "whetstone/unused.py").write_text("ANSWER = 42\n")
    (folder / "stages/output.py").write_text("print('plumbing')\n")
    assert {script: Sources(folder).digests(script) for script in Sources(folder).scripts()} == before
    with (folder / "whetstone/errors.py").open("a") as file:
        file.write("NEW = 1\n")
    after = {script: Sources(folder).digests(script) for script in Sources(folder).scripts()}
    assert all(after[script] != before[script] for script in before)


def test_inputs_of_code_are_told_from_others():
    for path in ("code/star/sample.json", "../../code/star/sample.json"):
        assert place(script_of(path)).as_posix() == "code/star/sample.json"
    assert script_of("data/problems/part-1.parquet") is None and script_of("../../models/base") is None
