"""Each stage with a scripted model: what goes in, what comes out, what is kept when it is run again."""

from __future__ import annotations

import json
from collections import Counter

import pandas as pd
import pytest

from whetstone import records

PARTS = [1, 2]
STRATEGIES = ["cot", "l2m", "pot"]


def infer_all(project) -> None:
    for strategy in STRATEGIES:
        for part in PARTS:
            project.run("infer", "--strategy", strategy, "--part", str(part))


def snapshot(project) -> dict[str, bytes]:
    outs = [*project.folder.glob("data/**/*.parquet"), *project.folder.glob("metrics/**/*.json")]
    return {str(file.relative_to(project.folder)): file.read_bytes() for file in outs}


# --- problems


def test_problems_are_dealt_into_parts_and_splits(problems):
    parts = [problems.read(f"data/problems/part-{n}.parquet", records.PROBLEM) for n in range(1, 6)]
    assert sum(map(len, parts)) == 60
    assert all(set(part["part"]) == {n} and set(part["split"]) == {"train"} for n, part in enumerate(parts, 1))
    for name, size in (("dev", 6), ("test", 18), ("test_hard", 6)):
        own = problems.read(f"data/problems/{name}.parquet", records.PROBLEM)
        assert len(own) == size and set(own["split"]) == {name} and set(own["part"]) == {0}


def test_the_same_parameters_give_the_same_bytes(problems):
    before = snapshot(problems)
    problems.run("problems")
    assert snapshot(problems) == before


def test_problems_from_data_sets(project):
    rows = [
        {"question": f"Tom has {n} hats and buys {n + 1} more. How many hats?", "answer": 2 * n + 1} for n in range(90)
    ]
    train = pd.DataFrame(rows[:80])
    train.loc[len(train)] = rows[85]  # a test question among the training ones
    raw = project.folder / "data/raw"
    raw.mkdir(parents=True)
    train.to_json(raw / "train.jsonl", orient="records", lines=True)
    pd.DataFrame(rows[80:]).to_json(raw / "test.jsonl", orient="records", lines=True)
    sources = [{"kind": "table", "path": f"data/raw/{split}.jsonl", "split": split} for split in ("train", "test")]
    project.params["problems"] |= {"world": None, "sources": sources, "dev_share": 0.2}
    project.params["datasets"] = ["test"]
    project.save()
    output = project.run("problems")
    tables = {name: project.read(f"data/problems/{name}.parquet", records.PROBLEM) for name in ("dev", "test")}
    train = pd.concat([project.read(f"data/problems/part-{n}.parquet", records.PROBLEM) for n in range(1, 6)])
    assert len(tables["test"]) == 10 and len(train) + len(tables["dev"]) == 80
    assert not set(tables["test"]["question"]) & set(train["question"])
    assert "overlap (test 1)" in output


# --- infer


def test_few_shot_attempts_are_graded_and_named(problems):
    problems.params["infer"]["k"] = 2
    problems.save()
    problems.run("infer", "--strategy", "pot", "--part", "1")
    attempts = problems.read("data/attempts/base/pot-1.parquet", records.ATTEMPT)
    part = problems.read("data/problems/part-1.parquet", records.PROBLEM)
    assert (
        len(attempts) == 2 * len(part) and set(attempts["strategy"]) == {"pot"} and set(attempts["sample"]) == {0, 1}
    )
    assert attempts["probability"].isna().all() and set(attempts["turn"]) == {1}
    numbers = attempts["problem_id"].str.extract(r"(\d+)$")[0].astype(int)
    expected = ["wrong" if problems.solver.fails(n, "pot") else "correct" for n in numbers]
    assert list(attempts["verdict"]) == expected
    assert set(attempts["id"]) == {f"base:{p}:pot:{s}" for p in part["id"] for s in (0, 1)}


def test_the_old_name_of_least_to_most(problems):
    problems.run("infer", "--strategy", "sub", "--part", "1")
    assert set(problems.read("data/attempts/base/l2m-1.parquet", records.ATTEMPT)["strategy"]) == {"l2m"}


def test_a_rerun_samples_nothing_and_writes_the_same_bytes(problems):
    problems.run("infer", "--strategy", "cot", "--part", "1")
    before, calls = snapshot(problems), problems.solver.calls
    problems.run("infer", "--strategy", "cot", "--part", "1")
    assert snapshot(problems) == before and problems.solver.calls == calls


