"""The grader on public data sets: a few rows of each layout everywhere, and whole sets where they are.
benchmarks/grading.py measures more of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import grading as benchmark
from whetstone.grading import extract, grade
from whetstone.grading import numbers as numbers_module

DATA = Path(os.environ.get("WHETSTONE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
published = pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are not here")
WRITTEN = Path(__file__).parents[1] / "fixtures/public"  # a few rows in the layout of each published file
BOTH = [pytest.param(WRITTEN, id="written"), pytest.param(DATA, id="published", marks=published)]


@pytest.mark.parametrize(
    ("data", "separators", "rows"), [(WRITTEN, 1, 38), pytest.param(DATA, 93, 26_000, marks=published)]
)
def test_every_gold_is_read_and_read_right(data: Path, separators: int, rows: int) -> None:
    table = benchmark.gold_parsing(data)
    assert [(row["set"], row["wrong"]) for row in table if row["wrong"] or row["parsed"] != row["rows"]] == []
    assert sum(row.get("thousands_separators", 0) for row in table) == separators
    assert sum(row["rows"] for row in table) >= rows and all(row["rows"] for row in table)


@published
def test_every_labelled_output_of_gsm8k_gets_its_label() -> None:
    labels = benchmark.gsm8k_labels(DATA)
    assert labels["outputs"] == 5276
    assert labels["differences"] == []


@published
def test_every_difference_from_published_readings_has_a_reason() -> None:
    cot = benchmark.chain_of_thought(DATA)
    assert [d for d in cot["verdicts"] + cot["readings"] if d["why"].startswith("the text ends")] == []
    assert all(abs(v["ours"] - v["published"]) < 0.025 for v in cot["files"].values())


@published
def test_gpt4_texts_on_aqua_reach_the_published_accuracy() -> None:
    folder = DATA / "model_outputs" / "program_of_thoughts"
    rows = benchmark.lines(folder / "aqua_gpt4_s0_e-1_03_31_22_24.jsonl")
    rows = [row for row in rows if "answer" in row]
    right = [grade(r["generated_prediction"], r["answer"], "choice", options=r["options"]) for r in rows]
    assert sum(v.verdict == "correct" for v in right) == 184  # 0.727 of 253


@published
def test_the_fast_path_changes_nothing_on_real_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = benchmark.numeric_pairs(DATA)
    usual = [extract(text) for text, _ in pairs]
    monkeypatch.setattr(numbers_module, "_fast", lambda text: None)
    assert [extract(text) for text, _ in pairs] == usual


@pytest.mark.parametrize("data", BOTH)
def test_math_golds_in_normal_form_stay_in_it(data: Path) -> None:
    rows = json.loads((data / "math" / "extracted_problems_and_answers.json").read_text())
    for row in rows:
        answer = extract(row["final_answer"], "math")
        if answer.value is not None:
            assert extract(answer.canonical, "math").canonical == answer.canonical
