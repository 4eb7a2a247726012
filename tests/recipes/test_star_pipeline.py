"""The recipe's pipeline on a shrunken setting: its own base model, DVC and real training, in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.project import Copy

SMALL = {
    "problems": {"world": {"train": 20, "dev": 5, "test": 10, "seed": 0}},
    "sft": {"max_steps": 12, "batch_size": 8},
    "dpo": {"max_steps": 6, "batch_size": 4},
    "curate": {"min_right": 1},
    "evaluate": {"train": 12},
    "stop": {"patience": 3},
    "iterations": {
        "train": {
            "sft1": {"after": "base", "start": "base", "attempts": "base-hinted", "trainer": "sft"},
            "dpo2": {"after": "sft1", "start": "sft1", "attempts": "sft1", "trainer": "dpo"},
        },
        "sample": ["base", "sft1"],
        "rationalize": ["base"],
    },
}
FIRST = {"curate@sft1", "train@sft1", "evaluate@sft1"}
SECOND = {"sample@sft1", "curate@dpo2", "train@dpo2", "evaluate@dpo2", "report"}
ALL = {"problems", "baseline", "sample@base", "rationalize@base"} | FIRST | SECOND

pytestmark = pytest.mark.slow


class Recipe:
    def __init__(self, folder: Path):
        self.folder = folder / "recipes/star"
        for name in ("metrics", "plots", "dvc.lock"):
            subprocess.run(["rm", "-rf", str(self.folder / name)], check=True)
        self.edit(SMALL)

    def edit(self, sections: dict) -> None:
        yaml, path = YAML(), self.folder / "params.yaml"
        params = yaml.load(path)
        for section, values in sections.items():
            params[section].update(values)
        yaml.dump(params, path)

    def dvc(self, *command: str) -> str:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "PYTHONPATH"))}
        done = subprocess.run(
            ["dvc", *command], cwd=self.folder, env=kept | {"PATH": path}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def ran(self) -> set[str]:
        return set(re.findall(r"^Running stage '(.*)':", self.dvc("repro"), re.MULTILINE))

    def changed(self) -> set[str]:
        """Stages of the recipe that would run; the root's, which never ran in this copy, stand beside them."""
        return {name for name in json.loads(self.dvc("status", "--json")) if ":" not in name}

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    made = Recipe(Copy.made(tmp_path_factory.mktemp("star") / "project").folder)
    assert made.ran() == ALL | {"../../dvc.yaml:code"}
    return made


def test_it_ends_with_arms_and_languages_side_by_side(recipe):
    summary = recipe.json("metrics/summary.json")
    assert set(summary["test"]) == {"base", "sft1", "dpo2"}
    assert set(summary["test"]["base"]) == {"all", "de", "en", "sw"}
    assert set(summary["comparisons"]) == {"sft1 vs base", "dpo2 vs base"}
    text = (recipe.folder / "report/report.md").read_text()
    assert "base → sft1 → dpo2" in text and "Training problems minus test" in text


def test_any_example_can_be_traced_to_a_sampled_text(recipe):
    attempts = pd.read_parquet(recipe.folder / "data/attempts/base-hinted.parquet").set_index("id")
    for row in pd.read_parquet(recipe.folder / "data/training/sft1.parquet").itertuples():
        one = attempts.loc[row.attempt_ids[0]]
        assert (row.completion, one["verdict"]) == (one["text"].rstrip(), "correct")
        assert (row.strategy == "hinted") == (one["variant"] == "hinted")


def test_a_second_run_does_nothing(recipe):
    assert recipe.ran() == set()


@pytest.mark.parametrize(
    ("section", "values", "stages"),
    [
        ("runtime", {"slots": 16}, set()),
        ("rationalize", {"share": 0.9}, {"rationalize@base"}),
        ("curate", {"pairs_per_problem": 3}, {"curate@sft1", "curate@dpo2"}),
        ("dpo", {"beta": 0.4}, {"train@dpo2"}),
        ("stop", {"patience": 4}, {"baseline", "evaluate@sft1", "evaluate@dpo2"}),
    ],
)
def test_a_parameter_reaches_its_stages_first(recipe, section, values, stages):
    before = (recipe.folder / "params.yaml").read_text()
    recipe.edit({section: values})
    try:
        assert recipe.changed() == stages
    finally:
        (recipe.folder / "params.yaml").write_text(before)
