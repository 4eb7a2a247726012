"""SMART's table of results: what its controls are, and what its numbers say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from benchmarks import controls, loops, smart
from whetstone import strategies
from whetstone.errors import UserError
from whetstone.evaluation.intervals import wilson
from whetstone.grading.attempts import grade_attempts

ROOT = Path(__file__).parents[2]
NAMES = ("cot", "l2m", "pot")


@pytest.fixture(scope="module")
def params() -> dict:
    return YAML(typ="safe").load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def attempts() -> pd.DataFrame:
    """Of 90 problems in each strategy; which one is right depends on the problem."""
    return pd.DataFrame(
        {
            "id": f"base:p{p:02}:{name}:0",
            "problem_id": f"p{p:02}",
            "strategy": name,
            "sample": 0,
            "text": f"solution {name} of {p}",
            "verdict": "correct" if NAMES[p % 3] == name else "wrong",
        }
        for p in range(90)
        for name in NAMES
    )


@pytest.fixture(scope="module")
def examples(attempts) -> pd.DataFrame:
    right = attempts[attempts["verdict"] == "correct"]
    return pd.DataFrame(
        {
            "id": [f"{one.problem_id}:{one.strategy}" for one in right.itertuples()],
            "problem_id": right["problem_id"].to_list(),
            "strategy": right["strategy"].to_list(),
            "prompt": [strategies.trained_prompt(f"How much is {one}?") for one in right["problem_id"]],
        }
    )


def test_permuted_strategies_keep_problems_and_shares_and_lose_what_fits_where(examples, attempts):
    made = controls.shuffled(examples, attempts, seed=0)
    assert sorted(made["problem_id"]) == sorted(examples["problem_id"])
    assert Counter(made["strategy"]) == Counter(examples["strategy"])
    right = attempts[attempts["verdict"] == "correct"].set_index("problem_id")["strategy"]
    share = (right[made["problem_id"]].to_numpy() == made["strategy"].to_numpy()).mean()
    assert 0.2 < share < 0.47  # a third by chance
    assert made.equals(controls.shuffled(examples, attempts, seed=0))
    assert not made.equals(controls.shuffled(examples, attempts, seed=1))


def test_a_permuted_strategy_comes_with_the_models_own_attempt_in_it(examples, attempts):
    texts = attempts.set_index(["problem_id", "strategy"])["text"]
    for one in controls.shuffled(examples, attempts, seed=0).itertuples():
        assert one.completion == strategies.trained_completion(one.strategy, texts[one.problem_id, one.strategy])
        assert one.prompt == strategies.trained_prompt(f"How much is {one.problem_id}?")


def test_equal_data_is_so_many_rows_and_an_error_where_there_are_fewer(examples):
    some = controls.limited(examples, 40, seed=0)
    assert len(some) == 40 and set(some["id"]) < set(examples["id"])
    assert set(some["id"]) != set(controls.limited(examples, 40, seed=1)["id"])
    with pytest.raises(UserError, match="90 examples, 91 asked for"):
        controls.limited(examples, 91, seed=0)


def votes(**answers: str) -> pd.DataFrame:
    """`p="7 7 8? -"`: answers of a problem, `!` after a right one, `-` for one that couldn't be read."""
    rows = [(problem, word) for problem, words in answers.items() for word in words.split()]
    return pd.DataFrame(
        {
            "problem_id": [problem for problem, _ in rows],
            "answer": [None if word == "-" else word.rstrip("!") for _, word in rows],
            "verdict": ["correct" if word.endswith("!") else "wrong" for _, word in rows],
        }
    )


def test_the_majority_is_the_most_frequent_answer_that_could_be_read():
    found = controls.majority(votes(a="7! 8 7!", b="8 8 7!", c="7! - -", d="- -"))
    assert found.to_dict() == {"a": True, "b": False, "c": True, "d": False}


def test_answers_that_tie_are_drawn():
    found = controls.majority(votes(**{f"p{number}": "7! 8 9" for number in range(300)}))
    assert 0.25 < found.mean() < 0.42


def test_the_router_learns_which_words_go_with_which_strategy():
    asked = [f"{('A shop', 'A clock', 'A road')[n % 3]} has {10**n % 997} things. How many {n}?" for n in range(120)]
    right = pd.DataFrame({name: [n % 3 == i for n in range(120)] for i, name in enumerate(NAMES)})
    router = controls.Router(asked[:90], right[:90])
    assert router.choose(["A shop that is new", "That clock", "My road"]) == ["cot", "l2m", "pot"]
    assert router.choose(asked[90:]) == [NAMES[n % 3] for n in range(90, 120)]


