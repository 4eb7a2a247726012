"""Trackers are told the training's curve when asked for, change nothing of the result, and never touch dvc.yaml."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from dvc.repo import Repo

from whetstone.errors import UserError
from whetstone.training import trackers
from whetstone.training.config import SftConfig
from whetstone.training.sft import train_sft

CONFIG = SftConfig(learning_rate=1e-2, max_steps=4, batch_size=4, rank=4, alpha=8, max_length=128)
STAND_IN = """
import json, pathlib
from contextvars import ContextVar
__version__ = "0.0.0"
config, told = {}, []
class context_vars: current_space_id = ContextVar("space", default=None)
def init(**given): told.append({"init": given})
def log(values, step=None): told.append({"log": {k: v for k, v in values.items() if isinstance(v, (int, float))}})
def finish(): pathlib.Path(__file__).with_name("told.json").write_text(json.dumps(told, default=str))
"""


def train(base, examples, folder, kind: str):
    """(weights, curve) with the tracker."""
    given = trackers.tracker(kind, "epoch1", folder / "tracked")
    _, curve = train_sft(base, examples, folder / "out", CONFIG, scratch=folder / "scratch", tracker=given)
    return (folder / "out/adapter_model.safetensors").read_bytes(), curve


@pytest.fixture
def plain(base, examples, tmp_path_factory):
    return train(base, examples, tmp_path_factory.mktemp("plain"), "none")


def test_none_is_the_default_and_adds_nothing(tmp_path):
    assert trackers.tracker("none", "epoch1", tmp_path) is None


@pytest.mark.slow
def test_a_tracker_gets_every_step_and_changes_no_weight(base, examples, plain, tmp_path, monkeypatch):
    package = tmp_path / "site/trackio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    weights, curve = train(base, examples, tmp_path, "trackio")
    told = json.loads((package / "told.json").read_text())
    assert told[0]["init"]["project"] == "whetstone" and told[0]["init"]["name"] == "epoch1"
    assert told[0]["init"]["space_id"] is None  # nothing leaves the machine
    losses = [one["log"]["train/loss"] for one in told[1:] if "train/loss" in one["log"]]
    assert losses == pytest.approx(list(curve["loss"]), abs=1e-3) and len(losses) == 4
    assert weights == plain[0]


@pytest.mark.slow
def test_dvclive_leaves_dvc_yaml_alone(base, examples, plain, tmp_path, monkeypatch):
    pytest.importorskip("dvclive", reason="dvclive isn't installed: pip install -e '.[dev]'")
    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    weights, curve = train(base, examples, tmp_path, "dvclive")
    assert (tmp_path / "dvc.yaml").read_text() == "stages: {}\n"
    assert [str(found.relative_to(tmp_path)) for found in tmp_path.rglob("dvc.yaml")] == ["dvc.yaml"]
    logged = pd.read_csv(next((tmp_path / "tracked/epoch1").rglob("loss.tsv")), sep="\t")
    assert list(logged["loss"]) == pytest.approx(list(curve["loss"]), abs=1e-3)
    assert weights == plain[0]


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="`runtime.report_to` is wandb, which isn't installed: `pip install wandb`"):
        trackers.tracker("wandb", "epoch1", tmp_path)
