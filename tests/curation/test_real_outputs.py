"""Completions of three published systems on GSM8K, graded and curated like our own attempts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import real_outputs

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("WHETSTONE_DATA", ROOT / ".." / "shared" / "data"))


WRITTEN = ROOT / "tests/fixtures/public"


def test_rows_in_the_layouts_of_the_three_systems_are_matched_graded_and_curated():
    results, sft, dpo = real_outputs.measure(WRITTEN)
    right = {name: one["correct"] for name, one in results["systems"].items()}
    assert right == {"cot": 1, "pot": 2, "tora": 1, "tora_program": 1}
    assert all(one["attempts"] == 2 for one in results["systems"].values())
    assert {cell for cell, count in results["matrix"].items() if count} == {
        "cot=right pot=right tora=wrong", "cot=wrong pot=right tora=right"}  # fmt: skip
    assert (results["oracle"]["correct"], results["best_single"]["system"]) == (2, "pot")
    for one in results["systems"].values():
        assert one["authors"]["only_we_say_correct"] == one["authors"]["only_they_say_correct"] == []
    program = "def broken():\n    return 50 / 4\n\nresult = broken()\nanswer = result"
    assert f" program:\n{program}" in set(sft["completion"])
    assert len(dpo) == results["preprocess"]["pairs"] > 0


@pytest.fixture(scope="module")
def real() -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    if not DATA.is_dir():
        pytest.skip(f"no public data sets in {DATA}")
    return real_outputs.measure(DATA)


MACHINE = {"gsm8k-test-00825"}  # a program of 40 million steps: whether it ends in time depends on the machine


def test_verdicts_on_real_outputs_are_the_published_ones_but_for_listed_rows(real):
    """3,956 outputs of three systems on GSM8K test; docs/real_outputs.md explains each difference."""
    systems = real[0]["systems"]
    assert [one["attempts"] for one in systems.values()] == [1319, 1318, 1319, 1319]
    for name, differing in {
        "cot": (["00265", "00266"], ["00309", "00436", "01119"]),
        "pot": ([], ["00825"]),
        "tora": ([], ["00098", "00288", "00760"]),
        "tora_program": (
            ["00146"], ["00037", "00041", "00088", "00587", "00687", "00789", "00837", "01001", "01314"]
        ),
    }.items():  # fmt: skip
        ours, theirs = ({f"gsm8k-test-{number}" for number in numbers} - MACHINE for numbers in differing)
        authors = systems[name]["authors"]
        assert set(authors["only_we_say_correct"]) - MACHINE == ours, name
        assert set(authors["only_they_say_correct"]) - MACHINE == theirs, name


def test_outcome_matrix_best_single_and_oracle_of_real_outputs(real):
    results = real[0]
    assert sum(results["matrix"].values()) == results["problems"] == 1319
    assert results["best_single"]["system"] == "tora"
    wrong = results["matrix"]["cot=wrong pot=wrong tora=wrong"]
    assert results["oracle"]["correct"] == 1319 - wrong
    assert results["oracle"]["correct"] > results["best_single"]["correct"]
    published = json.loads((ROOT / "benchmarks" / "results" / "real_outputs.json").read_text())
    for part in ("best_single", "oracle", "oracle_cot_pot"):
        assert abs(results[part]["correct"] - published[part]["correct"]) <= len(MACHINE)
    assert all(abs(results["matrix"][cell] - count) <= len(MACHINE) for cell, count in published["matrix"].items())


def test_real_outputs_become_sft_and_dpo_rows_of_right_solutions(real):
    results, sft, dpo = real
    statistics = results["preprocess"]
    assert (len(sft), len(dpo)) == (statistics["examples"], statistics["pairs"])
    assert len(sft) > 2000
    assert len(dpo) > 500
    assert sft["problem_id"].nunique() == 1319 - statistics["dropped"]["problems_unsolved"]
    assert sft.groupby("problem_id")["weight"].sum().round(9).unique().tolist() == [1.0]
    assert set(sft["strategy"]) == {"cot", "pot"}
    assert not sft["completion"].str.contains("```").any()
    assert statistics["pairs_by_strategy"]["cot>pot"] == statistics["pairs_by_strategy"]["pot>cot"]


def test_the_page_shows_the_measured_numbers():
    published = json.loads((ROOT / "benchmarks" / "results" / "real_outputs.json").read_text())
    assert real_outputs.tables(published) in (ROOT / "docs" / "real_outputs.md").read_text()
