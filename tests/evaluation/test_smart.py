"""The metrics of one checkpoint, by hand on four problems."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from whetstone.errors import UserError
from whetstone.evaluation.smart import (
    breakdown,
    choice_probabilities,
    few_shot_metrics,
    outcomes,
    policy_metrics,
    retries,
)

VERDICTS = {"+": "correct", "-": "wrong", "?": "unparsed"}


def policy(**problems: str) -> pd.DataFrame:
    """`p="pot?.8 cot+.5 l2m-1"`: strategies in policy order, each with its verdict and its renormalised probability;
    `cot+free` is a free completion, which has none."""
    rows = []
    for problem, episode in problems.items():
        for turn, word in enumerate(episode.split(), 1):
            strategy, mark, probability = word[:3], word[3], word[4:]
            rows.append(
                {
                    "problem_id": problem,
                    "strategy": None if strategy == "non" else strategy,
                    "turn": turn,
                    "probability": None if probability == "free" else float(probability),
                    "verdict": VERDICTS[mark],
                    "completion_tokens": 10 * turn,
                }
            )
    return pd.DataFrame(rows)


FOUR = policy(
    a="cot+0.5 l2m-0.8 pot-1",
    b="pot?0.6 cot-0.5 l2m+1",
    c="l2m-0.9 pot+0.9 cot+1",
    d="pot+0.8 cot?0.5 l2m-1",
)


def test_outcomes_of_every_problem():
    table = outcomes(FOUR)
    assert list(table["first"]) == [True, False, False, True]
    assert list(table["cot"]) == [True, False, True, False]
    assert list(table["l2m"]) == [False, True, False, False]
    assert list(table["pot"]) == [False, False, True, True]
    assert list(table["oracle"]) == [True] * 4


def test_the_headline_of_a_policy():
    found = policy_metrics(FOUR)
    assert found["first_attempt"]["accuracy"] == 0.5
    assert found["best_single"] | {"low": 0, "high": 0} == {
        "strategy": "cot", "accuracy": 0.5, "low": 0, "high": 0, "correct": 2, "n": 4,
    }  # fmt: skip
    assert found["oracle"]["accuracy"] == 1
    assert found["selection_gain"]["value"] == 0 and found["regret"]["value"] == 0.5
    assert found["selection_gain"]["low"] <= 0 <= found["selection_gain"]["high"]
    assert found["verdicts"] == {"correct": 2, "wrong": 1, "unparsed": 1}
    assert found["choice"]["first"] == {"cot": 0.25, "l2m": 0.25, "pot": 0.5, "none": 0}
    assert found["tokens"]["first_attempt"] == 10


def test_retries_without_the_gold_follow_unparsed_answers_only():
    found = retries(FOUR, lambda verdict: verdict == "unparsed")
    assert list(found["attempts"]) == [1, 2, 1, 1]  # b goes on after its program failed, c keeps its wrong answer
    assert list(found["right"]) == [True, False, False, True]
    assert list(found["tokens"]) == [10, 30, 10, 10]


def test_oracle_gated_retries_go_on_until_right():
    found = policy_metrics(FOUR)["retries"]
    assert found["oracle_gated"]["accuracy"] == 1 and found["oracle_gated"]["attempts"] == (1 + 3 + 2 + 1) / 4
    assert found["without_gold"]["accuracy"] == 0.5


def test_a_free_completion_is_the_first_attempt_and_its_strategy_is_not_tried_twice():
    attempts = policy(
        a="cot?free cot-0.4 pot+0.5 l2m-1",
        b="non?free pot+0.5 cot-0.8 l2m-1",
    )
    table = outcomes(attempts)
    assert list(table["first"]) == [False, False] and list(table["pot"]) == [True, True]
    assert list(retries(attempts, lambda verdict: verdict != "correct")["attempts"]) == [2, 2]
    choice = policy_metrics(attempts)["choice"]
    assert choice["free_completions"] == 1 and choice["first"] == {"cot": 0.5, "l2m": 0, "pot": 0, "none": 0.5}


def test_probabilities_are_recovered_from_the_renormalised_ones():
    pi = choice_probabilities(FOUR)
    assert pi.loc["a"].to_dict() == {"cot": 0.5, "l2m": pytest.approx(0.4), "pot": pytest.approx(0.1)}
    assert np.allclose(pi.sum(axis=1), 1)


def test_entropy_is_in_nats():
    uniform = policy(a=f"cot+{1 / 3} l2m+0.5 pot+1")
    assert policy_metrics(uniform)["choice"]["entropy_per_problem"] == pytest.approx(np.log(3))
    certain = policy(a="cot+1 l2m+1 pot+1")
    assert policy_metrics(certain)["choice"]["entropy_per_problem"] == 0


def test_few_shot_attempts_have_no_choice():
    attempts = FOUR.assign(probability=None, turn=1)
    found = few_shot_metrics(attempts)
    assert set(found) == {"problems", "best_single", "forced", "oracle", "tokens"}
    assert found["forced"]["pot"]["accuracy"] == 0.5 and found["problems"] == 4


def test_accuracy_by_family_and_level():
    problems = pd.DataFrame({"id": list("abcd"), "family": ["shop", "shop", "age", None], "level": [1, 2, 2, 1]})
    rows = {(r["group"], r["name"], r["outcome"]): (r["correct"], r["n"]) for r in breakdown(FOUR, problems)}
    assert rows["family", "shop", "first"] == (1, 2) and rows["family", "age", "pot"] == (1, 1)
    assert rows["level", "1", "cot"] == (1, 2) and rows["level", "2", "oracle"] == (2, 2)
    assert len(rows) == 4 * 5


@pytest.mark.parametrize(
    ("attempts", "message"),
    [
        (FOUR.drop(index=1), "1 attempts are missing, such as l2m on problem 'a'"),
        (pd.concat([FOUR, FOUR.iloc[:1]]), "two attempts of cot"),
        (FOUR.iloc[:0], "no attempt to evaluate"),
    ],
)
def test_an_incomplete_table_is_an_error(attempts, message):
    with pytest.raises(UserError, match=message):
        outcomes(attempts)


def test_tokens_that_a_server_did_not_tell_are_none_and_not_zero():
    untold = FOUR.astype({"completion_tokens": "Int64"})
    untold.loc[0, "completion_tokens"] = pd.NA
    found = policy_metrics(untold)
    assert found["tokens"] == {"first_attempt": None, "cot": None, "l2m": 22.5, "pot": 17.5}
    assert found["retries"]["oracle_gated"]["tokens"] is None
    assert found["retries"]["oracle_gated"]["attempts"] == policy_metrics(FOUR)["retries"]["oracle_gated"]["attempts"]
    assert few_shot_metrics(untold)["tokens"]["cot"] is None
