"""dvc.yaml declares what the stages depend on, and is a short read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import code
from stages.run.sources import Sources

ROOT = Path(__file__).parents[1]
DVC = YAML(typ="safe").load(ROOT / "dvc.yaml")
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")


def body(stage: dict) -> dict:
    return stage.get("do", stage)


def scripts(name: str) -> list[str]:
    """The scripts that the stage of this name can run."""
    command = body(DVC["stages"][name])["cmd"]
    module = command.removeprefix("python -m stages.").split()[0]
    if module == "${item.trainer}":
        return sorted({epoch["trainer"] for epoch in PARAMS["epochs"]["train"].values()} | {"sft", "dpo"})
    return [module]


CASES = [(name, script) for name in DVC["stages"] if name != "code" for script in scripts(name)]


@pytest.mark.parametrize(("name", "script"), CASES)
def test_every_stage_depends_on_the_code_of_its_script_and_on_no_other(name, script):
    deps = [dep.replace("${item.trainer}", script) for dep in body(DVC["stages"][name])["deps"]]
    assert [dep for dep in deps if dep.startswith("code")] == [code.place(Path(f"stages/{script}.py")).as_posix()]
    assert not [dep for dep in deps if dep.startswith(("stages/", "whetstone/")) and dep.endswith(".py")]


def test_the_code_that_is_in_git_is_this_code():
    sources = Sources()
    written = {code.place(script): sources.digests(script) for script in sources.scripts()}
    there = {path.relative_to(ROOT): json.loads(path.read_text()) for path in (ROOT / "code").rglob("*.json")}
    assert there == written, "run `dvc repro code`, or `python -m stages.code`"


@pytest.mark.parametrize("name", DVC["stages"])
def test_every_stage_says_what_it_does_and_names_its_parameters(name):
    stage = body(DVC["stages"][name])
    assert stage["desc"] and (name == "code" or stage["params"])
    sections = {key.split(".")[0] for key in stage.get("params", []) if key != "${item.trainer}"}
    assert sections <= {*PARAMS} - {"runtime"}


def test_the_pipeline_is_a_short_read():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 105
    assert all(len(file.read_text().splitlines()) < 200 for file in (ROOT / "stages").glob("*.py"))
