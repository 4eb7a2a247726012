"""Rows are counted: what a step lost is what the next one lacks."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest

from whetstone.report import flow
from whetstone.report import run as runs


@pytest.mark.parametrize("epoch", ["epoch1", "epoch2"])
def test_each_step_is_the_one_before_less_what_was_lost(run, epoch):
    own = run.epochs[epoch]
    steps = flow.data_flow(own.statistics, own.trained, own.trainer, own.rows)
    for before, after in pairwise(steps):
        if after["unit"] in (before["unit"], "examples"):
            assert before["count"] - sum(after["lost"].values()) == after["count"], after["title"]
    kept = next(step for step in steps if step["unit"] in ("examples", "pairs"))
    assert kept["count"] == len(own.rows)
    assert all(n > 0 for step in steps for n in step["lost"].values())


def test_pairs_left_out_are_counted(run):
    own = run.epochs["epoch2"]
    dropped = own.statistics["dropped"] | {"pairs_to_balance": 5}
    steps = flow.data_flow(own.statistics | {"dropped": dropped}, own.trained, "dpo", own.rows)
    paired, balanced = (step for step in steps if step["unit"] == "pairs")
    assert paired["count"] - 5 == balanced["count"] and balanced["lost"] == {"left out to balance": 5}


def test_tokens_are_those_of_the_attempts(run):
    rows = {row["name"]: row for row in flow.token_rows(run.evaluated, {"epoch1": 5000})}
    own = run.datasets["test"]["epoch1"]
    assert rows["data/evaluation/epoch1-test.parquet"]["generated"] == own["completion_tokens"].sum()
    assert rows["models/epoch1/adapter"] == {
        "name": "models/epoch1/adapter", "attempts": None, "prompt": None, "generated": None, "trained": 5000,
    }  # fmt: skip


def test_unknown_tokens_are_not_zero(run):
    own = run.datasets["test"]["epoch1"].assign(completion_tokens=None)
    assert flow.token_rows({"imported": own}, {})[0]["generated"] is None


def test_lineage_names_files_as_dvc_does(run):
    tables = {**run.problems, **runs.training_tables(run), **run.evaluated}
    rows = {row["path"]: row for row in flow.lineage(tables, run.root)}
    path = "data/evaluation/epoch1-test.parquet"
    assert rows[path]["md5"] == hashlib.md5((run.root / path).read_bytes()).hexdigest()
    assert rows[path]["engines"] == ["scripted:epoch1"] and rows[path]["rows"] == len(run.evaluated[path])
    assert rows["data/problems/test.parquet"]["engines"] == []
