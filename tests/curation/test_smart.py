"""Attempts to training data, against tables written by hand and the shares that theory predicts."""

from __future__ import annotations

import random
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from whetstone import records
from whetstone.curation.order import strategy_order
from whetstone.curation.smart import Curation, curate
from whetstone.errors import UserError

SOLUTIONS = {
    "cot": "{0} and 3 make 5.\nFinal answer: 5",
    "l2m": "Sub-question 1: how many, {0}?\nAnswer to sub-question 1: 5\nFinal answer: 5",
    "pot": "# {0}\nanswer = 5",
}


def attempt(problem: str, strategy: str | None, verdict: str = "correct", sample: int = 0, **other) -> dict:
    text = SOLUTIONS.get(strategy, "{0}").format(f"{verdict}-{sample}")
    return {
        "id": f"base:{problem}:{strategy}:{sample}",
        "problem_id": problem,
        "model": "base",
        "strategy": strategy,
        "sample": sample,
        "turn": 1,
        "probability": None,
        "text": text,
        "answer": "5",
        "verdict": verdict,
        "rule": None,
        "error": None,
        "finish_reason": "stop",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "logprob": None,
        "prompt_hash": "p",
        "engine": "e",
        "seed": 0,
        **other,
    }


def matrix(**problems: str) -> pd.DataFrame:
    """`p1="+-?"`: cot correct, l2m wrong, pot unparsed on p1."""
    verdicts = {"+": "correct", "-": "wrong", "?": "unparsed"}
    return pd.DataFrame(
        [
            attempt(problem, strategy, verdicts[mark])
            for problem, marks in problems.items()
            for strategy, mark in zip(SOLUTIONS, marks, strict=True)
        ]
    )


def curated(attempts: pd.DataFrame, **options):
    questions = {p: f"What is {p}?" for p in attempts["problem_id"]}
    result = curate(attempts, questions, Curation(**{"balance": False, **options}))
    records.table(result.examples, records.EXAMPLE)
    records.table(result.pairs, records.PAIR)
    return result


def shares(attempts: pd.DataFrame, **options) -> dict[str, float]:
    return curated(attempts, **options).statistics["strategy_share"]


# --- stage 1, switching, biasing --------------------


def test_a_right_first_attempt_ends_the_episode():
    result = curated(matrix(p="+++"), first="l2m")
    assert [e["strategy"] for e in result.examples] == ["l2m"]
    assert result.statistics["solved_at_attempt"] == {"1": 1}


def test_a_failure_is_followed_by_strategies_not_tried_yet():
    result = curated(matrix(p="-+-"), first="cot")
    assert [e["strategy"] for e in result.examples] == ["l2m"]
    assert set(result.statistics["solved_at_attempt"]) <= {"2", "3"}


def test_a_later_success_is_taught_as_the_first_choice_without_a_trace_of_the_failures():
    (example,) = curated(matrix(p="--+"), first="cot").examples
    assert example["prompt"] == "Question: What is p?\nAnswer by"
    assert example["completion"] == " program:\n# correct-0\nanswer = 5"
    assert "wrong" not in example["prompt"] + example["completion"]
    assert example["attempt_ids"] == ["base:p:pot:0"]


def test_unsolved_problems_are_dropped_and_counted():
    result = curated(matrix(p="---", q="?-?", r="+--"))
    assert {e["problem_id"] for e in result.examples} == {"r"}
    assert result.statistics["dropped"]["problems_unsolved"] == 2
    assert result.statistics["coverage"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("limit", "kept"), [(1, []), (2, ["pot"]), (3, ["pot"])])
def test_the_attempt_limit(limit, kept):
    attempts = pd.concat([matrix(p="--+"), matrix(q="+--")])
    result = curated(attempts, first={"cot": 1.0, "pot": 1e-9}, max_attempts=limit)  # p: cot, then pot
    assert [e["strategy"] for e in result.examples if e["problem_id"] == "p"] == kept


def test_no_success_at_all_is_an_error_with_the_counts():
    with pytest.raises(UserError, match=r"0 of 6 attempts are correct .*\(5 wrong, 1 unparsed.*raise `k`"):
        curated(matrix(p="---", q="--?"))


