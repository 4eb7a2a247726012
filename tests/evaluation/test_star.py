"""What is said of a model on multiple choice, against tables written by hand, and always beside chance."""

from __future__ import annotations

import pandas as pd
import pytest

from whetstone.curation.degenerate import Gates
from whetstone.errors import UserError
from whetstone.evaluation import star
from whetstone.evaluation.intervals import grouped, wilson
from whetstone.prompts import choices
from whetstone.report.star import comparison_table, comparisons

OPTIONS = ["10", "20", "30", "40"]


def problem(number: int, language: str = "en", answer: str = "A", family: str | None = "shop") -> dict:
    return {"id": f"p{number:03d}-{language}", "language": language, "options": OPTIONS, "answer": answer,
            "family": family, "group": f"g{number}"}  # fmt: skip


def attempt(of: dict, letter: str | None, sample: int = 0, text: str = "The answer is it.", **more) -> dict:
    order = choices.order_of(of["id"], sample, 4)
    _, gold = choices.shown(of["options"], of["answer"], order)
    verdict = "unparsed" if letter is None else "correct" if letter == gold else "wrong"
    return {"problem_id": of["id"], "sample": sample, "answer": letter, "gold": gold, "verdict": verdict, "text": text,
            "finish_reason": "stop", "completion_tokens": 10, "variant": str(sample), **more}  # fmt: skip


def measured(problems: list[dict], attempts: list[dict]) -> dict:
    frame = pd.DataFrame(attempts).astype(object)
    return star.metrics(frame.where(frame.notna(), None), pd.DataFrame(problems), "target", Gates())


def test_below_chance_by_format_is_told_from_below_chance_by_knowledge():
    """Both are right in 20 %: one answers rarely and well, the other always and badly."""
    problems = [problem(i) for i in range(100)]
    rare = measured(problems, [attempt(p, "A" if i < 20 else None) for i, p in enumerate(problems)])["all"]
    bad = measured(problems, [attempt(p, "A" if i < 20 else "B") for i, p in enumerate(problems)])["all"]
    assert rare["accuracy"] == bad["accuracy"] == grouped([True] * 20 + [False] * 80)
    assert (rare["answered"]["accuracy"], bad["answered"]["accuracy"]) == (0.2, 1.0)
    assert rare["accuracy_given_answered"]["accuracy"] == 1.0 and bad["accuracy_given_answered"]["accuracy"] == 0.2
    assert rare["chance"] == 0.25 and rare["above_chance"] == pytest.approx((0.2 - 0.25) / 0.75)
    assert rare["p_value_of_chance"] > 0.8


def test_chance_is_that_of_the_problems_options():
    problems = [problem(0), problem(1) | {"options": OPTIONS[:2]}]
    rows = [attempt(problems[0], "A"), {**attempt(problems[0], "B"), "problem_id": problems[1]["id"]}]
    assert measured(problems, rows)["all"]["chance"] == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_languages_and_families_are_told_apart():
    problems = [problem(i, language, family="shop" if i < 2 else None) for language in ("en", "sw") for i in range(4)]
    found = measured(problems, [attempt(p, "A" if p["language"] == "en" else "C") for p in problems])
    assert list(found) == ["all", "en", "sw"]
    assert [found[name]["accuracy"]["accuracy"] for name in found] == [0.5, 1.0, 0.0]
    assert found["en"]["by_family"] == {"shop": grouped([True, True])}


def test_translations_of_a_problem_count_once_in_all_and_each_in_its_language():
    """100 problems in three languages, right in all or in none: as wide, and as sure, as in one language."""
    problems = [problem(i, language) for language in ("de", "en", "sw") for i in range(100)]
    found = measured(problems, [attempt(p, "A" if int(p["id"][1:4]) < 36 else "B") for p in problems])
    alone = wilson(36, 100)
    for name in ("all", "de", "en", "sw"):
        one = found[name]
        assert (one["accuracy"]["low"], one["accuracy"]["high"]) == pytest.approx((alone["low"], alone["high"]))
        assert one["p_value_of_chance"] == pytest.approx(found["en"]["p_value_of_chance"], rel=1e-6)
        assert one["letters"]["p_value"] == pytest.approx(found["en"]["letters"]["p_value"], rel=1e-6)