def test_a_longer_run_pays_only_for_what_is_new(problems):
    problems.run("infer", "--strategy", "cot", "--part", "1")
    calls = problems.solver.calls
    problems.params["infer"]["k"] = 3
    problems.save()
    problems.run("infer", "--strategy", "cot", "--part", "1")
    assert problems.solver.calls == 3 * calls


def test_prompts_are_shown_without_an_engine(problems):
    output = problems.run("infer", "--strategy", "pot", "--part", "1", "--show-prompt", "2")
    assert output.count("Question: ") == 2 * (2 + 1) and problems.solver.calls == 0
    assert not (problems.folder / "data/attempts").exists()


# --- preprocess


def test_attempts_become_examples_pairs_and_statistics(problems):
    infer_all(problems)
    problems.run("preprocess", "--epoch", "epoch1")
    examples = problems.read("data/training/epoch1/sft.parquet", records.EXAMPLE)
    pairs = problems.read("data/training/epoch1/dpo.parquet", records.PAIR)
    statistics = json.loads((problems.folder / "metrics/preprocess/epoch1.json").read_text())
    asked = sum(len(problems.read(f"data/problems/part-{n}.parquet", records.PROBLEM)) for n in PARTS)
    assert len(examples) == asked == statistics["problems"]  # each problem fails in one strategy only
    assert statistics["coverage"] == 1 and statistics["attempts"] == 3 * asked
    known = set(problems.read("data/attempts/base", records.ATTEMPT)["id"])
    assert {one for ids in [*examples["attempt_ids"], *pairs["attempt_ids"]] for one in ids} <= known
    assert all("-99" not in text for text in examples["completion"])
    assert all("-99" in text for text in pairs["rejected"]) and len(pairs) > 0


def test_tables_of_earlier_parameters_are_left_out(problems):
    infer_all(problems)
    problems.params |= {"strategies": ["cot", "l2m"], "infer_parts": [2]}
    problems.save()
    output = problems.run("preprocess", "--epoch", "epoch1")
    assert "data/attempts/base: cot-1, l2m-1, pot-1, pot-2 left out; params.yaml asks for cot-2, l2m-2" in output
    pairs = problems.read("data/training/epoch1/dpo.parquet", records.PAIR)
    ids = {one for row in pairs["attempt_ids"] for one in row}
    expected = [problems.read(f"data/attempts/base/{name}-2.parquet", records.ATTEMPT) for name in ("cot", "l2m")]
    assert ids and ids <= {one for table in expected for one in table["id"]}


# --- sample


def test_a_tuned_model_chooses_and_switches(tuned):
    tuned.solver.choice = {" steps": 0.6, " questions": 0.1, " program": 0.3}
    tuned.run("sample", "--model", "epoch1", "--part", "3")
    attempts = tuned.read("data/attempts/epoch1/part-3.parquet", records.ATTEMPT)
    for _, episode in attempts.sort_values("turn").groupby(["problem_id", "sample"]):
        verdicts = list(episode["verdict"])
        assert "correct" not in verdicts[:-1] and verdicts[-1] == "correct"  # it stops at the first success
        assert episode["strategy"].is_unique and list(episode["turn"]) == list(range(1, len(episode) + 1))
    first = attempts[attempts["turn"] == 1]
    assert list(first["probability"]) == pytest.approx(
        [{"cot": 0.6, "l2m": 0.1, "pot": 0.3}[s] for s in first["strategy"]]
    )
    second = attempts[attempts["turn"] == 2]
    assert len(second) and all(second["probability"] > 0.1)


def test_exploring_tries_every_strategy_and_changes_no_attempt(tuned):
    tuned.run("sample", "--model", "epoch1", "--part", "3")
    short = tuned.read("data/attempts/epoch1/part-3.parquet", records.ATTEMPT).set_index("id")
    tuned.params["sample"]["explore"] = "all_strategies"
    tuned.save()
    tuned.run("sample", "--model", "epoch1", "--part", "3")
    full = tuned.read("data/attempts/epoch1/part-3.parquet", records.ATTEMPT).set_index("id")
    assert set(full.groupby(["problem_id", "sample"]).size()) == {3}
    pd.testing.assert_frame_equal(full.loc[short.index], short)


