"""A stage's manifest tells what it was made from; results of inputs that changed meanwhile are put aside."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types

import pytest
from ruamel.yaml import YAML

import stages.run.manifest
from whetstone import records

STAGES = {
    "problems": {"cmd": "python -m stages.problems", "params": ["problems", "datasets"], "outs": ["data/problems"]},
    "infer": {
        "matrix": {"strategy": ["cot"], "part": [1, 2]},
        "cmd": "python -m stages.infer --strategy ${item.strategy} --part ${item.part}",
        "deps": ["models/base", "prompts/world/${item.strategy}.yaml", "data/problems/part-${item.part}.parquet"],
        "params": ["infer", "engine"],
        "outs": ["data/attempts/base/${item.strategy}-${item.part}.parquet"],
    },
}
INFER = ["infer", "--strategy", "cot", "--part", "1"]
OUT, MANIFEST = "data/attempts/base/cot-1.parquet", "manifests/local/infer@cot-1.json"
RECORD = "manifests/infer@cot-1.json"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A folder of git and DVC with nothing in it, which takes a second to make."""
    folder = tmp_path_factory.mktemp("empty")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True, cwd=folder)
    return folder


@pytest.fixture
def versioned(project, empty, monkeypatch):
    """The project in git and DVC with two of its stages, and its problems made."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.folder.parent))
    shutil.copytree(empty, project.folder, dirs_exist_ok=True)
    with (project.folder / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": STAGES}, file)
    (project.folder / ".gitignore").write_text("/data\n/metrics\n.scratch\n/manifests/local\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (
        ["git", "add", "-A"],
        ["git", *identity, "commit", "-qm", "state"],
    ):
        subprocess.run(command, check=True, cwd=project.folder)
    project.run("problems")
    assert project.golds  # read while its files are as they were
    return project


def manifest(project) -> dict:
    return json.loads((project.folder / MANIFEST).read_text())


def test_a_machine_without_git_runs_a_copy_of_the_project(versioned, monkeypatch):
    monkeypatch.setattr(stages.run.manifest.shutil, "which", lambda name: None)
    versioned.run(*INFER)
    assert manifest(versioned)["git"] == {"revision": None, "dirty": None}


def test_it_names_inputs_parameters_revision_rows_and_tokens(versioned):
    versioned.run(*INFER)
    found = manifest(versioned)
    rows = len(versioned.read("data/problems/part-1.parquet", records.PROBLEM))
    assert found["stage"] == "infer@cot-1" and found["seconds"] > 0 and found["started"].endswith("+00:00")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert found["git"] == {"revision": head, "dirty": False}
    assert found["device"][0].isdigit() and {"python", "pandas", "pyarrow"} <= set(found["packages"])
    assert set(found["inputs"]) == {"models/base", "prompts/world/cot.yaml", "data/problems/part-1.parquet"}
    md5 = subprocess.run(["md5sum", "prompts/world/cot.yaml"], capture_output=True, text=True, check=True).stdout
    assert found["inputs"]["prompts/world/cot.yaml"] == md5.split()[0]
    assert found["params"] == {name: versioned.params[name] for name in ("infer", "engine")}
    assert found["rows"] == {"in": rows, "out": rows, "dropped": {}} and rows > 0
    assert found["tokens"]["completion"] > 0


def test_an_edited_prompt_makes_the_revision_dirty_and_an_unrelated_file_does_not(versioned):
    (versioned.folder / "prompts/world/pot.yaml").write_text("edited")
    versioned.run(*INFER)
    assert manifest(versioned)["git"]["dirty"] is False
    with (versioned.folder / "prompts/world/cot.yaml").open("a") as file:
        file.write("# a word\n")
    versioned.run(*INFER)
    assert manifest(versioned)["git"]["dirty"] is True


def git_status() -> list[str]:
    return subprocess.run(["git", "status", "-s"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_run_leaves_git_alone_and_an_experiment_brings_its_record(versioned, monkeypatch):
    versioned.run(*INFER)
    assert git_status() == []
    monkeypatch.setenv("DVC_EXP_NAME", "warmer")
    versioned.run(*INFER)
    assert git_status() == [f"A  {RECORD}"]
    assert json.loads((versioned.folder / RECORD).read_text())["experiment"] == "warmer"


@pytest.mark.parametrize("arguments", [["infer", "--strategy", "sub", "--part", "1"], [*INFER, "--show-prompt", "1"]])
def test_what_is_no_stage_of_the_pipeline_leaves_none(versioned, arguments):
    versioned.run(*arguments)
    assert not list((versioned.folder / "manifests").glob("**/infer*"))


def meanwhile(project, action) -> None:
    """Does `action` while the next stage samples."""
    reply = project.solver.reply

    def acting(prompt):
        project.solver.reply = reply
        action()
        return reply(prompt)

    project.solver.reply = acting


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("prompt", "inputs prompts/world/cot.yaml: "),
        ("data", "inputs data/problems/part-1.parquet: "),
        ("parameter", "params infer: "),
    ],
)
def test_results_of_inputs_that_changed_meanwhile_are_put_aside(versioned, change, told):
    folder = versioned.folder
    file = folder / {"prompt": "prompts/world/cot.yaml", "data": "data/problems/part-1.parquet",
                     "parameter": "params.yaml"}[change]  # fmt: skip
    before = file.read_bytes()

    def edit():
        if change == "data":
            file.write_bytes((folder / "data/problems/part-2.parquet").read_bytes())
        elif change == "parameter":
            versioned.params["infer"]["seed"] = 1
            versioned.save()
        else:
            file.write_bytes(before + b"# a word\n")

    meanwhile(versioned, edit)
    output = versioned.run(*INFER, fails=True)
    assert told in output and "at the start" in output and "Undo the change" in output
    assert not (folder / OUT).exists() and not (folder / MANIFEST).exists()

    file.write_bytes(before)
    calls = versioned.solver.calls
    assert "from these very inputs" in versioned.run(*INFER)
    assert (folder / OUT).exists() and manifest(versioned)["rows"]["out"] > 0
    assert versioned.solver.calls == calls and not list((folder / ".scratch/refused").iterdir())


def test_what_a_stage_does_not_declare_may_change_meanwhile(versioned):
    def edit():
        versioned.params["runtime"]["slots"] = 8
        versioned.params["sft"]["seed"] = 8
        versioned.save()
        prompt = versioned.folder / "prompts/world/cot.yaml"
        prompt.write_bytes(prompt.read_bytes())  # saved again, with the same content

    meanwhile(versioned, edit)
    versioned.run(*INFER)
    assert (versioned.folder / OUT).exists() and (versioned.folder / MANIFEST).exists()


def test_a_package_that_is_installed_under_another_name_still_has_its_version(monkeypatch):
    installed_otherwise = types.ModuleType("vllm")
    installed_otherwise.__version__ = "0.32.0"
    monkeypatch.setitem(sys.modules, "vllm", installed_otherwise)
    monkeypatch.setattr(stages.run.manifest, "PACKAGES", ("vllm", "click"))
    found = stages.run.manifest.packages()
    assert found["vllm"] == "0.32.0" and "click" in found