def test_the_router_sees_how_large_a_number_is_not_which():
    right = pd.DataFrame({"cot": [True, False] * 40, "pot": [False, True] * 40})
    router = controls.Router([f"Add {n % 9 + 1 if n % 2 == 0 else 1000 + n}." for n in range(80)], right)
    assert router.choose(["Add 5.", "Add 7777."]) == ["cot", "pot"]


class Stub:
    """Five seeds of a tuned model and one base model on ten problems."""

    groups = {"test": [f"g{n}" for n in range(10)]}
    tokens = {"test": {"base": 9.0, "tuned": 7.0}}
    right = {
        "test": {
            "base": np.array([[True] * 6 + [False] * 4]),
            "tuned": np.array([[True] * 9 + [False]] * 5),
        }
    }


def test_the_base_model_is_one_result_however_many_seeds_there_are():
    found = smart.accuracies(Stub, "test", np.ones(10, dtype=bool))
    alone = wilson(6, 10)
    assert (found["base"]["correct"], found["base"]["n"]) == (6, 10)
    assert [found["base"][end] for end in ("low", "high")] == pytest.approx([alone["low"], alone["high"]])
    assert smart._row("base", found["base"]) == "| base | 60.0 % (31.3-83.2) | one result | 9 |"


def test_a_problem_under_several_seeds_counts_once_in_a_comparison():
    found = smart.compared(Stub, "test", "tuned", "base")
    assert found["groups"] == 10 and found["p_value"] == pytest.approx(0.25)  # three problems, all for the new model
    assert found["p_values"] == [pytest.approx(0.25)] * 5


def test_problems_with_the_same_numbers_are_one_cluster():
    class Twins(Stub):
        groups = {"test": [f"g{n // 2}" for n in range(10)]}

    apart, together = (smart.accuracies(one, "test", np.ones(10, dtype=bool))["base"] for one in (Stub, Twins))
    assert together["low"] < apart["low"] and together["high"] > apart["high"]


def test_the_headlines_world_is_none_that_was_looked_at(params):
    assert params["problems"]["world"]["seed"] not in smart.LOOKED_AT
    page = (ROOT / "docs/decisions.md").read_text()
    told = page.partition("## Which worlds were looked at")[2].partition("\n## ")[0]
    for seed in (*smart.LOOKED_AT, params["problems"]["world"]["seed"]):
        assert f"| {seed} |" in told or f"| {seed}, " in told


def test_controls_train_as_long_and_single_strategies_on_as_many_rows_as_smart(params):
    runs = smart.variants(params, literal=False)
    for name, changes in runs.items():
        assert not any(key.startswith(("sft", "dpo", "problems")) for key in changes), name
    assert all(runs[f"only_{name}"]["strategies"] == [name] for name in params["strategies"])
    steps = {trainer: params[trainer]["max_steps"] for trainer in ("sft", "dpo")}
    assert steps[params["epochs"]["train"]["epoch2"]["trainer"]] <= min(steps["sft"], steps["dpo"])


def test_a_control_follows_its_stage_and_a_stage_can_be_added(tmp_path):
    graph = tmp_path / "dvc.yaml"
    graph.write_text((ROOT / "dvc.yaml").read_text())
    shuffled = "python -m benchmarks.controls shuffled --epoch ${key}"
    loops.set_command(graph, "preprocess", f"{{own}} && {shuffled}", "benchmarks/controls.py")
    loops.add_stage(graph, "votes", controls.votes_stage("test", 3))
    stages = YAML(typ="safe").load(graph)["stages"]
    assert stages["preprocess"]["do"]["cmd"] == f"python -m stages.preprocess --epoch ${{key}} && {shuffled}"
    assert "benchmarks/controls.py" in stages["preprocess"]["do"]["deps"]
    assert stages["votes"]["cmd"].endswith("--seed 3") and stages["votes"]["outs"] == ["data/votes/test.parquet"]


def test_results_name_commit_versions_and_processor(tmp_path, capsys):
    results, readme = tmp_path / "results.json", tmp_path / "README.md"
    readme.write_text(f"before\n{loops.BEGIN}\nold\n{loops.END}\nafter\n")
    loops.publish({"seeds": [0]}, results, "| new |", readme)
    found = json.loads(results.read_text())
    assert len(found["revision"]) >= 7 and found["seeds"] == [0]
    assert {"python", "torch", "transformers"} <= set(found["versions"])
    assert " x " in found["device"]
    assert readme.read_text() == f"before\n{loops.BEGIN}\n| new |\n{loops.END}\nafter\n"


def test_votes_are_graded_like_any_attempt():
    (one,) = grade_attempts(["3 + 4 = 7. The answer is 7."], ["cot"], ["7"], ["number"], finish_reasons=["stop"])
    assert one.answer == "7"  # what `majority` counts is canonical text
