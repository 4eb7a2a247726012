"""A user's mistake is one message that names the place and the remedy; exit code 1, no traceback, outs untouched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


def files(project) -> dict[str, bytes]:
    return {str(f.relative_to(project.folder)): f.read_bytes() for f in project.folder.glob("data/**/*.parquet")}


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("infer", "temprature", 0.7, "params.yaml: `infer.temprature` is unknown; .*did you mean `temperature`"),
        ("infer", "k", "two", "params.yaml: `infer.k` is 'two': Input should be a valid integer"),
        ("infer", "k", 0, "`infer.k` is 0: Input should be greater than or equal to 1"),
        ("sft", "learning_rat", 1e-3, "`sft.learning_rat` is unknown.*did you mean `learning_rate`"),
        ("sft", "epochs", 7, r"`sft`: exactly one of epochs \(7.*\) and max_steps \(120\)"),
        ("dpo", "loss", "orpo", "`dpo.loss` is 'orpo': Input should be 'sigmoid'"),
        ("sample", "explore", "sometimes", "`sample.explore` is 'sometimes'"),
        ("preprocess", "keep", "best", "`preprocess.keep` is 'best'"),
        ("problems", "world", None, "`problems`: give either `world`"),
        ("model", "name", "models/missing", "`model.name` is 'models/missing': no model there"),
        ("model", "name", "mistralai/Mistral-7B-v0.3", "`model.revision` is empty; pin mistralai"),
        ("epochs", "evaluate", ["epoch3"], "`epochs.evaluate` names epoch3, which `epochs.train` lacks"),
        ("epochs", "sample", [], "`epochs.sample` lacks epoch1, whose attempts epoch2 learns from"),
        ("dpo", "template", "chat", "`dpo.template` is chat, but epoch2 builds on epoch1, and `sft.template` is pl"),
        ("infer", "prompts", "other", "prompts/other/cot.yaml: no such prompt file"),
    ],
)
def test_parameters(project, section, key, value, message):
    project.params[section][key] = value
    project.save()
    output = project.run("check", fails=True)
    assert len(output.splitlines()) == 1
    assert pd.Series([output]).str.contains(message, regex=True).all(), output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft: [", "params.yaml: while parsing"),
        ("- 1\n", "expected sections with keys, found list"),
        ("sfft: {}\n", "unknown sections ['sfft']"),
        (None, "params.yaml: not found in"),
    ],
)
def test_a_params_file_that_is_none(project, text, message):
    path = project.folder / "params.yaml"
    path.unlink() if text is None else path.write_text(text)
    assert message in project.run("check", fails=True)


def test_the_shipped_parameters_pass(project):
    assert project.run("check") == ""


def test_an_old_name_in_the_list_of_strategies(project):
    project.params["strategies"] = ["cot", "sub"]
    project.save()
    assert "`strategies` has 'sub', the old name of 'l2m'" in project.run("check", fails=True)


def test_an_epoch_that_starts_from_nothing(project):
    project.params["epochs"]["train"]["epoch1"]["start"] = "epoch2"
    project.save()
    assert "`epochs.train.epoch1.start` is 'epoch2'; expected base" in project.run("check", fails=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "How many?"}, r"train.jsonl.*`answer`"),
        ({"question": "How many?", "answer": "a few"}, r"train.jsonl.*'a few'"),
    ],
)
def test_a_problem_file(problems, row, message):
    before = files(problems)
    rows = [{"question": "How many are 2 and 2?", "answer": "4"}, row]
    (problems.folder / "data/raw").mkdir()
    pd.Series(rows).to_json(problems.folder / "data/raw/train.jsonl", orient="records", lines=True)
    problems.params["problems"] |= {"world": None, "sources": [{"kind": "table", "path": "data/raw/train.jsonl"}]}
    problems.save()
    output = problems.run("problems", fails=True)
    assert pd.Series([output]).str.contains(message, regex=True).all(), output
    assert files(problems) == before


@pytest.mark.parametrize("path", ["train.jsonl", "/data/raw/train.jsonl", "data/raw/../train.jsonl", "data/raw"])
def test_a_problem_file_that_dvc_does_not_watch(project, path):
    project.params["problems"] |= {"world": None, "sources": [{"kind": "table", "path": path}]}
    project.save()
    assert f"`problems`: {path} isn't in data/raw" in " ".join(project.run("check", fails=True).split())


def test_an_evaluation_set_that_no_problem_is_in(project):
    project.params["datasets"] = ["test", "gsm8k"]
    project.save()
    assert "`datasets` asks for ['gsm8k'], but `problems` has ['dev', 'test'" in project.run("problems", fails=True)


def test_an_empty_training_set(problems):
    problems.run("infer", "--strategy", "cot", "--part", "1")
    problems.run("preprocess", "--epoch", "epoch1")
    before = files(problems)
    problems.solver.fails = lambda number, strategy: True
    (problems.folder / ".scratch").rename(problems.folder / "old-scratch")
    problems.run("infer", "--strategy", "cot", "--part", "1")
    attempts = len(pd.read_parquet(problems.folder / "data/attempts/base/cot-1.parquet"))
    output = problems.run("preprocess", "--epoch", "epoch1", fails=True)
    assert f"data/attempts/base: 0 of {attempts} attempts are correct" in output and "raise `k`" in output
    training = {name: data for name, data in files(problems).items() if "training" in name}
    assert training and training.items() <= before.items()


def test_an_epoch_without_pairs(tuned):
    tuned.solver.fails = lambda number, strategy: False
    tuned.run("sample", "--model", "epoch1", "--part", "3")
    output = tuned.run("preprocess", "--epoch", "epoch2", fails=True)
    assert "0 pairs from" in output and "preprocess.balance" in output
    assert not (tuned.folder / "data/training/epoch2").exists()


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        ("infer", ["--strategy", "cot", "--part", "1"], "data/problems/part-1.parquet: no such table"),
        ("infer", ["--strategy", "tot", "--part", "1"], "unknown strategy 'tot'"),
        ("preprocess", ["--epoch", "epoch1"], "data/attempts/base: no such table"),
        ("preprocess", ["--epoch", "epoch9"], "`epochs.train` has no 'epoch9', but epoch1, epoch2"),
        ("sft", ["--epoch", "epoch1"], "data/training/epoch1/sft.parquet: no such table"),
        ("sft", ["--epoch", "epoch2"], "`epochs.train.epoch2.trainer` is dpo; run stages.dpo"),
        ("dpo", ["--epoch", "epoch2"], "models/epoch1/merged: no model there.*dvc repro merge@epoch1"),
        ("report", [], "data/evaluation/base-test.parquet: no such table"),
    ],
)
def test_what_a_stage_needs_is_named_with_what_makes_it(project, stage, arguments, message):
    output = project.run(stage, *arguments, fails=True)
    assert pd.Series([output]).str.contains(message, regex=True).all(), output


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [("sample", ["--model", "epoch1", "--part", "3"]), ("evaluate", ["--checkpoint", "epoch1", "--dataset", "test"])],
)
def test_a_missing_model(problems, stage, arguments):
    before = files(problems)
    assert "models/epoch1/merged: no model there" in problems.run(stage, *arguments, fails=True)
    assert files(problems) == before


def test_errors_come_before_torch_and_without_a_traceback(project):
    """In a process of its own, as DVC runs it."""
    project.params["sft"]["batch_sise"] = 4
    project.save()
    code = (
        "import sys, runpy; sys.argv = ['sft', '--epoch', 'epoch1']\n"
        "try: runpy.run_module('stages.sft', run_name='__main__')\n"
        "finally: print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1 and done.stdout.split() == ["False", "False"]
    expected = "`sft.batch_sise` is unknown; remove it or correct its name (did you mean `batch_size`?)"
    assert done.stderr == f"Error: params.yaml: {expected}\n"


def test_stages_start_without_the_heavy_libraries():
    names = ("problems", "preprocess", "report", "infer", "sample", "sft", "dpo", "merge", "evaluate")
    modules = [*(f"stages.{name}" for name in names), "tools.check"]
    code = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    for heavy in {"torch", "transformers", "trl", "scipy", "jinja2", "vl_convert"} & set(sys.modules):
        print(module, "imports", heavy)
"""
    command = [sys.executable, "-c", code, *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == ""
