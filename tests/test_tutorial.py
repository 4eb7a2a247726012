"""docs/tutorial.md, executed as it stands in a copy of the project: its script, its YAML, its commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.project import ROOT, Copy

PAGE = (ROOT / "docs/tutorial.md").read_text()
pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The copy, and what each command of the tutorial printed."""
    copy = Copy.made(tmp_path_factory.mktemp("tutorial") / "project")
    (script,), (params,), (commands,) = blocks("python"), blocks("yaml"), blocks("console")
    (copy.folder / "mine.py").write_text(script)
    copy.run("python", "mine.py", PYTHONPATH=str(copy.folder))
    copy.edit(YAML(typ="safe").load(params))
    environment = installed(copy.folder)
    printed = []
    for line in commands.splitlines():
        command = re.sub(r"\bmake\b", f"make VENV={environment}", line.removeprefix("$ "))
        printed.append(copy.run("bash", "-ec", command, COLUMNS="140"))
    return copy, printed


def installed(folder: Path) -> Path:
    """An environment that make takes for installed: this one."""
    venv = folder / ".venv"
    venv.mkdir()
    for own in Path(sys.prefix).iterdir():
        if not own.name.startswith("installed-"):
            (venv / own.name).symlink_to(own)
    files = shlex.join(str(folder / name) for name in ("pyproject.toml", "requirements/constraints.txt"))
    state = subprocess.run(
        f"cat {files} | cksum | cut -d' ' -f1", shell=True, capture_output=True, text=True, check=True
    )
    (venv / f"installed-{state.stdout.strip()}").touch()
    return venv


def test_the_problems_are_the_files_rows(done):
    copy, _ = done
    rows = pd.read_json(copy.folder / "data/raw/mine/test.jsonl", lines=True, dtype={"target": str})
    test = pd.read_parquet(copy.folder / "data/problems/test.parquet")
    assert set(test["question"]) == set(rows["prompt"]) and set(test["family"]) == set(rows["topic"])


def test_a_change_of_the_file_is_noticed(done):
    copy, _ = done
    path = copy.folder / "data/raw/mine/test.jsonl"
    before = path.read_text()
    assert copy.changed() == set()
    path.write_text("\n".join(before.splitlines()[1:]) + "\n")
    assert copy.changed() == {"problems"}
    path.write_text(before)


def test_what_the_page_quotes_is_printed(done):
    _, printed = done
    flat = " ".join(" ".join(printed).split())
    for block in blocks("text"):
        for line in block.splitlines():
            assert " ".join(line.split()) in flat


def test_the_report_and_the_answers_are_there(done):
    copy, (_, ran, chat) = done
    assert "epoch2" in (copy.folder / "report/index.html").read_text() and "Report:" in ran
    assert (copy.folder / "manifests/index.html").exists()
    summary = copy.json("metrics/summary.json")
    assert summary["problems"] == 60 and "epoch2" in summary
    assert "─ base ─" in chat and "─ epoch2 ─" in chat and "chose among cot" in chat
    assert re.search(r"answer: 27\b", chat)


def test_the_example_line_is_one_that_the_script_writes(done):
    copy, _ = done
    (line,) = blocks("json")
    head, _, tail = line.strip().partition(" ...")
    assert any(
        row.startswith(head) and row.endswith(tail)
        for row in (copy.folder / "data/raw/mine/train.jsonl").read_text().splitlines()
    )