def test_models_are_compared_over_groups_and_a_tiny_p_is_told_as_a_bound():
    problems = [problem(i, language) for language in ("en", "sw") for i in range(60)]
    tests = {
        name: pd.DataFrame([attempt(p, "A" if int(p["id"][1:4]) % 6 < right else "B") for p in problems])
        for name, right in (("base", 1), ("sft1", 5), ("sft2", 5))
    }
    found = comparisons(tests, pd.DataFrame(problems), [("sft1", "base"), ("sft2", "sft1")])
    gain = found["sft1 vs base"]
    assert gain["all"]["p_value"] == gain["en"]["p_value"] == 0.5**39 and gain["all"]["groups"] == 60
    assert gain["all"]["low"] == pytest.approx(gain["en"]["low"], abs=0.01)
    table = comparison_table(found)
    assert table.count("p < 2e-5") == 3 and table.count("p 1") == 3


def test_letter_bias():
    problems = [problem(i, answer="ABCD"[i % 4]) for i in range(80)]
    always = measured(problems, [attempt(p, "D") for p in problems])["all"]["letters"]
    assert always["answered"] == {"A": 0, "B": 0, "C": 0, "D": 80} and always["right"]["A"] == 20
    assert always["bias"] == pytest.approx(0.75) and always["p_value"] < 1e-10
    fair = measured(problems, [attempt(p, p["answer"]) for p in problems])["all"]["letters"]
    assert fair["bias"] == 0 and fair["p_value"] == pytest.approx(1)
    assert measured(problems[:2], [attempt(p, None) for p in problems[:2]])["all"]["letters"]["bias"] is None


def test_a_model_that_likes_a_letter_is_inconsistent_under_other_orders():
    problems = [problem(i) for i in range(10)]
    letters = measured(problems, [attempt(p, "A", s) for p in problems for s in (0, 1)])["all"]["consistency"]
    assert letters["same_option"]["accuracy"] == 0 and letters["right_each_time"]["accuracy"] == 0

    def gold(p: dict, sample: int) -> str:
        return choices.shown(OPTIONS, "A", choices.order_of(p["id"], sample, 4))[1]

    knows = measured(problems, [attempt(p, gold(p, s), s) for p in problems for s in (0, 1)])["all"]["consistency"]
    assert knows["same_option"]["accuracy"] == knows["right_each_time"]["accuracy"] == 1 and knows["orders"] == 2


def test_loops_cuts_and_languages_are_rates():
    """A loop of one word is in no language that could be told."""
    problems = [problem(i, "sw") for i in range(4)] + [problem(9, "de")]
    texts = ["Jibu ni A.", "Then 3 + 3 = 6 are left. The answer is A.", "na " * 60, "Kisha zinabaki 3. Jibu ni B."]
    rows = [attempt(p, "A", text=text) for p, text in zip(problems, [*texts, "Die Antwort ist A."], strict=True)]
    rows[2] |= {"finish_reason": "length", "answer": None, "verdict": "unparsed"}
    found = measured(problems, rows)["sw"]
    assert (found["repetitive"], found["truncated"], found["in_language"]) == (0.25, 0.25, 2 / 3)


def test_every_problem_counts():
    problems = [problem(i) for i in range(3)]
    with pytest.raises(UserError, match="1 problems have no attempt"):
        measured(problems, [attempt(p, "A") for p in problems[:2]])
    with pytest.raises(UserError, match="1 attempts are at other problems"):
        measured(problems[:2], [attempt(p, "A") for p in problems])


def test_the_gap_is_newcombes():
    """Example (a) of Newcombe 1998, method 10: 56/70 against 48/80."""
    found = star.gap(wilson(56, 70), wilson(48, 80))
    assert (round(found["value"], 4), round(found["low"], 4), round(found["high"], 4)) == (0.2, 0.0524, 0.3339)


@pytest.mark.parametrize(
    ("history", "patience", "stops"),
    [
        ([0.5], 1, False),
        ([0.5, 0.4], 1, True),
        ([0.5, 0.4], 2, False),
        ([0.5, 0.4, 0.45], 2, True),
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.5, 0.5], 1, False),
        ([0.5, 0.6, 0.55, 0.7, 0.6, 0.65], 2, True),
    ],
)
def test_an_arm_stops_after_so_many_iterations_below_its_best(history, patience, stops):
    assert star.stops(history, patience) is stops
