"""Each stage opens what dvc.yaml declares for it, all of it and nothing else of the project."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from whetstone import records

ROOT = Path(__file__).parents[2]
CODE = ("code/", "stages/", "whetstone/")
OPENED: list[str] | None = None


def hook(event: str, arguments: tuple) -> None:
    """Audit hooks can't be removed, so this one listens only while OPENED is a list."""
    if event == "open" and OPENED is not None and isinstance(arguments[0], str) and "r" in (arguments[1] or "r"):
        OPENED.append(arguments[0])


sys.addaudithook(hook)


@pytest.fixture(scope="module")
def declared() -> dict[str, tuple[set[str], set[str]]]:
    """Stage name to its data deps and its outs, as DVC resolves them."""
    with Repo(str(ROOT)) as repo:
        return {
            stage.addressing: (
                {
                    dep.def_path
                    for dep in stage.deps
                    if not dep.def_path.startswith(CODE) and dep.def_path != "params.yaml"
                },
                {out.def_path for out in stage.outs},
            )
            for stage in repo.index.stages
        }


def covered(path: str, by: set[str]) -> bool:
    return any(path == one or path.startswith(one + "/") for one in by)


PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
RUNS = [
    ("problems", ["problems"]),
    *(
        (f"infer@{s}-{p}", ["infer", "--strategy", s, "--part", str(p)])
        for s in PARAMS["strategies"]
        for p in PARAMS["infer_parts"]
    ),
    ("preprocess@epoch1", ["preprocess", "--epoch", "epoch1"]),
    *((f"sample@epoch1-{p}", ["sample", "--model", "epoch1", "--part", str(p)]) for p in PARAMS["sample_parts"]),
    ("preprocess@epoch2", ["preprocess", "--epoch", "epoch2"]),
    *((f"baseline@{d}", ["baseline", "--dataset", d]) for d in ("test", "test_hard")),
    *(
        (f"evaluate@{c}-{d}", ["evaluate", "--checkpoint", c, "--dataset", d])
        for c in ("epoch1", "epoch2")
        for d in ("test", "test_hard")
    ),
    ("report", ["report"]),
]


@pytest.mark.slow
def test_opened_files_are_the_declared_ones(tuned, declared, monkeypatch):
    global OPENED
    read = records.read
    monkeypatch.setattr(records, "read", lambda path, schema: OPENED.append(str(path)) or read(path, schema))
    for name, (stage, *arguments) in RUNS:
        deps, outs = declared[name]
        OPENED = []
        try:
            tuned.run(stage, *arguments)
        finally:
            opened, OPENED = OPENED, None
        inside = {Path(path).resolve() for path in opened}
        inside = {str(path.relative_to(tuned.folder)) for path in inside if path.is_relative_to(tuned.folder)}
        inside = {path for path in inside if path != "params.yaml" and not path.startswith(".scratch/")}
        undeclared = {path for path in inside if not covered(path, deps | outs)}
        assert not undeclared, f"{name} opens {undeclared}"
        elsewhere = ("models/", "data/raw")  # seen by tests/test_pipeline.py, and by tests/test_tutorial.py
        unread = {
            dep for dep in deps if not dep.startswith(elsewhere) and not any(covered(path, {dep}) for path in inside)
        }
        assert not unread, f"{name} never opens {unread}"