# --- baseline, evaluate, report


def test_the_baseline_is_every_strategy_and_the_untaught_choice(tuned):
    tuned.solver.choice = {" steps": 0.001, " questions": 0.002, " program": 0.003}  # tags are improbable
    output = tuned.run("baseline", "--dataset", "test")
    few_shot = tuned.read("data/evaluation/base-test.parquet", records.ATTEMPT)
    untaught = tuned.read("data/evaluation/base_zero_shot-test.parquet", records.ATTEMPT)
    assert Counter(few_shot["strategy"]) == {"cot": 18, "l2m": 18, "pot": 18}
    assert len(untaught) == 18 and untaught["probability"].isna().all()
    metrics = json.loads((tuned.folder / "metrics/evaluation/base-test.json").read_text())
    assert metrics["forced"]["cot"]["accuracy"] == pytest.approx(2 / 3) and metrics["oracle"]["accuracy"] == 1
    choice = metrics["zero_shot"]["choice"]
    assert choice["free_completions"] == 1 and choice["first"]["pot"] == 1 and choice["mean_probability"]["pot"] == 0.5
    assert "66.7 %" in output


def test_evaluation_is_the_forced_strategies_in_the_order_of_preference(tuned):
    tuned.run("evaluate", "--checkpoint", "epoch1", "--dataset", "test")
    attempts = tuned.read("data/evaluation/epoch1-test.parquet", records.ATTEMPT)
    assert len(attempts) == 3 * 18
    order = attempts.sort_values(["problem_id", "turn"]).groupby("problem_id")["strategy"].agg(list)
    assert all(one == ["cot", "pot", "l2m"] for one in order)
    metrics = json.loads((tuned.folder / "metrics/evaluation/epoch1-test.json").read_text())
    assert metrics["first_attempt"] == metrics["forced"]["cot"] and metrics["selection_gain"]["value"] == 0
    assert metrics["choice"]["first"]["cot"] == 1 and metrics["oracle"]["accuracy"] == 1


@pytest.mark.slow
def test_the_report_has_every_checkpoint_and_comparison(tuned):
    infer_all(tuned)
    for epoch in ("epoch1", "epoch2"):
        if epoch == "epoch2":
            for part in (3, 4, 5):
                tuned.run("sample", "--model", "epoch1", "--part", str(part))
        tuned.run("preprocess", "--epoch", epoch)
    for dataset in ("test", "test_hard"):
        tuned.run("baseline", "--dataset", dataset)
        tuned.run("evaluate", "--checkpoint", "epoch1", "--dataset", dataset)
        tuned.solver.fails = lambda number, strategy: False  # epoch 2 has learned everything
        tuned.run("evaluate", "--checkpoint", "epoch2", "--dataset", dataset)
        tuned.solver.fails = type(tuned.solver)(tuned).fails
    tuned.run("report")
    summary = json.loads((tuned.folder / "metrics/summary.json").read_text())
    assert summary["dataset"] == "test" and summary["problems"] == 18
    assert summary["base"]["best_single"]["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert summary["epoch1"]["first_attempt"]["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert summary["epoch2"]["first_attempt"]["accuracy"] == 1
    step = summary["comparisons"]["epoch2 vs epoch1"]
    assert (step["wins"], step["losses"], step["n"]) == (6, 0, 18) and step["p_value"] == 2 / 2**6
    assert set(summary["comparisons"]) == {"epoch1 vs base", "epoch2 vs base", "epoch2 vs epoch1"}
    assert summary["others"]["test_hard"]["problems"] == 6
    page = (tuned.folder / "report/index.html").read_text()
    assert "epoch2 by dpo" in page and (tuned.folder / "report/attempts/000.js").stat().st_size > 1000
    assert "100.0 (" in (tuned.folder / "report/headline.md").read_text()
    assert "Accuracy by family" in (tuned.folder / "report/report.md").read_text()
    plot = pd.read_csv(tuned.folder / "plots/accuracy.csv")
    assert {"dataset", "outcome", "accuracy", "low", "high", "n"} == set(plot.columns)
