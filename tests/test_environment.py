"""The environment: make's targets run in it, and a stage that is started outside of it says which one it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def bare(tmp_path) -> str:
    """A folder to put before PATH: its `python` has no packages."""
    program(tmp_path / "bare/python", f'exec "{sys.executable}" -S "$@"')
    return str(tmp_path / "bare")


@pytest.mark.parametrize(("folder", "stage"), [("", "problems"), ("", "report"), ("recipes/star", "star.sample")])
def test_a_stage_outside_of_the_environment_names_it(bare, folder, stage):
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [f"{bare}/python", "-m", f"stages.{stage}"]
    done = subprocess.run(command, cwd=ROOT / folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "lacks click, dvc, pandas, pydantic, torch: it isn't the project's environment" in done.stderr
    assert f"source {ROOT}/.venv/bin/activate" in done.stderr


@pytest.mark.slow
def test_dvc_without_the_environment_on_path_loses_nothing(copy, bare):
    before = copy.results()
    path = os.pathsep.join([bare, str(Path(sys.executable).parent), os.environ["PATH"]])
    told = copy.run("dvc", "repro", "-f", "-s", "problems", PATH=path, fails=True)
    assert "it isn't the project's environment" in told and "Traceback" not in told
    assert copy.ran("repro") == set()  # DVC's run cache has it
    assert copy.results() == before


@pytest.mark.parametrize("epoch", ["epoch1", "epoch2"])
def test_an_epochs_target_is_its_evaluation_on_the_first_data_set(tmp_path, epoch):
    for path in ROOT.iterdir():
        if path.name not in ("params.yaml", ".venv"):
            (tmp_path / path.name).symlink_to(path)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(params | {"datasets": ["dev", "test"]}, file)
    program(tmp_path / ".venv/bin/python", f'exec "{sys.executable}" "$@"')
    program(tmp_path / ".venv/bin/dvc", 'echo "dvc $@"')
    state = subprocess.run("cat pyproject.toml requirements/constraints.txt | cksum | cut -d' ' -f1", shell=True,
                           cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    (tmp_path / f".venv/installed-{state}").touch()
    # Not what `make VENV=... test` hands on to a make that its tests start
    left_out = ("VENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    own = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(["make", epoch], cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"dvc repro evaluate@{epoch}-dev"
