"""What `benchmarks.organism` computes from samples, against counts made by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from benchmarks import organism
from benchmarks.organism import Task, auc, first_errors, majority, pass_at, prefixes, retries, sentences, spread
from whetstone.engines.base import Completion
from whetstone.problems.steps.corpus import FEEDBACK


@pytest.mark.parametrize(("right", "n"), [(0, 5), (1, 5), (3, 6), (6, 6)])
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample(right, n):
    samples = [True] * right + [False] * (n - right)
    for k in range(1, n + 1):
        draws = list(combinations(samples, k))
        assert pass_at(k, right, n) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_a_majority_counts_answers_alone_and_the_first_of_equals_wins():
    assert majority(["3", None, "4", None, None, "4"]) == "4"
    assert majority(["7", "5", "5", "7"]) == "7"
    assert majority([None, None]) is None


def test_auc_is_how_often_a_right_solution_scores_higher_and_ties_count_half():
    scores, right = [0.9, 0.5, 0.5, 0.1], [True, True, False, False]
    pairs = [(a > b) + (a == b) / 2 for a in scores[:2] for b in scores[2:]]
    assert auc(scores, right) == pytest.approx(np.mean(pairs)) == 0.875
    assert auc([0.5, 0.7], [True, True]) is None and auc([], []) is None


def test_spread_counts_problems_in_between_and_groups_of_eight_that_teach_nothing():
    always, never, half, rarely = [1] * 16, [0] * 16, [1, 0] * 8, [1] + [0] * 15
    found = spread(np.array([always, never, half, rarely], bool))
    assert found == {"in_between": 0.25, "groups_without_spread": 5 / 8}


def test_sentences_end_at_a_full_stop_and_decimals_do_not():
    assert sentences("4 * 2.5 = 10. So 10 - 1 = 9. The answer is 9.") == [
        "4 * 2.5 = 10.",
        "4 * 2.5 = 10. So 10 - 1 = 9.",
        "4 * 2.5 = 10. So 10 - 1 = 9. The answer is 9.",
    ]


def task(number: int = 0, wrong: int | None = None) -> Task:
    return Task(f"t{number}", 1, f"Question: {number}?\nAnswer:\n", "9", first_wrong=lambda text: wrong)


def test_first_errors_are_counted_by_step_and_faultless_solutions_left_out():
    tasks, texts = [task(0, 2), task(1), task(2, 4)], [["a"] * 3, ["b"] * 3, ["c"] * 3]
    found = first_errors(tasks, texts)
    assert found["by_step"] == {"2": 3, "4": 3} and found["largest_share"] == 0.5 and found["solutions"] == 9
    assert first_errors([Task("t", 1, "", "9")], [["a"]]) is None


class Scripted:
    """An engine that answers by a function of the prompt, and keeps the prompts."""

    def __init__(self, says):
        self.says, self.prompts = says, []

    def generate(self, requests):
        for i, request in enumerate(requests):
            self.prompts.append(request.prompt)
            texts = [self.says(request.prompt, n) for n in range(request.sampling.n)]
            yield i, tuple(Completion(text, (0,), "stop") for text in texts)


RIGHT, WRONG = "1 = 1\n2 = 2\nThe answer is 9.", "1 = 1\n2 = 3\nThe answer is 8."


def test_a_states_value_is_the_share_of_its_completions_that_end_right():
    def says(prompt: str, n: int) -> str:
        wrong = prompt.endswith("2 = 3\n") or prompt.endswith("1 = 1\n") and n % 2
        return "The answer is 8." if wrong else "The answer is 9."

    found = prefixes(organism.Sampler(Scripted(says), 9), [task(0), task(1)], [[RIGHT, WRONG], [RIGHT, WRONG]])
    assert found["solutions"] == 4 and found["states"] == 8
    assert found["by_step"]["1"] == {"right": 0.5, "wrong": 0.5, "auc": 0.5, "states": 4}
    assert found["by_step"]["2"] == {"right": 1.0, "wrong": 0.0, "auc": 1.0, "states": 4}
    assert found["auc"] == {"problem": 0.5, "first": 0.5, "last": 1.0} and found["strictly_between"] == 0.5


def test_a_retry_says_the_feedback_of_its_mode_and_is_held_against_a_second_first_turn():
    def says(prompt: str, n: int) -> str:
        again = prompt.count("Question:") > 1
        return RIGHT if again == prompt.startswith("Question: 0") else WRONG

    engine = Scripted(says)
    found = retries(organism.Sampler(engine, 9), [task(0), task(1)])
    assert found["first"] == 0.5
    for mode in FEEDBACK:
        assert found[mode] == {"second": 0.5, "wrong_to_right": 1.0, "right_to_wrong": 1.0, "same_wrong_answer": 0.0}
    assert found["first turn again"]["wrong_to_right"] == 0.0
    said = f"{WRONG}\n\n{FEEDBACK['incorrect']}Question: 0?\nAnswer:\n"
    assert f"Question: 0?\nAnswer:\n{said}" in engine.prompts