def test_attempts_of_an_unknown_problem_are_an_error():
    with pytest.raises(UserError, match="1 problems .* such as 'p'"):
        curate(matrix(p="+++"), {"q": "What?"}, Curation())


# --- episodes that a tuned model sampled --------------------


def test_sampled_episodes_are_taken_as_they_are():
    attempts = pd.DataFrame(
        [
            attempt("p", "pot", "wrong", turn=1, probability=0.7),
            attempt("p", "cot", "correct", turn=2, probability=0.9),
            attempt("p", "l2m", "correct", turn=3, probability=1.0),  # explored after the success
            attempt("p", "l2m", "correct", sample=1, turn=1, probability=0.1),
        ]
    )
    result = curated(attempts)
    assert sorted((e["strategy"], e["weight"]) for e in result.examples) == [("cot", 0.5), ("l2m", 0.5)]
    assert result.statistics["solved_at_attempt"] == {"1": 1, "2": 1}


def test_one_problem_weighs_one_however_many_solutions_it_has():
    attempts = pd.DataFrame([attempt("p", "cot", sample=s, text="5.\nFinal answer: 5") for s in range(3)])
    attempts = pd.concat([attempts, pd.DataFrame([attempt("p", "l2m", "wrong", sample=3)]), matrix(q="+++")])
    for keep in ("first", "all"):
        weights = Counter()
        for example in curated(attempts, keep=keep).examples:
            weights[example["problem_id"]] += example["weight"]
        assert weights == {"p": pytest.approx(1), "q": pytest.approx(1)}
    (same,) = [e for e in curated(attempts).examples if e["problem_id"] == "p"]
    assert len(same["attempt_ids"]) == 3


def test_keep_all_takes_every_distinct_success():
    result = curated(matrix(p="+-+"), keep="all")
    assert sorted((e["strategy"], e["weight"]) for e in result.examples) == [("cot", 0.5), ("pot", 0.5)]


# --- the format decides what a strategy is --------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"strategy": "cot", "text": "x = 5\nanswer = x"}, "code in a chain of thought"),
        ({"strategy": "l2m", "text": "Final answer: 5"}, "no sub-question"),
        ({"strategy": "pot", "text": "So it is 5."}, "not a Python program"),
        ({"strategy": "pot", "text": "x = 5"}, "the program assigns no `answer`"),
        ({"strategy": "cot", "finish_reason": "length"}, "cut off by max_tokens"),
        ({"strategy": None, "text": "5"}, "no known strategy"),
    ],
)
def test_a_right_answer_in_another_format_is_dropped_and_counted(bad, reason):
    attempts = pd.DataFrame([attempt("p", "cot", id="bad") | bad, attempt("q", "cot")])
    result = curated(attempts)
    assert [e["problem_id"] for e in result.examples] == ["q"]
    assert result.statistics["dropped"]["correct_but"] == {reason: 1}


# --- pairs --------------------


def test_a_succeeding_strategy_is_preferred_to_a_failing_one():
    (pair,) = curated(matrix(p="+-+"), pairs_per_problem=1).pairs
    assert pair["rejected_strategy"] == "l2m" and pair["chosen_strategy"] in ("cot", "pot")
    assert pair["prompt"] == "Question: What is p?\nAnswer by"
    assert pair["rejected"].startswith(" questions:\nSub-question 1")
    assert pair["attempt_ids"][1] == "base:p:l2m:0"


def test_a_strategy_that_succeeds_as_often_is_not_the_better_one():
    attempts = pd.DataFrame(
        [
            attempt("p", name, verdict, sample=s)
            for name in ("cot", "pot")
            for s, verdict in enumerate(["correct", "wrong"])
        ]
    )
    assert {(p["chosen_strategy"], p["rejected_strategy"]) for p in curated(attempts).pairs} == {
        ("cot", "cot"),
        ("pot", "pot"),
    }
    assert curated(attempts, within_strategy=False).pairs == []


def test_the_cap_holds_for_each_kind_of_pair():
    attempts = pd.DataFrame(
        [attempt("p", "cot", sample=s) for s in range(4)]
        + [attempt("p", "cot", "wrong", sample=s) for s in range(4, 6)]
        + [attempt("p", "pot", "wrong", sample=s) for s in range(4)]
    )
    kinds = Counter(p["rejected_strategy"] for p in curated(attempts, pairs_per_problem=2).pairs)
    assert kinds == {"cot": 2, "pot": 2}


