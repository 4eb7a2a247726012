"""Every few-shot prompt of the project: eight worked examples, right, of their strategy, and in no data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from whetstone.grading import extract
from whetstone.grading.attempts import grade_attempts
from whetstone.problems.splits import words
from whetstone.prompts.strategies import STRATEGIES, format_fault, load_prompt

PROMPTS = Path(__file__).parents[1] / "prompts"
DATA = Path(os.environ.get("WHETSTONE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
TASKS = sorted({path.parent.name for path in PROMPTS.glob("*/*.yaml")})
NEAR = 8  # words in a row


def prompts(task: str) -> dict:
    return {name: load_prompt(PROMPTS / task / f"{name}.yaml", name) for name in STRATEGIES}


def questions(task: str) -> list[str]:
    return [example.question for example in prompts(task)["cot"].examples]


def test_there_are_prompts_for_gsm8k_problems_and_nothing_but_strategies():
    assert "gsm8k" in TASKS
    assert {path.stem for path in PROMPTS.glob("*/*.yaml")} == set(STRATEGIES)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_eight_problems_across_strategies(task):
    asked = {name: [example.question for example in prompt.examples] for name, prompt in prompts(task).items()}
    assert len(set(asked["cot"])) == 8
    assert asked["l2m"] == asked["cot"] == asked["pot"]


@pytest.mark.parametrize(("task", "name"), product(TASKS, STRATEGIES))
def test_every_example_is_of_its_strategy_and_of_no_other(task, name):
    """A solution that could pass as another strategy's wouldn't set its own."""
    for example in prompts(task)[name].examples:
        assert [other for other in STRATEGIES if format_fault(example.solution, other) is None] == [name]


@pytest.mark.parametrize("task", TASKS)
def test_the_three_solutions_of_a_problem_agree(task):
    """Each strategy is graded against the answer that each other states; programs run in the sandbox."""
    solutions = {name: [example.solution for example in prompt.examples] for name, prompt in prompts(task).items()}
    golds = [extract(text).canonical for text in solutions["cot"]]
    assert None not in golds
    for name, texts in solutions.items():
        graded = grade_attempts(texts, [name] * len(texts), golds)
        assert [one.verdict for one in graded] == ["correct"] * len(texts), name
    assert len(set(golds)) >= 6  # a model that copies an example's answer is told from one that computes


@pytest.mark.parametrize("task", TASKS)
def test_texts_end_with_their_answer(task):
    for name in ("cot", "l2m"):
        for example in prompts(task)[name].examples:
            answer = extract(example.solution)
            assert (answer.rule, example.solution.count("The answer is")) == ("answer_is", 1)
            assert example.solution.endswith(f"The answer is {answer.canonical}.")


@pytest.mark.parametrize(("task", "name"), product(TASKS, STRATEGIES))
def test_a_stop_string_ends_a_solution_and_is_never_in_one(task, name):
    prompt = prompts(task)[name]
    rendered = prompt.render("How many?")
    assert rendered.endswith("Question: How many?\nAnswer:")
    assert "\n\n" in prompt.stop
    assert rendered.count("\n\n") == 8 + bool(prompt.instruction)
    for example in prompt.examples:
        assert not any(stop in example.solution for stop in prompt.stop)


def test_the_programs_for_gsm8k_show_the_equation_helper():
    assert any("solve_it(Eq(" in example.solution for example in prompts("gsm8k")["pot"].examples)


def runs(text: str) -> Iterator[tuple[str, ...]]:
    tokens = words(text)
    return zip(*(tokens[at:] for at in range(NEAR)), strict=False)


@pytest.mark.parametrize(
    ("data", "copy"),
    [
        (
            Path(__file__).parent / "fixtures/public",
            "Every week, Tove knits 4 scarves a week and sells each for $12, then rests.",
        ),
        pytest.param(
            DATA,
            "Ann's hens lay 16 eggs per day. She eats three for breakfast every morning and bakes cakes.",
            marks=pytest.mark.skipif(not DATA.is_dir(), reason=f"no public data sets in {DATA}"),
        ),
    ],
)
def test_no_example_is_in_a_data_set_nor_near_to_one_there(data, copy):
    """No run of eight words of any question is in any file of the public data sets: questions, solutions, outputs.
    A question of GSM8K's layout in other words shows that the search would find one."""
    asked = {run: question for task in TASKS for question in questions(task) for run in runs(question)}
    assert len(asked) > 100
    asked |= dict.fromkeys(runs(copy), copy)
    found = []
    suffixes = (".json", ".jsonl", ".xml", ".txt", ".tsv", ".csv")
    for path in sorted(path for path in data.rglob("*") if path.suffix in suffixes):
        found += [(path.name, asked[run]) for run in runs(path.read_text(encoding="utf-8")) if run in asked]
    assert {name for name, one in found if one == copy} & {"test.jsonl", "train.jsonl"}
    assert [one for one in found if one[1] != copy] == []
