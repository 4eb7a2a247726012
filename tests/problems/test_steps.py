"""The world of dependent steps: exact golds, the first wrong step of any text, splits that share no beginning."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations, islice, product
from random import Random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone import records
from whetstone.errors import UserError
from whetstone.grading import grade
from whetstone.problems import steps
from whetstone.problems.splits import straddling
from whetstone.problems.steps import HARD, LEVELS, SPLITS, corpus, generate, ledger, logic, prompt_of, split_of
from whetstone.problems.steps.checking import first_wrong, lines, states, value_of
from whetstone.problems.steps.corpus import attempt, documents, retry, scrambled
from whetstone.problems.steps.ledger import AMBIGUOUS, Event, Ledger, worked

KINDS = list(logic.KINDS)


def drawn(family: str, level: int, count: int = 30) -> list:
    r = Random(f"{family}-{level}")
    return [steps.draw(r, family, level) for _ in range(count)]


def ambiguous(problem: Ledger) -> str | None:
    return next((event.kind for event in problem.events if event.kind in AMBIGUOUS), None)


def right(problem, r: Random) -> str:
    """A right solution, its order and ways by chance."""
    return attempt(problem, r, getattr(problem, "special", None))


LEDGERS = [problem for level in (*LEVELS, HARD) for problem in drawn("ledger", level)]
PUZZLES = [problem for kind in KINDS for level in (*LEVELS, HARD) for problem in drawn(kind, level, 12)]


# Problems


@pytest.mark.parametrize("level", [*LEVELS, HARD])
def test_a_level_has_its_number_of_steps_and_no_result_beyond_its_size(level):
    degree = ledger.DEGREES[level]
    for problem in drawn("ledger", level, 60):
        low, high = degree.steps
        assert low <= len(problem.steps) <= high
        assert all(1 < step.value <= degree.most for step in problem.steps)


def test_levels_run_from_three_to_eight_steps_and_hard_ones_have_more():
    counts = {level: [len(p.steps) for p in drawn("ledger", level, 100)] for level in (*LEVELS, HARD)}
    assert min(counts[1]) == 3 and max(counts[4]) == 8 < min(counts[HARD])
    means = [sum(counts[level]) for level in (*LEVELS, HARD)]
    assert means == sorted(means)


def test_every_step_but_a_side_product_needs_the_one_before_it():
    for problem in LEDGERS:
        needed = {i for step in problem.steps for i in step.needs}
        assert needed == set(range(len(problem.steps) - 1))
        for step in problem.steps:
            left, sign, right, value, _ = step
            assert {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[sign] == value


@pytest.mark.parametrize(
    ("event", "plain", "special"),
    [
        (Event("dozen", (6,)), [(6, "*", 12, 72), (90, "+", 72, 162)], [(6, "*", 13, 78), (90, "+", 78, 168)]),
        (Event("grows", (3,)), [(90, "*", 3, 270)], [(90, "*", 4, 360)]),
        (Event("share", (3,)), [(90, "/", 3, 30), (90, "-", 30, 60)], [(60, "/", 3, 20), (90, "-", 20, 70)]),
    ],
)
def test_the_three_ambiguous_events_read_either_way(event, plain, special):
    before = Event("gain", (30,))
    for reading, expected in ((False, plain), (True, special)):
        made = worked(60, (before, event), reading)
        assert [step[:4] for step in made] == [(60, "+", 30, 90), *expected]


def test_one_word_settles_an_ambiguous_event_and_stands_in_the_others_too():
    hints = {"dozen": r"the bakery has", "grows": r"old ledger", "share": r"of the stock"}
    made = drawn("ledger", 2, 800)
    found = Counter((ambiguous(p), p.special) for p in made)
    for kind, hint in hints.items():
        assert found[kind, True] > 10 and found[kind, False] > 10
        assert all(bool(re.search(hint, p.question)) == p.special for p in made if ambiguous(p) == kind)
    others = [p.question for p in made if ambiguous(p) is None]
    for hint in (hints["dozen"], hints["grows"]):
        assert 0.35 < sum(bool(re.search(hint, text)) for text in others) / len(others) < 0.65


def test_how_many_problems_are_ambiguous_or_distract_is_set_by_degree():
    for level in LEVELS:
        some = drawn("ledger", level, 400)
        assert abs(sum(ambiguous(p) is not None for p in some) / 400 - ledger.DEGREES[level].ambiguous) < 0.15
        sentences = [p.question.count(". ") - 1 - len(p.events) for p in some]
        assert set(sentences) <= {0, 1}
        assert abs(sum(sentences) / 400 - ledger.DEGREES[level].distracting) < 0.1


def test_logic_has_four_different_options_and_every_letter_is_right_as_often():
    letters = Counter()
    for problem in PUZZLES:
        assert len(set(problem.options)) == 4
        letters[problem.answer] += 1
    assert all(0.15 * len(PUZZLES) < letters[letter] < 0.35 * len(PUZZLES) for letter in "ABCD")


def test_in_an_ordering_the_clues_leave_one_row():
    for problem in drawn("ordering", 2):
        before = dict(problem.clues)
        (first,) = set(before) - set(before.values())
        row = [first]
        while row[-1] in before:
            row.append(before[row[-1]])
        place = int(re.search(r"number (\d+)\?", problem.question)[1])
        assert len(row) == len(problem.subject) and problem.options["ABCD".index(problem.answer)] == row[place - 1]


def _worlds(terms: int) -> list[tuple[frozenset[int], ...]]:
    """Every way that up to three things can be of these kinds, no kind empty."""
    things = list(product((0, 1), repeat=terms))
    chosen = (world for size in (1, 2, 3) for world in combinations(things, size))
    kinds = (tuple(frozenset(i for i, t in enumerate(world) if t[k]) for k in range(terms)) for world in chosen)
    return [kind for kind in kinds if all(kind)]


def _holds(quantifier: str, a: frozenset, b: frozenset) -> bool:
    return {"all": a <= b, "no": not a & b, "some": bool(a & b), "some not": not a <= b}[quantifier]


def test_of_a_syllogisms_options_one_alone_follows_in_every_world():
    worlds = _worlds(4)
    for problem in drawn("syllogism", 1, 12):
        position = {term: i for i, term in enumerate(problem.subject)}
        true = [w for w in worlds if all(_holds(q, w[position[a]], w[position[b]]) for q, a, b in problem.clues)]
        for letter, text in zip("ABCD", problem.options, strict=True):
            quantifier, a, b = _read(text)
            follows = all(_holds(quantifier, w[position[a]], w[position[b]]) for w in true)
            assert follows == (letter == problem.answer), (problem.question, text)


def _read(text: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"(All|No|Some) (\w+) are (not )?(\w+)", text)
    return found[1].lower() + (" not" if found[3] else ""), found[2], found[4]


def test_the_clues_of_a_constraint_leave_one_of_the_numbers_and_each_helps():
    for level in (*LEVELS, HARD):
        for problem in drawn("constraint", level, 15):
            left = problem.subject
            for number in range(1, len(problem.clues) + 1):
                left = logic._after_property(problem, left, problem.clues[number - 1])
            assert [str(n) for n in left] == [problem.options["ABCD".index(problem.answer)]]
            assert len(problem.clues) == level + 2


# Checking


@pytest.mark.parametrize("problem", LEDGERS[::5] + PUZZLES[::6], ids=lambda p: f"{p.family}-{p.level}")
def test_every_order_and_way_of_a_right_solution_is_right_and_graded_so(problem):
    r = Random(1)
    told = {right(problem, r) for _ in range(20)}
    assert len(told) > 3
    for text in told:
        assert first_wrong(problem, text) is None
        task, options = ("choice", problem.options) if isinstance(problem, logic.Logic) else ("number", None)
        assert grade(text, problem.answer, task, options=options).verdict == "correct"


def test_a_slip_is_found_in_its_very_line():
    r = Random(2)
    for problem in LEDGERS:
        told = lines(right(problem, r))
        for position, line in enumerate(told, 1):
            number = r.choice(re.findall(r"\d+", line))
            slipped = re.sub(rf"\b{number}\b", str(int(number) + r.choice((1, 10, 7))), line)
            assert first_wrong(problem, "\n".join([*told[: position - 1], slipped, *told[position:]])) == position


def test_a_slip_in_logic_is_found_in_its_very_line():
    r = Random(3)
    for problem in PUZZLES:
        told = lines(right(problem, r))
        for position, line in enumerate(told, 1):
            if "Finish" in line:
                wrong = line.replace(f"is {problem.answer}.", f"is {'ABCD'['ABCD'.index(problem.answer) - 1]}.")
            elif "Use" in line:
                wrong = re.sub(r"\[\d+\]", f"[{len(problem.clues) + 1}]", line)
            else:
                head, _, words = line.partition(": ")
                wrong = f"{head}: {' '.join(words.split()[:-1])} x"
            assert first_wrong(problem, "\n".join([*told[: position - 1], wrong, *told[position:]])) == position


def test_the_other_reading_is_wrong_in_the_step_that_reads_it():
    r, seen = Random(4), set()
    for problem in drawn("ledger", 3, 200):
        kind = ambiguous(problem)
        if kind is None:
            continue
        other = worked(problem.start, problem.events, not problem.special)
        differing = next(i for i, (a, b) in enumerate(zip(problem.steps, other, strict=True), 1) if a[:3] != b[:3])
        text = "\n".join(f"{s.left} {s.sign} {s.right} = {s.value}" for s in other)
        assert first_wrong(problem, f"{text}\nThe answer is {other[-1].value}.") == differing
        seen.add(kind)
        assert first_wrong(problem, attempt(problem, r, problem.special)) is None
    assert seen == set(AMBIGUOUS)


LEDGER = Ledger(1, 60, (Event("gain", (30,)), Event("boxes", (4, 25)), Event("part", (5,))), False, "")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("60 + 30 = 90\n4 * 25 = 100\n90 + 100 = 190\n190 / 5 = 38\nThe answer is 38.", None),
        ("4 * 25 = 80 + 20 = 100\n30 + 60 = 90\n100 + 90 = 190\n190 / 5 = 38\nThe answer is 38.", None),  # any order
        ("60 + 30 = 90\n60 + 30 = 90\n4 * 25 = 100\n90 + 100 = 190\n190 / 5 = 38\nThe answer is 38.", None),  # again
        ("60 + 30 = 91\n4 * 25 = 100\n90 + 100 = 190\n190 / 5 = 38\nThe answer is 38.", 1),
        ("60 + 30 = 80 + 11 = 90\n4 * 25 = 100", 1),  # a false side between
        ("60 + 30 = 90\n90 + 100 = 190\n190 / 5 = 38\nThe answer is 38.", 2),  # a result that isn't known yet
        ("60 + 30 = 90\n4 * 25 = 100\n90 - 100 = 190", 3),
        ("60 + 30 = 90\n4 * 25 = 100\n90 + 100 = 190\n5 / 190 = 38", 4),
        ("60 + 30 = 90\n4 * 25 = 100\nThe answer is 38.", 3),  # before it was worked out
        ("60 + 30 = 90\n4 * 25 = 100\n90 + 100 = 190\n190 / 5 = 38\nThe answer is 190.", 5),
        ("60 + 30 = 90\n4 * 25 = 100\n90 + 100 = 190\n190 / 5 = 38\nThe answer is 38.\nMore", 5),
        ("60 + 30 = 90\n4 * 25 = 100\n90 + 100 = 190\n190 / 5 = 38", 5),  # no answer
        ("60 + 30\n", 1),
        ("60 + 30 = ninety", 1),
        ("60 + 30 = 60 + 30", 1),  # nothing worked out
        ("90 = 90", 1),
        ("", 1),
    ],
)
def test_the_first_wrong_line_of_a_ledger(text, position):
    assert first_wrong(LEDGER, text) == position


def test_states_end_after_each_line():
    assert states("60 + 30 = 90\n\n4 * 25 = 100\nThe") == [
        "60 + 30 = 90\n",
        "60 + 30 = 90\n4 * 25 = 100\n",
        "60 + 30 = 90\n4 * 25 = 100\nThe\n",
    ]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200) | st.from_regex(r"(\d+ [-+*/] \d+ (= \d+ )*\n)*", fullmatch=True))
def test_no_text_stops_the_checker(text):
    for problem in (LEDGER, PUZZLES[0]):
        assert first_wrong(problem, text) is None or first_wrong(problem, text) >= 1


@pytest.mark.parametrize(
    ("side", "value"),
    [("7", 7), ("40 + 2", 42), ("2 + 3 * 4", 14), ("9 - 4 - 2", 3), ("8 / 4 * 3", 6), ("1 / 0", None)],
)
def test_a_side_is_worked_out_by_the_order_of_operations(side, value):
    assert value_of(side) == value


# Rows and splits


@pytest.mark.parametrize("source", steps.FAMILIES)
def test_rows_are_problems_and_the_same_for_the_same_seed(source):
    for split in SPLITS:
        rows = generate(source, split, 40, seed=5)
        assert records.table(rows, records.PROBLEM).num_rows == 40
        assert rows == generate(source, split, 40, seed=5)
        assert rows[:15] == generate(source, split, 15, seed=5)
        assert rows != generate(source, split, 40, seed=6)
        assert {row["level"] for row in rows} == ({HARD} if split == "test_hard" else set(LEVELS))


def test_an_unknown_source_or_split_is_refused():
    for source, split in (("steps", "validation"), ("stairs", "test")):
        with pytest.raises(UserError, match="sources are steps, logic, splits train"):
            generate(source, split, 1)


@pytest.mark.parametrize("source", steps.FAMILIES)
def test_no_problem_of_a_split_begins_as_one_of_another(source):
    rows = [row for split in SPLITS for row in generate(source, split, 2000 if split == "train" else 400)]
    frame = pd.DataFrame(rows)
    assert straddling(frame) == []
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert frame["question"].map(steps.normalised).is_unique


def test_a_problem_is_of_one_split_whatever_comes_after_its_opening():
    r = Random(6)
    for problem in drawn("ledger", 2, 50):
        tail = (*problem.events[:2], Event("gain", (r.randint(1, 99),)))
        assert split_of(Ledger(2, problem.start, tail, False, "other words")) == split_of(problem)


def test_the_corpus_is_of_the_training_split_alone():
    held_out = {
        steps.normalised(row["question"])
        for source in steps.FAMILIES
        for split in ("dev", "test", "test_hard")
        for row in generate(source, split, 500)
    }
    r = Random(7)
    for family in ("ledger", *KINDS):
        assert {split_of(corpus._drawn(r, family, level)) for level in LEVELS for _ in range(40)} == {"train"}
    for pool in ("ledger", "logic", "page", "turns"):
        for document in documents(pool, 150, seed=3):
            asked = re.findall(r"Question: (.*)\n", document)
            assert asked and not held_out & {steps.normalised(text) for text in asked}


# Corpus


def test_the_corpus_never_slips_and_reads_either_way():
    r, readings = Random(8), Counter()
    for problem in drawn("ledger", 3, 300):
        text = attempt(problem, r)
        for line in lines(text)[:-1]:
            assert len({value_of(side) for side in line.split(" = ")}) == 1
        if ambiguous(problem):
            readings[problem.special, first_wrong(problem, text) is None] += 1
    for special in (False, True):
        assert 0.3 < readings[special, True] / (readings[special, True] + readings[special, False]) < 0.7


def test_a_step_is_written_in_several_ways():
    r = Random(9)
    step = ledger.Step(347, "*", 26, 9022, ())
    assert {corpus._line(step, r) for _ in range(60)} == {
        "347 * 26 = 9022",
        "347 * 26 = 7800 + 1222 = 9022",
        "347 * 26 = 6940 + 2082 = 9022",
        "347 * 26 = 10410 - 1388 = 9022",
    }
    assert corpus._line(ledger.Step(300, "+", 5, 305, ()), r) == "300 + 5 = 305"


def test_a_document_is_a_prompt_and_what_follows_it():
    for pool, count in (("ledger", 1), ("logic", 1), ("page", 2)):
        for document in documents(pool, 40, seed=1):
            told = document.split(corpus.BREAK)
            assert len(told) >= count
            for block in told:
                assert block.startswith("Question: ") and block.count("Answer:\n") == 1
                assert re.search(r"The answer is (\d+\.|[A-D]\.\])$", block)


def test_of_several_turns_only_the_last_attempt_is_learnt():
    feedback = Counter()
    for document in documents("turns", 300, seed=2):
        pieces = re.split("[\x0e\x0f]", document)
        learnt, unlearnt = "".join(pieces[::2]), pieces[1::2]
        question = re.match(r"(Question: .*?Answer:\n)", learnt, re.DOTALL)[1]
        assert learnt.count("Question: ") == 1 and unlearnt
        for piece in unlearnt:
            assert piece.endswith(question)  # asked again
            said = piece.removesuffix(question).partition(corpus.BREAK)[2]
            feedback[next(mode for mode, text in corpus.FEEDBACK.items() if text == said)] += 1
    assert set(feedback) == set(corpus.FEEDBACK) and min(feedback.values()) > 80


def test_an_earlier_attempt_tells_nothing_about_the_problem():
    """None of its results is the right one more often than by chance, and it keeps the form."""
    r, right_results, results = Random(10), 0, 0
    for problem in drawn("ledger", 3, 200):
        values = {step.value for step in problem.steps} - {problem.start}
        told = lines(scrambled(problem, r))
        assert len(told) == len(problem.steps) + 1 and told[-1].startswith("The answer is ")
        made = [int(line.rpartition(" = ")[2]) for line in told[:-1]]
        right_results, results = right_results + sum(value in values for value in made), results + len(made)
    assert right_results / results < 0.03
    puzzles = [p for p in PUZZLES if p.level == 3]
    letters = [re.search(r"is ([A-D])\.", scrambled(p, r))[1] == p.answer for p in puzzles * 4]
    assert 0.15 < sum(letters) / len(letters) < 0.35


def test_a_retry_asks_the_question_again_after_the_feedback():
    problem = LEDGERS[0]
    text = retry(problem, "1 + 1 = 3\nThe answer is 3.", "incorrect")
    assert text == ("1 + 1 = 3\nThe answer is 3.\n\nThe answer is incorrect. Please try again.\n" + prompt_of(problem))


def test_the_stream_is_endless_and_repeats_nothing():
    told = [steps.normalised(p.question) for p in islice(steps.problems("logic", "dev"), 500)]
    assert len(set(told)) == len(told)
