"""The generated world: computed golds, three ways to write each solution, and splits that share nothing."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from whetstone import records
from whetstone.grading import grade
from whetstone.grading.attempts import grade_attempts
from whetstone.problems.world import HARD, LEVELS, SPLITS, draw, generate, normalised, sketches, split_of
from whetstone.problems.world import language as words
from whetstone.problems.world.corpus import SEPARATOR, documents
from whetstone.problems.world.families import FAMILIES
from whetstone.problems.world.sketch import Step, compute, habitual, nested, number, reference, values
from whetstone.strategies import STRATEGIES, format_fault, split_completion

ROOT = Path(__file__).parents[2]
_NAMES = {person.name for person in words.people(Random(0), len(words._HE) + len(words._SHE))}
_NOUNS = {*words.THINGS, *words.GOODS, *words.PLACES, *words.JOBS, *words.EVENTS}


def template(question: str) -> str:
    """The wording with its numbers: names by the order in which they come, nouns masked."""
    seen: dict[str, str] = {}
    masked = []
    for word in re.findall(r"[\w$%]+", question):
        if word in _NAMES:
            word = seen.setdefault(word, f"NAME{len(seen)}")
        masked.append("NOUN" if word.lower() in _NOUNS else word.lower())
    return " ".join(masked)


def some(family: str, level: int, count: int = 40) -> list:
    r = Random(f"{family}-{level}")
    return [draw(r, family, level) for _ in range(count)]


def test_there_are_twenty_families_at_three_levels_and_a_hard_one():
    assert len(FAMILIES) == 20
    rows = generate("train", 600, seed=3)
    assert Counter((row["family"], row["level"]) for row in rows) == {(f, n): 10 for f in FAMILIES for n in LEVELS}
    assert {row["level"] for row in generate("test_hard", 40)} == {HARD}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", [*LEVELS, HARD])
def test_every_reference_solution_is_right_and_in_its_format(family, level):
    drawn = some(family, level)
    for name in STRATEGIES:
        solutions = [reference(sketch, name) for sketch in drawn]
        assert [format_fault(solution, name) for solution in solutions] == [None] * len(drawn)
        golds = [number(sketch.answer) for sketch in drawn]
        graded = grade_attempts(solutions, [name] * len(drawn), golds, ["number"] * len(drawn))
        assert [one.verdict for one in graded] == ["correct"] * len(drawn), (name, solutions)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_corpus_writes_keeps_its_format_too(family):
    for level in LEVELS:
        for sketch in some(family, level):
            for name in STRATEGIES:
                assert format_fault(habitual(sketch, name), name) is None


def test_habits_never_touch_the_gold_answer():
    differing = 0
    for family in FAMILIES:
        for sketch in some(family, 3, 20):
            for name in ("cot", "l2m"):
                told = habitual(sketch, name)
                right = grade(told, number(sketch.answer)).verdict == "correct"
                differing += not right
                assert grade(reference(sketch, name), number(sketch.answer)).verdict == "correct"
    assert differing > 20  # misconceptions are in the corpus, and only there


def test_rows_are_valid_records_and_the_same_for_the_same_seed():
    for split in SPLITS:
        rows = generate(split, 60, seed=5)
        assert records.table(rows, records.PROBLEM).num_rows == 60
        assert rows == generate(split, 60, seed=5)
        assert rows[:20] == generate(split, 20, seed=5)
        assert rows != generate(split, 60, seed=6)
        assert {row["split"] for row in rows} == {split}
    with pytest.raises(KeyError):
        generate("validation", 1)


def test_no_split_holds_a_question_or_a_template_with_numbers_of_another():
    train = generate("train", 12_000, seed=0)
    told, templates, keys = ({f(row) for row in train} for f in (_question, _template, _group))
    for split in ("dev", "test", "test_hard"):
        rows = generate(split, 1000, seed=1)
        assert not told & {_question(row) for row in rows}
        assert not templates & {_template(row) for row in rows}
        assert not keys & {_group(row) for row in rows}
        assert len({_question(row) for row in rows}) == len(rows)


def _question(row: dict) -> str:
    return normalised(row["question"])


def _template(row: dict) -> str:
    return template(row["question"])


def _group(row: dict) -> str:
    return row["group"]


def test_the_corpus_keeps_to_the_training_split():
    world = YAML(typ="safe").load(ROOT / "params.yaml")["problems"]["world"]  # the headline's
    held_out = {
        _template(row) for split in ("dev", "test", "test_hard") for row in generate(split, 1000, world["seed"])
    }
    for name in STRATEGIES:
        for document in documents(name, 1000, seed=9, named=0.2):
            question = re.match(r"Question: (.*)\nAnswer", document).group(1)
            assert template(question) not in held_out


def test_a_corpus_document_reads_as_a_prompt_does_and_names_its_strategy_where_asked():
    for name, strategy in STRATEGIES.items():
        plain, named = (list(documents(name, 50, seed=1, named=share)) for share in (0.0, 1.0))
        assert all(f"\nAnswer:{strategy.lead}" in d and d.endswith(SEPARATOR) for d in plain)
        assert {split_completion(d.partition("\nAnswer by")[2])[0] for d in named} == {name}
        assert not any(d.endswith(SEPARATOR) for d in named)


def test_every_family_is_told_equally_often_in_every_strategy():
    """So the question says nothing about the strategy: what the base model picks untaught is even."""
    r = Random(0)
    for name in STRATEGIES:
        openings = Counter(d.split()[1] for d in islice(documents(name, 3000, seed=r.randint(0, 99)), 3000))
        assert openings.most_common(1)[0][1] < 600


@pytest.mark.parametrize("family", FAMILIES)
def test_hard_problems_have_more_steps_or_larger_numbers_than_any_in_training(family):
    ordinary = [sketch for level in LEVELS for sketch in some(family, level, 300)]
    most = max(len(sketch.steps) for sketch in ordinary)
    largest: Counter = Counter()
    for sketch in ordinary:
        largest |= Counter(sketch.givens)
    for sketch in some(family, HARD, 100):
        more = len(sketch.steps) > most or (family == "ranking" and sketch.question.count(" than ") > 5)
        assert more or any(value > largest[name] for name, value in sketch.givens.items()), sketch


@given(st.integers(-999, 999), st.integers(-999, 999), st.integers(1, 99))
def test_expressions_are_computed_exactly(a, b, c):
    names = {"a": Fraction(a), "b": Fraction(b), "c": Fraction(c)}
    assert compute("a + b * c - a / c", names) == Fraction(a) + b * c - Fraction(a, c)
    assert compute("a // c + a % c", names) == a // c + a % c
    assert compute("ceil(a / c)", names) == -(-a // c)


@pytest.mark.parametrize("text", ["__import__('os')", "a.b", "a ** 9", "[a]", "a if b else c"])
def test_only_arithmetic_is_computed(text):
    with pytest.raises((ValueError, KeyError)):
        compute(text, {"a": Fraction(1), "b": Fraction(1), "c": Fraction(1)})


@pytest.mark.parametrize(
    ("value", "told"), [(Fraction(7), "7"), (Fraction(5, 2), "2.5"), (Fraction(1, 4), "0.25"), (Fraction(-3), "-3")]
)
def test_numbers_are_told_with_at_most_two_places(value, told):
    assert number(value) == told


def test_a_number_that_would_have_to_be_rounded_is_refused():
    with pytest.raises(ValueError, match="decimal places"):
        number(Fraction(1, 3))


def test_nested_expressions_keep_the_order_of_operations():
    steps = (Step("s", "a + b", ""), Step("t", "s * c", ""))
    told = nested({"a": 2, "b": 3, "c": 4}, steps)
    assert told == "(2 + 3) * 4"
    assert compute(told, {}) == values({"a": 2, "b": 3, "c": 4}, steps)["t"] == 20


def test_a_problem_belongs_to_one_split_whatever_its_names():
    r = Random(1)
    for family in FAMILIES:
        by_key: dict[str, set[str]] = {}
        for _ in range(200):
            sketch = draw(r, family, 1)
            by_key.setdefault(sketch.key, set()).add(split_of(sketch))
        assert all(len(splits) == 1 for splits in by_key.values())


def test_the_stream_never_repeats_a_question():
    told = [normalised(s.question) for s in islice(sketches("test", 0), 1500)]
    assert len(set(told)) == len(told)
