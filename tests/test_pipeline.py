"""The whole pipeline on a shrunken setting: the shipped base model, DVC and real training, in a copy of the project.

What is tested is what re-runs: nothing the second time, and after a change exactly what the change reaches.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable

import pandas as pd
import pytest
from dvc.repo import Repo

from stages.run import sources
from tests.project import AFTER_SFT, ALL, ROOT
from tools import lineage

pytestmark = pytest.mark.slow


def covered(path: str, by: Iterable[str]) -> bool:
    return any(path == one or path.startswith(one + "/") for one in by)


@pytest.fixture(scope="module")
def stages(copy):
    """Every stage as DVC resolves it, with what its process was seen to do (see tests/audit)."""
    with Repo(str(copy.folder)) as repo:
        own = [stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml" and stage.name != "code"]
        found = [(stage, json.loads((copy.audit / f"{stage.name}.json").read_text())) for stage in own]
    assert {stage.name for stage, _ in found} == ALL
    return found


def does_something(file: str) -> bool:
    return sources.digest((ROOT / file).read_text()) != sources.EMPTY


def inputs(stage) -> set[str]:
    return {dep.def_path for dep in stage.deps} - {"params.yaml"}


def test_stages_import_what_they_declare(stages):
    for stage, seen in stages:
        counted = {*lineage.modules(stage), *sources.PLUMBING, "stages/code.py", "stages/run/sources.py"}
        undeclared = {one for one in {*seen["modules"]} - counted if does_something(one)}
        assert not undeclared, f"{stage.name} imports {undeclared}"


def test_plumbing_writes_no_out(stages):
    """Modules that don't count (`sources.PLUMBING`) open no file of an out for writing."""
    seen_writing = {file for _, seen in stages for file in seen["writers"]}
    assert {"whetstone/records.py", "whetstone/training/checkpoints.py"} <= seen_writing
    assert not seen_writing & {*sources.PLUMBING}


def test_stages_open_what_they_declare_and_all_of_it(stages):
    for stage, seen in stages:
        outs = {out.def_path for out in stage.outs} | {f"manifests/local/{stage.name}.json"}
        opened = {re.sub(r"\.partial\b", "", path) for path in seen["opened"] if not path.endswith((".py", ".pyc"))}
        opened -= {"params.yaml", *(path for path in opened if path.startswith((".git", ".dvc", ".scratch")))}
        opened -= {path for path in opened if path.endswith("dvc.lock")}  # looked after, see stages/run/lockfile.py
        undeclared = {path for path in opened if not covered(path, inputs(stage) | outs)}
        assert not undeclared, f"{stage.name} opens {undeclared}"
        code = {path for path in inputs(stage) if path.startswith("code/")}  # the manifest's
        code |= {"data/raw"}  # read where `problems.sources` names files in it: tests/test_tutorial.py
        unread = {dep for dep in inputs(stage) - code if not any(covered(path, {dep}) for path in opened)}
        assert not unread, f"{stage.name} never opens {unread}"


def test_stages_write_their_outs_and_nothing_else(stages):
    for stage, seen in stages:
        outs = {out.def_path for out in stage.outs}
        strays = {path for path in seen["changed"] if not covered(path, outs)} - {f"manifests/local/{stage.name}.json"}
        assert not strays, f"{stage.name} writes {strays}"
        assert all(any(covered(path, {out}) for path in seen["changed"]) for out in outs)


def test_stages_read_the_parameters_that_they_declare(stages):
    unread: dict[str, list[set]] = {}
    for stage, seen in stages:
        declared = {key for dep in stage.deps for key in getattr(dep, "params", [])}
        read = {key for key in seen["params"] if not key.startswith("runtime.")}
        undeclared = {key for key in read if not any(key == one or key.startswith(one + ".") for one in declared)}
        assert not undeclared, f"{stage.name} reads {undeclared}"
        never = {one for one in declared if not any(key == one or key.startswith(one + ".") for key in read)}
        unread.setdefault(stage.name.partition("@")[0], []).append(never)
    never = {name: set.intersection(*found) for name, found in unread.items()}  # epoch 2 starts from no base model
    assert not any(never.values()), f"declared, and read by none of the stages: {never}"


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


def test_a_second_run_does_nothing(copy):
    assert copy.ran("repro") == set()
    assert copy.run("git", "status", "--porcelain") == ""


def test_a_run_that_finds_the_same_leaves_git_as_it_was(copy):
    record = copy.json("manifests/problems.json")
    assert copy.ran("repro", "-f", "-s", "problems", "infer@cot-1", "report") == {"problems", "infer@cot-1", "report"}
    assert copy.run("git", "status", "--porcelain") == ""
    assert copy.json("manifests/problems.json") == record
    assert copy.json("manifests/local/problems.json")["started"] > record["started"]


def test_a_run_is_recorded_when_told(copy):
    (copy.folder / "manifests/nobody.json").write_text("{}")
    assert "15 of 15 stages recorded, 1 gone" in copy.run("python", "-m", "tools.record")
    staged = copy.run("git", "diff", "--cached", "--name-only").splitlines()
    assert staged == [f"manifests/{name}.json" for name in ("infer@cot-1", "problems", "report")]
    assert copy.json("manifests/problems.json") == copy.json("manifests/local/problems.json")
    copy.commit()


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
