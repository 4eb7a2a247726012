"""Completions made elsewhere become attempts like our own; three published systems on GSM8K go all the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from benchmarks import real_outputs
from whetstone import records
from whetstone.curation.imported import CompletionsSpec, load
from whetstone.errors import UserError
from whetstone.problems.splits import group_of

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("WHETSTONE_DATA", ROOT / ".." / "shared" / "data"))


def problems(*questions: tuple[str, str], **other) -> pd.DataFrame:
    rows = [
        {"id": f"p{n}", "question": question, "answer": answer, "task": "number", "source": "test",
         "group": group_of(question), "split": "train", "part": 1, "family": None, "level": None,
         "options": None} | other
        for n, (question, answer) in enumerate(questions)
    ]  # fmt: skip
    return pd.DataFrame(rows)


PROBLEMS = problems(("Ivo has 2 pens and buys 1,000. How many?", "1002"), ("Lea has no pen. How many?", "0"))
ROWS = [
    {"problem_id": "p0", "strategy": "cot", "text": "2 + 1000 = 1002. The answer is 1,002."},
    {"question": "Ivo has 2 pens, and buys 1000 . How many ?", "strategy": "sub", "text": "Sub-question 1: ?\nA: 12"},
    {"question": "LEA HAS NO PEN. HOW MANY?", "strategy": "pot", "text": ["answer = 0", "answer = 1/0", "answer = ("]},
    {"problem_id": "p1", "strategy": "cot", "text": "It can't be told.", "completion_tokens": 9},
    {"problem_id": "p1", "strategy": "cot", "text": "The answer is 0", "finish_reason": "length"},
]


def written(tmp_path: Path, rows: list[dict], name: str = "completions.jsonl") -> str:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_completions_are_matched_graded_and_numbered(tmp_path):
    attempts = load(CompletionsSpec(path=written(tmp_path, ROWS), model="other"), PROBLEMS)
    told = attempts[["problem_id", "strategy", "sample", "answer", "verdict", "error"]].to_numpy().tolist()
    assert told == [
        ["p0", "cot", 0, "1002", "correct", None],
        ["p0", "l2m", 0, "12", "wrong", None],  # by its question, under its old name
        ["p1", "pot", 0, "0", "correct", None],  # a list holds the samples
        ["p1", "pot", 1, None, "unparsed", "exception"],
        ["p1", "pot", 2, None, "unparsed", "syntax"],
        ["p1", "cot", 0, None, "unparsed", "no_answer"],
        ["p1", "cot", 1, None, "unparsed", "truncated"],
    ]
    assert attempts["id"][4] == "other:p1:pot:2"
    assert set(attempts["turn"]) == {1}
    assert set(attempts["seed"]) == {None}
    assert attempts["completion_tokens"][5] == 9
    assert attempts.attrs["counts"] == {"read": 5, "unmatched": 0, "kept": 7}
    assert records.table(attempts, records.ATTEMPT).num_rows == 7


def test_they_are_written_and_read_like_our_own(tmp_path):
    attempts = load(CompletionsSpec(path=written(tmp_path, ROWS), model="other"), PROBLEMS)
    records.write(attempts, records.ATTEMPT, tmp_path / "attempts.parquet")
    assert set(records.read(tmp_path / "attempts.parquet", records.ATTEMPT)["engine"]) == {attempts["engine"][0]}
    again = load(CompletionsSpec(path=written(tmp_path, ROWS[:1]), model="other"), PROBLEMS)
    assert again["engine"][0] != attempts["engine"][0]  # the file's content names the engine


def test_columns_may_have_other_names_and_one_strategy_serves_a_whole_file(tmp_path):
    rows = [{"idx": "p0", "generated": "The answer is 1002."}, {"idx": "p1", "generated": "The answer is 3."}]
    path = written(tmp_path, rows, "c.parquet")
    columns = {"problem_id": "idx", "text": "generated"}
    attempts = load(CompletionsSpec(path=path, model="other", strategy="cot", columns=columns), PROBLEMS)
    assert attempts["verdict"].tolist() == ["correct", "wrong"]


def test_a_choice_is_graded_against_the_options(tmp_path):
    asked = problems(("Which is a fruit?", "B"), task="choice", options=["a stone", "a pear"])
    texts = ("The answer is (B).", "The answer is A.")
    rows = [{"problem_id": "p0", "strategy": "cot", "text": text} for text in texts]
    attempts = load(CompletionsSpec(path=written(tmp_path, rows), model="other"), asked)
    assert attempts["verdict"].tolist() == ["correct", "wrong"]


def test_unmatched_rows_are_dropped_and_counted_where_asked(tmp_path):
    rows = [*ROWS, {"question": "Who?", "strategy": "cot", "text": "The answer is 1."}]
    source = CompletionsSpec(path=written(tmp_path, rows), model="other", unmatched="drop")
    assert load(source, PROBLEMS).attrs["counts"] == {"read": 6, "unmatched": 1, "kept": 7}


TWICE = problems(("How many?", "1"), ("how many", "2"))


@pytest.mark.parametrize(
    ("rows", "asked", "message"),
    [
        ([ROWS[0], {**ROWS[0], "problem_id": "p9"}, {"question": "Who?", "strategy": "cot", "text": ""}], PROBLEMS,
         r"2 of 3 completions match none of the 2 problems, the first at .*row 2; load the data set"),
        ([{**ROWS[0], "strategy": s} for s in ("cot", "tot", "got", "tot")], PROBLEMS,
         r"unknown strategies: 'got' in 1 rows, 'tot' in 2 rows; known: cot, l2m, pot, sub"),
        ([{"question": "How many?", "strategy": "cot", "text": "1"}], TWICE, r"that of 2 problems \(p0, p1\)"),
        ([{"strategy": "cot", "text": "1"}], PROBLEMS, r"row 1: neither `problem_id` nor `question` in strategy"),
        ([{"problem_id": "p0", "text": "1"}], PROBLEMS, r"row 1: no `strategy` in problem_id, text; name it"),
        ([{**ROWS[0], "text": None}], PROBLEMS, r"row 1: `text` is None, expected a text"),
        ([{**ROWS[0], "text": []}], PROBLEMS, r"row 1: `text` is \[\], expected a text"),
        ([{**ROWS[0], "finish_reason": "eos"}], PROBLEMS, r"row 1: finish_reason is 'eos', expected `stop` or"),
        ([], PROBLEMS, r"completions.jsonl: no rows"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_rows(tmp_path, rows, asked, message):
    with pytest.raises(UserError, match=message):
        load(CompletionsSpec(path=written(tmp_path, rows), model="other"), asked)


def test_even_where_unmatched_rows_may_be_dropped_one_must_match(tmp_path):
    path = written(tmp_path, [{"question": "Who?", "strategy": "cot", "text": "1"}])
    with pytest.raises(UserError, match="1 of 1 completions match none"):
        load(CompletionsSpec(path=path, model="other", unmatched="drop"), PROBLEMS)


def test_an_unknown_column_of_ours_is_refused():
    with pytest.raises(ValidationError, match="columns"):
        CompletionsSpec(path="a.jsonl", model="other", columns={"completion": "x"})


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
