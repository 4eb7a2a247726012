"""Sampling with a scripted engine: who is asked what, in which order, with which seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from whetstone import policy, records, rollouts
from whetstone.curation.smart import Curation, curate
from whetstone.engines.base import Sampling
from whetstone.engines.scripted import ScriptedEngine
from whetstone.prompts.asks import ask
from whetstone.prompts.strategies import FewShotPrompt, WorkedExample

GREEDY = Sampling(64, stop=("\n\n",))
WARM = Sampling(64, temperature=0.7, stop=("\n\n",))
TEXTS = {
    "steps": " It is {0}. The answer is {0}.",
    "questions": "\nSub-question 1: How many?\nAnswer 1: {0}\nThe answer is {0}.",
    "program": "\nanswer = {0}",
}


def problems(count: int, answer: str = "7") -> pd.DataFrame:
    """Problems p0000, p0001 ... with one gold."""
    rows = [
        {"id": f"p{n:04d}", "question": f"How many, {n}?", "answer": answer, "task": "number", "source": "hand",
         "group": str(n), "split": "train", "part": 1, "family": None, "level": None, "options": None}
        for n in range(count)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def engine(right: dict[str, bool], choice: dict[str, float], free: str | None = None) -> ScriptedEngine:
    """Solves by the tags that are right; `free` is the tag that opens a free completion."""

    def reply(prompt: str) -> str:
        tag = prompt.rpartition("Answer by")[2].strip(" :")
        if not tag:
            return f" {free}:" + reply(f"Answer by {free}:") if free else " I don't know."
        return TEXTS[tag].format(7 if right[tag] else 8)

    return ScriptedEngine(reply, lambda _: {f" {tag}": p for tag, p in choice.items()})


ALL = {"steps": True, "questions": True, "program": True}
PI = {"steps": 0.6, "questions": 0.1, "program": 0.3}


def sampled(right, count, k=1, explore="until_solved", choice=PI, max_attempts=3):
    return policy.sampled(
        engine(right, choice), problems(count), WARM, k=k, max_attempts=max_attempts, explore=explore,
        model="epoch1", seed=0, store=None,
    )  # fmt: skip


def test_rows_fit_the_table_of_attempts():
    arrow = records.table(sampled(ALL, 5, k=2), records.ATTEMPT)
    assert arrow.num_rows == 10


def test_first_strategies_follow_the_models_own_distribution():
    first = Counter(sampled(ALL, 3000)["strategy"])
    error = 4 * (0.25 / 3000) ** 0.5
    shares = [first[name] / 3000 for name in ("cot", "l2m", "pot")]
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=error)


def test_after_a_failure_the_distribution_is_renormalised_over_untried_strategies():
    attempts = sampled(ALL | {"steps": False}, 200)
    second = attempts[attempts["turn"] == 2]
    expected = {"l2m": pytest.approx(0.25), "pot": pytest.approx(0.75)}
    assert all(row.probability == expected[row.strategy] for row in second.itertuples())
    assert not (attempts["turn"] == 3).any()


def test_sampling_then_curating_gives_the_share_that_theory_predicts():
    """Luce's rule: pi restricted to the right set, whether the episode stops at a success or goes on."""
    right = {"steps": True, "questions": True, "program": False}
    for explore in ("until_solved", "all_strategies"):
        attempts = sampled(right, 2000, explore=explore)
        questions = dict(zip(problems(2000)["id"], problems(2000)["question"], strict=True))
        shares = curate(attempts, questions, Curation()).statistics["strategy_share"]
        assert shares["cot"] == pytest.approx(6 / 7, abs=4 * (0.25 / 2000) ** 0.5)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_an_episode_has_at_most_so_many_attempts(limit):
    never = dict.fromkeys(ALL, False)
    assert set(sampled(never, 20, max_attempts=limit).groupby("problem_id").size()) == {limit}


def test_a_strategy_that_the_model_excludes_comes_last():
    attempts = sampled(dict.fromkeys(ALL, False), 20, choice={"steps": 1.0, "questions": 0.0, "program": 0.0})
    assert set(attempts[attempts["turn"] == 1]["strategy"]) == {"cot"}
    assert set(attempts["strategy"]) == {"cot", "l2m", "pot"}


def test_attempts_depend_on_nothing_but_their_problem_strategy_and_sample():
    full = sampled(ALL | {"steps": False}, 40, k=3).set_index("id")
    few = sampled(ALL | {"steps": False}, 10, k=2).set_index("id")
    pd.testing.assert_frame_equal(full.loc[few.index], few)
    assert full["seed"].nunique() == len(full)


