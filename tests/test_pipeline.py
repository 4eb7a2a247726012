"""The whole pipeline on a shrunken setting: the shipped base model, DVC and real training, in a copy of the project.

What is tested is what re-runs: nothing the second time, and after a change exactly what the change reaches.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
SMALL = {
    "infer_parts": [1],
    "sample_parts": [2],
    "datasets": ["test"],
    "problems": {"world": {"train": 150, "dev": 8, "test": 24, "test_hard": 0}},
    "infer": {"k": 1, "shots": 4, "max_tokens": 160},
    "sample": {"k": 1, "explore": "all_strategies", "max_tokens": 160},
    "preprocess": {"balance": False},
    "sft": {"max_steps": 16, "batch_size": 4, "checkpoints": 1},
    "dpo": {"max_steps": 8, "batch_size": 4, "checkpoints": 1},
    "evaluate": {"max_tokens": 160},
}
AFTER_SFT = {"train@epoch1", "merge@epoch1", "evaluate@epoch1-test", "sample@epoch1-2", "preprocess@epoch2",
             "train@epoch2", "merge@epoch2", "evaluate@epoch2-test", "report"}  # fmt: skip
ALL = AFTER_SFT | {"problems", "infer@cot-1", "infer@l2m-1", "infer@pot-1", "baseline@test", "preprocess@epoch1"}

pytestmark = pytest.mark.slow


class Copy:
    """A copy of the project's files with its own git and DVC."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("metrics/", "plots/")) and name != "dvc.lock":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        self.edit(SMALL)
        self.run("git", "init", "-q")
        self.commit()

    def run(self, *command: str) -> str:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        identity = {
            f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        done = subprocess.run(
            command, cwd=self.folder, env=environment | identity | {"PATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"
        return done.stdout

    def ran(self, *command: str) -> set[str]:
        """The stages that a DVC command runs."""
        return set(re.findall(r"^Running stage '(.*)':", self.run("dvc", *command), re.MULTILINE))

    def changed(self) -> set[str]:
        return set(json.loads(self.run("dvc", "status", "--json")))

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", "state")

    def edit(self, values: dict) -> None:
        """Sets values in params.yaml, keeping the rest as it is."""
        yaml, path = YAML(), self.folder / "params.yaml"
        params = yaml.load(path)

        def merge(into: dict, these: dict) -> None:
            for key, value in these.items():
                if isinstance(value, dict):
                    merge(into.setdefault(key, {}), value)
                else:
                    into[key] = value

        merge(params, values)
        yaml.dump(params, path)

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project after a first run of everything."""
    made = Copy(tmp_path_factory.mktemp("project"))
    assert made.ran("repro") == ALL
    made.commit()
    return made


def test_a_fresh_copy_ends_with_a_summary_and_a_report(copy):
    summary = copy.json("metrics/summary.json")
    assert summary["problems"] == 24
    for path in ("base best_single", "base oracle", "epoch1 first_attempt", "epoch2 first_attempt"):
        label, name = path.split()
        assert (
            0 <= summary[label][name]["low"] <= summary[label][name]["accuracy"] <= summary[label][name]["high"] <= 1
        )
    assert {"value", "low", "high"} == set(summary["epoch2"]["selection_gain"])
    assert 0 <= summary["comparisons"]["epoch2 vs epoch1"]["p_value"] <= 1
    assert "epoch2" in (copy.folder / "report/index.html").read_text()
    assert "epoch2.first_attempt.accuracy" in copy.run("dvc", "metrics", "show", "metrics/summary.json")


def test_any_training_row_can_be_traced_to_a_sampled_text(copy):
    attempts = pd.concat([pd.read_parquet(f) for f in copy.folder.glob("data/attempts/epoch1/*.parquet")]).set_index(
        "id"
    )
    pairs = pd.read_parquet(copy.folder / "data/training/epoch2/dpo.parquet")
    assert len(pairs)
    for pair in pairs.itertuples():
        chosen, rejected = (attempts.loc[one] for one in pair.attempt_ids)
        assert pair.chosen.endswith(chosen.text.strip()) and pair.rejected.endswith(rejected.text.strip())
        assert (chosen.verdict, chosen.model) == ("correct", "epoch1") and rejected.verdict != "correct"


def test_a_second_run_does_nothing_quickly(copy):
    began = time.monotonic()
    assert copy.ran("repro") == set()
    print(f"no-op dvc repro: {time.monotonic() - began:.1f} s")
    assert copy.run("git", "status", "--porcelain") == ""


def test_plots_are_drawn(copy):
    copy.run("dvc", "plots", "show")
    assert "Training loss" in (copy.folder / "dvc_plots/index.html").read_text()
    shutil.rmtree(copy.folder / "dvc_plots")


def test_a_runtime_knob_reruns_nothing(copy):
    copy.edit({"runtime": {"slots": 64}})
    assert copy.changed() == set()


def test_a_prompt_reruns_its_strategy_only(copy):
    prompt = copy.folder / "prompts/world/pot.yaml"
    before = prompt.read_text()
    prompt.write_text(before + "# another word\n")
    try:
        assert copy.changed() == {"infer@pot-1", "baseline@test"}
        assert copy.ran("repro", "infer") == {"infer@pot-1"}
    finally:
        prompt.write_text(before)
    assert copy.ran("repro", "infer") == set()  # restored from the run cache


def test_a_learning_rate_reruns_its_trainer_and_what_follows(copy):
    before = copy.json("metrics/train/epoch1.json")
    assert (
        copy.ran("exp", "run", "-S", "sft.learning_rate=0.002") <= AFTER_SFT
    )  # early cutoff where bytes are the same
    assert copy.changed() == set()
    after = copy.json("metrics/train/epoch1.json")
    assert before["loss_first"] == after["loss_first"] and before["loss_last"] != after["loss_last"]


def test_a_third_epoch_is_an_edit_of_the_dictionary(copy):
    epochs = {
        "train": {"epoch3": {"start": "epoch2", "attempts": "epoch2", "trainer": "sft"}},
        "sample": ["epoch1", "epoch2"],
        "evaluate": ["epoch1", "epoch2", "epoch3"],
    }
    copy.edit({"epochs": epochs})
    third = {"sample@epoch2-2", "preprocess@epoch3", "train@epoch3", "merge@epoch3", "evaluate@epoch3-test", "report"}
    assert copy.ran("repro") == third
    assert "epoch3 vs epoch2" in copy.json("metrics/summary.json")["comparisons"]
