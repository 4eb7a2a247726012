"""The recipe's dvc.yaml declares what its stages reach, all of it and nothing else; its parameters are sound."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.star import check

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/star"
DVC = YAML(typ="safe").load(RECIPE / "dvc.yaml")["stages"]
PARAMS = YAML(typ="safe").load(RECIPE / "params.yaml")
PRESETS = sorted(path.stem for path in (RECIPE / "presets").glob("*.yaml"))


def root_tests():
    """The root pipeline's test module, whose import closure serves here too."""
    spec = importlib.util.spec_from_file_location("root_dvc_yaml", ROOT / "tests/test_dvc_yaml.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def body(name: str) -> dict:
    return DVC[name].get("do", DVC[name])


def declared(name: str) -> list[Path]:
    here = Path(os.path.normpath("recipes/star"))
    deps = [Path(os.path.normpath(here / dep)) for dep in body(name)["deps"]]
    return [dep for dep in deps if dep.parts[0] in ("stages", "whetstone")]


def script(name: str) -> Path:
    module = body(name)["cmd"].removeprefix("PYTHONPATH=../.. python -m ").split()[0]
    return Path(*module.split(".")).with_suffix(".py")


@pytest.mark.parametrize("name", DVC)
def test_modules_are_declared_all_of_them_and_no_other(name):
    reached = root_tests().closure(script(name))
    deps = declared(name)
    assert not {f for f in reached if not any(f == d or d in f.parents for d in deps)}
    assert not {d for d in deps if not any(f == d or d in f.parents for f in reached)}
    assert all((ROOT / d).exists() for d in deps)


@pytest.mark.parametrize("name", DVC)
def test_stages_say_what_they_do_and_name_sections_that_exist(name):
    stage = body(name)
    assert stage["desc"]
    named = {key.split(".")[0] for key in stage["params"]} - {"${item"}
    assert named <= {*PARAMS} - {"runtime"}


def test_the_parameters_are_sound():
    check.check(PARAMS)
    assert not PARAMS["problems"]["train_on_test"] and PARAMS["dpo"]["nll_weight"] > 0
    assert PARAMS["dpo"]["reference"] == "start" and PARAMS["sft"]["warmup"] < 1
    assert "hinted" not in PARAMS["iterations"]["train"]["sft1"]["attempts"]  # rationalization is a choice


@pytest.mark.parametrize("name", PRESETS)
def test_presets_set_what_there_is_and_the_default_takes_them_back(name, tmp_path, monkeypatch):
    import shutil

    from click.testing import CliRunner

    from stages.star import common, preset

    monkeypatch.chdir(tmp_path)
    shutil.copytree(RECIPE / "presets", "presets")
    shutil.copy(RECIPE / "params.yaml", ".")
    for one in (name, "default"):
        result = CliRunner().invoke(preset.main, [one])
        assert result.exit_code == 0, result.output
        common.iterations()
    assert YAML(typ="safe").load(Path("params.yaml")) == PARAMS


def test_an_unknown_section_or_preset_is_refused(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from stages.star import preset
    from whetstone.errors import UserError

    with pytest.raises(UserError, match="unknown sections \\['surprise'\\]"):
        check.check(PARAMS | {"surprise": {}})
    with pytest.raises(UserError, match="`curate.min_rigth` is unknown; remove it or correct its name"):
        check.check(PARAMS | {"curate": {"min_rigth": 1}})
    monkeypatch.chdir(RECIPE)
    assert "no preset 'spanish'; there are default, dpo" in CliRunner().invoke(preset.main, ["spanish"]).output


def test_the_base_model_is_small_and_has_its_card():
    folder = RECIPE / "models/base"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4.5e6
    assert "make base-model-star" in (folder / "README.md").read_text()