def test_few_shot_attempts_ask_with_worked_examples():
    prompt = FewShotPrompt(
        strategy="pot", examples=[WorkedExample(question="How many is one?", solution="answer = 1")]
    )
    asked = []
    solver = ScriptedEngine(lambda text: asked.append(text) or "\nanswer = 7")
    own = problems(2)
    attempts = rollouts.attempts(
        solver, policy.few_shot(own, prompt, shots=1, k=2), WARM, model="base", seed=0, store=None
    )
    assert set(asked) == {
        f"Question: How many is one?\nAnswer:\nanswer = 1\n\nQuestion: {q}\nAnswer:" for q in own["question"]
    }
    assert list(attempts["verdict"]) == ["correct"] * 4 and list(attempts["answer"]) == ["7"] * 4
    assert attempts["prompt_tokens"].gt(0).all() and attempts["completion_tokens"].gt(0).all()


def test_evaluation_needs_no_free_completion_where_a_tag_is_the_most_probable_token():
    attempts = policy.greedy(engine(ALL, PI), problems(2), GREEDY, model="epoch1", store=None)
    assert len(attempts) == 6 and attempts["probability"].notna().all()
    one = attempts[attempts["problem_id"] == "p0000"].sort_values("turn")
    assert list(one["strategy"]) == ["cot", "pot", "l2m"]
    assert list(one["probability"]) == pytest.approx([0.6, 0.75, 1.0])


@pytest.mark.parametrize(("free", "named", "verdict"), [("program", "pot", "correct"), (None, None, "unparsed")])
def test_where_it_may_not_be_the_free_completion_is_the_first_attempt(free, named, verdict):
    improbable = {"steps": 0.2, "questions": 0.1, "program": 0.1}
    attempts = policy.greedy(engine(ALL, improbable, free), problems(1), GREEDY, model="epoch1", store=None)
    first = attempts.sort_values("turn").iloc[0]
    assert (None if pd.isna(first["strategy"]) else first["strategy"]) == named
    assert pd.isna(first["probability"]) and first["verdict"] == verdict
    assert list(attempts.sort_values("turn")["turn"]) == [1, 2, 3, 4]


def test_the_choice_is_normalised_and_its_mass_kept():
    shares, mass = policy.choice_distribution(
        engine(ALL, {"steps": 0.2, "questions": 0.1, "program": 0.1}), ["How many?"]
    )
    assert shares[0] == pytest.approx([0.5, 0.25, 0.25]) and mass == pytest.approx([0.4])
    assert np.isfinite(policy.choice_distribution(engine(ALL, {"steps": 1e-30}), ["How many?"])[0]).all()


def test_options_of_a_choice_problem_reach_the_grader():
    own = problems(1, answer="B").assign(task="choice", options=[["red", "blue"]])
    solver = ScriptedEngine(lambda _: " The answer is blue.")
    prompt = FewShotPrompt(strategy="cot", examples=[WorkedExample(question="?", solution="The answer is A.")])
    attempts = rollouts.attempts(
        solver, policy.few_shot(own, prompt, shots=1, k=1), GREEDY, model="base", seed=0, store=None
    )
    assert list(attempts["answer"]) == ["B"] and list(attempts["verdict"]) == ["correct"]


def test_an_episode_goes_on_from_its_own_attempts_turn_by_turn_in_one_batch_each():
    """A retry quotes the attempt before it, as recipes of several turns do."""
    batches = []

    class Batched(ScriptedEngine):
        def generate(self, requests):
            batches.append(len(requests))
            return super().generate(requests)

    solver = Batched(lambda prompt: f" The answer is {'7' if prompt.count('Wrong') == 2 else '8'}.")
    own = problems(4)
    own.loc[0, "answer"] = "8"

    def again(asked, attempt):
        if attempt["verdict"] == "correct" or asked.turn == 5:
            return None
        prompt = f"{asked.prompt}{attempt['text']} Wrong.\nQ:"
        return asked._replace(prompt=prompt, key=f"turn{asked.turn + 1}", turn=asked.turn + 1, parent=attempt["id"])

    first = [ask(problem, "Q:", "turn1", "cot") for problem in own.itertuples()]
    attempts = rollouts.episodes(solver, first, again, WARM, model="base", seed=0, store=None)
    assert batches == [4, 3, 3]
    one = attempts[attempts["problem_id"] == "p0001"].set_index("turn")
    assert one.loc[2, "parent"] == one.loc[1, "id"] and one.loc[1, "parent"] is None
    assert list(attempts[attempts["problem_id"] == "p0000"]["verdict"]) == ["correct"]
    assert attempts["id"].is_unique and attempts["seed"].nunique() == len(attempts)
    assert records.table(attempts, records.ATTEMPT).num_rows == len(attempts)


def test_attempts_say_what_they_were_graded_against():
    own = problems(1, answer="B").assign(task="choice", options=[["red", "blue"]])
    (asked,) = [ask(problem, "?", "direct", "cot")._replace(variant="0") for problem in own.itertuples()]
    solver = ScriptedEngine(lambda _: " The answer is blue.")
    attempt = rollouts.attempts(solver, [asked], GREEDY, model="base", seed=0, store=None).iloc[0]
    assert (attempt["gold"], list(attempt["options"]), attempt["variant"]) == ("B", ["red", "blue"], "0")
