"""Multiple choice of the generated world: the same problem in three languages, wrong options from mistakes."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from whetstone import records
from whetstone.errors import UserError
from whetstone.grading import extract
from whetstone.problems.splits import straddling
from whetstone.problems.world import split_of
from whetstone.problems.world.choices import LEVELS, WORLD, generate, mistakes, options, outcome, stories
from whetstone.problems.world.choices_corpus import POOLS, documents
from whetstone.problems.world.multilingual import FAMILIES, LANGUAGES, cast, conclusion, question, rationale
from whetstone.problems.world.sketch import number
from whetstone.prompts.choices import load_prompt

PROMPT = "recipes/star/prompts/world.yaml"
ROWS = [row for split in ("train", "dev", "test") for row in generate(split, 60)]


def test_rows_are_problems():
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    assert records.table(frame, records.PROBLEM).num_rows == 3 * 3 * 60
    assert straddling(frame) == []
    assert frame.groupby("group")["split"].nunique().max() == 1


def test_a_problem_and_its_translations_share_group_options_and_answer():
    for split in ("train", "test"):
        rows = [row for row in ROWS if row["split"] == split]
        for en, de, sw in zip(*[iter(rows)] * 3, strict=True):
            assert [row["source"] for row in (en, de, sw)] == ["world:en", "world:de", "world:sw"]
            assert en["group"] == de["group"] == sw["group"]
            assert en["options"] == de["options"] == sw["options"] and en["answer"] == de["answer"]
            assert sorted(re.findall(r"\d+", en["question"])) == sorted(re.findall(r"\d+", de["question"])) or (
                en["family"] == "fraction"
            )


def test_more_problems_add_rows_and_change_none():
    assert generate("dev", 20) == generate("dev", 30)[: 3 * 20]
    assert generate("dev", 20, ["sw"]) == [row for row in generate("dev", 20) if row["source"] == "world:sw"]


def test_four_different_options_one_of_them_right():
    for row in ROWS:
        assert len(set(row["options"])) == 4 and row["answer"] in "ABCD"
        assert all(re.fullmatch(r"\d+(\.\d{1,2})?", text) for text in row["options"])


def test_every_letter_is_right_about_as_often():
    counts = Counter(letter for _, _, letter in islice(stories("train", 7), 2000))
    assert all(430 < counts[letter] < 570 for letter in "ABCD")


def test_the_right_option_is_the_sketchs_answer_and_wrong_ones_are_not():
    for story, shown, letter in islice(stories("train", 3), 300):
        gold = number(story.sketch.answer)
        assert shown["ABCD".index(letter)] == gold and shown.count(gold) == 1


def test_wrong_options_are_mistakes_first():
    r = Random(0)
    for family in FAMILIES:
        sketch = WORLD[family](r, 2)
        wrong = [outcome(sketch, steps) for _, steps in mistakes(sketch)]
        assert wrong and len(set(wrong)) == len(wrong) and number(sketch.answer) not in wrong
        shown, _ = options(sketch, r)
        assert set(wrong[:3]) <= set(shown)


def test_known_misconceptions_are_among_them():
    sketch = WORLD["posts"](Random(1), 1)
    name, steps = mistakes(sketch)[0]
    assert name == "misconception" and len(steps) == 1


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_told_and_solved_in_every_language(family, language):
    r = Random(f"{family}{language}")
    for level in LEVELS:
        for _ in range(30):
            story = cast(WORLD[family](r, level), r)
            told, worked = question(story, language), rationale(story, language)
            assert "{" not in told + worked and told.endswith("?")
            assert number(story.sketch.answer) in worked.rpartition("=")[2]
            for _, steps in mistakes(story.sketch):
                assert outcome(story.sketch, steps) in rationale(story, language, steps).rpartition("=")[2]


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_conclusion_in_any_language_is_read(language, letter):
    text = f"Kisha 3 + 4 = 7. {conclusion(language, letter)}"
    assert extract(text, "choice", options=["7", "8", "9", "10"]).value == letter


def test_an_unknown_language_or_family_is_refused():
    with pytest.raises(UserError, match="isn't told in fr, but in en, de, sw"):
        generate("train", 1, ["en", "fr"])
    with pytest.raises(KeyError):
        cast(WORLD["calendar"](Random(0), 1), Random(0))


def test_the_corpus_is_of_the_training_split_alone():
    """Numbers of a document's question, against the groups of dev and test."""
    held_out = {row["question"] for row in ROWS if row["split"] != "train"}
    prompt = load_prompt(PROMPT)
    for pool in POOLS:
        for document in documents(pool, 60, 0, prompt):
            asked = document.partition("Question: ")[2].partition("\nA) ")[0]
            assert asked not in held_out


def test_the_corpus_is_what_its_card_says():
    """Shares of right, hinted, repetitive documents, by pool."""
    prompt = load_prompt(PROMPT)
    found = {}
    for pool, kind in POOLS.items():
        texts = list(documents(pool, 150, 1, prompt))
        assert all(text.startswith(prompt.meta[kind.think]) and text.endswith("\n\n") for text in texts)
        assert all(("(CORRECT)\n" in text) == kind.hinted for text in texts)
        answers = [text.rpartition("Answer: ")[2] for text in texts]
        found[pool] = sum(extract(a.strip(), "choice").value is not None for a in answers) / len(answers)
    assert all(share == 1 for pool, share in found.items() if not pool == "sw")
    assert 0.45 < found["sw"] < 0.8  # the rest is repetitive
    assert POOLS["sw"].documents <= POOLS["en"].documents / 50
    stats = [story.sketch for story, _, _ in islice(stories("train", 2), 50)]
    assert all(split_of(sketch) == "train" for sketch in stats)
