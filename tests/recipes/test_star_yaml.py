"""The recipe's dvc.yaml declares what its stages depend on; its parameters are sound."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from stages import code
from stages.star import recipe
from tools import check, preset
from whetstone.errors import UserError

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/star"
DVC = YAML(typ="safe").load(RECIPE / "dvc.yaml")["stages"]
PARAMS = YAML(typ="safe").load(RECIPE / "params.yaml")
PRESETS = sorted(path.stem for path in (RECIPE / "presets").glob("*.yaml"))


def body(name: str) -> dict:
    return DVC[name].get("do", DVC[name])


def script(name: str) -> Path:
    module = body(name)["cmd"].removeprefix("PYTHONPATH=../.. python -m ").split()[0]
    return Path(*module.split(".")).with_suffix(".py")


@pytest.mark.parametrize("name", DVC)
def test_every_stage_depends_on_the_code_of_its_script_and_on_no_other(name):
    assert [dep for dep in body(name)["deps"] if "code/" in dep] == [f"../../{code.place(script(name))}"]
    assert not [dep for dep in body(name)["deps"] if dep.endswith(".py")]


@pytest.mark.parametrize("name", DVC)
def test_stages_say_what_they_do_and_name_sections_that_exist(name):
    stage = body(name)
    assert stage["desc"]
    named = {key.split(".")[0] for key in stage["params"]} - {"${item"}
    assert named <= {*PARAMS} - {"runtime"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The recipe's folder with its parameters, presets and prompts, where its tools run."""
    made = tmp_path / "recipes/star"
    left_out = shutil.ignore_patterns("*.safetensors", "data", "metrics", "manifests", "report")
    shutil.copytree(RECIPE, made, ignore=left_out)
    monkeypatch.chdir(made)
    return made


def test_the_parameters_are_sound(folder):
    check.valid(PARAMS)
    recipe.check()
    assert not PARAMS["problems"]["train_on_test"] and PARAMS["dpo"]["nll_weight"] > 0
    assert PARAMS["dpo"]["reference"] == "start" and PARAMS["sft"]["warmup"] < 1
    assert "hinted" not in PARAMS["iterations"]["train"]["sft1"]["attempts"]  # rationalization is a choice


@pytest.mark.parametrize("name", PRESETS)
def test_presets_set_what_there_is_and_the_default_takes_them_back(name, folder):
    for one in (name, "default"):
        result = CliRunner().invoke(preset.main, [one])
        assert result.exit_code == 0, result.output
        recipe.check()
    assert YAML(typ="safe").load(Path("params.yaml")) == PARAMS


def test_an_unknown_section_or_preset_is_refused(folder):
    with pytest.raises(UserError, match="unknown sections \\['surprise'\\]"):
        check.valid(PARAMS | {"surprise": {}})
    with pytest.raises(UserError, match="`curate.min_rigth` is unknown; remove it or correct its name"):
        check.valid(PARAMS | {"curate": {"min_rigth": 1}})
    assert "no preset 'spanish'; there are" in CliRunner().invoke(preset.main, ["spanish"]).output


def test_the_base_model_is_small_and_has_its_card():
    folder = RECIPE / "models/base"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4.5e6
    assert "make base-model-star" in (folder / "README.md").read_text()
