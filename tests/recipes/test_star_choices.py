"""A question with its options becomes a prompt: orders, letters, hints, languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.errors import UserError
from whetstone.prompts import choices

RECIPE = Path(__file__).parents[2] / "recipes/star"
META = {"target": "Think.", "english": "Think in English.", "translate": "Translate, then think."}
PROMPT = choices.ChoicePrompt(
    template="{meta}\nQ: {question}\n{options}\nA:",
    meta=META,
    examples={"sw": [{"question": "1 + 1?", "options": ["2", "3"], "answer": "A", "rationale": "Jibu ni A."}]},
)


def test_a_prompt_ends_where_the_model_goes_on():
    text = PROMPT.render("2 + 2?", ["5", "4"], think="english")
    assert text == "Think in English.\nQ: 2 + 2?\nA) 5\nB) 4\nA:"


def test_a_hint_marks_the_right_option_and_nothing_else():
    plain, hinted = PROMPT.render("2 + 2?", ["5", "4"]), PROMPT.render("2 + 2?", ["5", "4"], hinted="B")
    assert hinted.replace(" (CORRECT)", "") == plain
    assert hinted.count("(CORRECT)") == 1 and "B) 4 (CORRECT)\n" in hinted


def test_worked_examples_carry_the_hint_where_the_question_does():
    text = PROMPT.render("2 + 2?", ["5", "4"], language="sw", shots=1, hinted="B")
    assert text.startswith("Think.\nQ: 1 + 1?\nA) 2 (CORRECT)\nB) 3\nA: Jibu ni A.\n\n")
    assert PROMPT.render("2 + 2?", ["5", "4"], language="sw", shots=1).count("(CORRECT)") == 0


def test_braces_in_a_question_stay_as_they_are():
    assert "Q: {options} {x}?\nA) {question}\n" in PROMPT.render("{options} {x}?", ["{question}", "1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "{meta} {question}"}, "{options} occurs 0 times"),
        ({"option": "{letter}"}, "option: {text} is missing"),
        ({"surprise": 1}, "Extra inputs"),
        (
            {"examples": {"en": [{"question": "q", "options": ["a", "b"], "answer": "C", "rationale": "r"}]}},
            "examples of en: 1: no option 'C'",
        ),
    ],
)
def test_a_malformed_prompt_is_refused(change, message, tmp_path):
    from ruamel.yaml import YAML

    content = {"template": "{meta} {question} {options}", "meta": META} | change
    with (tmp_path / "p.yaml").open("w") as file:
        YAML().dump(content, file)
    with pytest.raises(UserError, match=message.replace("{", r"\{").replace("}", r"\}")):
        choices.load_prompt(tmp_path / "p.yaml")


def test_too_few_worked_examples_are_an_error():
    with pytest.raises(UserError, match="0 worked examples in de; 1 were asked for"):
        PROMPT.render("q", ["a", "b"], language="de", shots=1)
    with pytest.raises(UserError, match="think in the question's language, sw; `english` takes no shots"):
        PROMPT.render("q", ["a", "b"], language="sw", shots=1, think="english")


@pytest.mark.parametrize("path", sorted((RECIPE / "prompts").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_prompts_are_sound_and_know_every_way_of_thinking(path):
    assert set(choices.load_prompt(path).meta) == {"target", "english", "translate"}


def test_the_worlds_worked_examples_are_right_and_the_same_in_every_language():
    from whetstone.grading import extract

    examples = choices.load_prompt(RECIPE / "prompts/world.yaml").examples
    assert set(examples) == {"en", "de", "sw"} and {len(some) for some in examples.values()} == {4}
    for same in zip(*examples.values(), strict=True):
        assert len({(tuple(one.options), one.answer) for one in same}) == 1
        for one in same:
            assert extract(one.rationale, "choice", options=one.options).value == one.answer
            assert one.options["ABCD".index(one.answer)] in one.rationale.rpartition("=")[2]


@settings(deadline=None)
@given(st.text(min_size=1, max_size=5), st.integers(0, 40), st.integers(2, 10))
def test_an_order_is_a_permutation_that_depends_on_problem_and_number_alone(problem, number, options):
    order = choices.order_of(problem, number, options)
    assert sorted(order) == list(range(options))
    assert order == choices.order_of(problem, number, options)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=5), st.integers(2, 10))
def test_over_as_many_orders_as_options_every_option_stands_at_every_letter_once(problem, options):
    orders = [choices.order_of(problem, number, options) for number in range(options)]
    assert all(len({order[place] for order in orders}) == options for place in range(options))


@settings(deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(), min_size=4, max_size=4, unique=True), st.sampled_from("ABCD"))
def test_letters_map_back_to_the_option_that_they_meant(number, values, answer):
    options = [str(value) for value in values]
    order = choices.order_of("p", number, 4)
    shown, letter = choices.shown(options, answer, order)
    assert shown["ABCD".index(letter)] == options["ABCD".index(answer)]
    assert choices.option_of(letter, order) == "ABCD".index(answer)


def test_languages():
    assert choices.rationale_language("sw", "target") == "sw"
    assert choices.rationale_language("sw", "translate") == choices.rationale_language("sw", "english") == "en"