def test_cut_off_and_nameless_failures_are_no_counterexamples():
    attempts = pd.DataFrame(
        [attempt("p", "cot"), attempt("p", "pot", "unparsed", finish_reason="length"), attempt("p", None, "unparsed")]
    )
    assert curated(attempts).pairs == []


@pytest.mark.slow
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.text("+-?", min_size=3, max_size=3), min_size=1))
def test_balanced_pairs_favour_no_strategy(marks):
    if not any("+" in m for m in marks.values()):
        return
    result = curated(matrix(**marks), balance=True)
    directions = Counter((p["chosen_strategy"], p["rejected_strategy"]) for p in result.pairs)
    assert all(directions[a, b] == directions[b, a] for a, b in directions)
    assert result.statistics["pairs"] + result.statistics["dropped"]["pairs_to_balance"] == len(
        curated(matrix(**marks)).pairs
    )


# --- the shares that theory predicts --------------------

PI = {"cot": 0.6, "l2m": 0.1, "pot": 0.3}
N = 6000
SIGMA = 4 * (0.25 / N) ** 0.5  # four standard errors of a share


def test_deterministic_outcomes_give_the_policy_conditioned_on_the_right_set():
    attempts = matrix(**{f"p{i}": "++-" for i in range(N)})
    found = shares(attempts, first=PI)
    assert found == {"cot": pytest.approx(6 / 7, abs=SIGMA), "l2m": pytest.approx(1 / 7, abs=SIGMA), "pot": 0}


def test_uniform_first_attempts_give_uniform_shares_over_the_right_set():
    found = shares(matrix(**{f"p{i}": "+-+" for i in range(N)}))
    assert found == {"cot": pytest.approx(1 / 2, abs=SIGMA), "l2m": 0, "pot": pytest.approx(1 / 2, abs=SIGMA)}


@pytest.mark.slow
def test_noisy_outcomes_move_mass_to_reliable_strategies_and_cover_more():
    rng, rates = random.Random(1), {"cot": 0.2, "l2m": 0.5, "pot": 0.8}
    marks = {f"p{i}": "".join("+" if rng.random() < rates[s] else "-" for s in SOLUTIONS) for i in range(N)}
    switching = curated(matrix(**marks), first=PI).statistics
    assert switching["strategy_share"] == {
        "cot": pytest.approx(0.152, abs=SIGMA),
        "l2m": pytest.approx(0.186, abs=SIGMA),
        "pot": pytest.approx(0.663, abs=SIGMA),
    }
    assert switching["coverage"] == pytest.approx(0.92, abs=SIGMA)
    rejection = curated(matrix(**marks), first=PI, max_attempts=1).statistics
    assert rejection["strategy_share"] == {
        "cot": pytest.approx(0.293, abs=2 * SIGMA),
        "l2m": pytest.approx(0.122, abs=2 * SIGMA),
        "pot": pytest.approx(0.585, abs=2 * SIGMA),
    }
    assert rejection["coverage"] == pytest.approx(0.41, abs=SIGMA)


@given(st.dictionaries(st.sampled_from(sorted(SOLUTIONS)), st.floats(0, 1), min_size=1), st.integers(0, 2**31))
def test_an_order_tries_each_strategy_once_and_excluded_ones_last(weights, seed):
    order = strategy_order(weights, seed)
    assert sorted(name for name, _ in order) == sorted(weights)
    assert order[-1][1] == 1
    zeros = [weights[name] == 0 for name, _ in order]
    assert zeros == sorted(zeros)


def test_the_same_attempts_give_the_same_rows_in_any_order():
    attempts = matrix(**{f"p{i}": marks for i, marks in enumerate(["+-+", "-+?", "+++", "--+"])})
    assert curated(attempts, balance=True) == curated(attempts.sample(frac=1, random_state=0), balance=True)


@pytest.mark.parametrize(
    "bad", [{"first": "tot"}, {"max_attempts": 0}, {"keep": "some"}, {"frist": "cot"}, {"first": {"x": 1}}]
)
def test_wrong_options_are_refused(bad):
    with pytest.raises(ValidationError):
        Curation(**bad)
