"""Properties that hold for every text."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from whetstone.grading import canonical, extract, grade
from whetstone.grading import numbers as numbers_module
from whetstone.grading.answers import DOUBLE_DIGITS
from whetstone.grading.text import fold

TASKS = st.sampled_from(["number", "choice", "math"])
PIECES = st.sampled_from(
    r"""\boxed{|}|{|The answer is |Answer:|#### |A: |<answer>|</answer>|Finish[|]|and |or |. |-|$|,|/|=|%|\frac|\text{
    |x|5|12|1,234|0.5|1e9|:|²|½|উত্তর|答案|الإجابة|Ìdáhùn|B|(c)|option |`|*|~|\|１|٣|million| |3.0000000000000004"""
    .replace("\n    ", "").split("|")
    + ["\n", "\0"]
)  # fmt: skip
OPENINGS = ["", "But ", "So, the ", "**", "Wait. ", "— ", "ｔｈｅ ", "Then 2 + 2 = 4. "]
STATED = [
    "The answer is 5",
    "answer is:\n6 km",
    "The answer is approx. 6 km",
    "A: 7",
    "#### 8",
    r"\boxed{9}",
    "Jibu: 4",
]
CLOSINGS = [".", "", "!", " apples.", ". ", "**", ")", "\n", ".\n", " \n\n"]
SENTENCES = st.tuples(st.sampled_from(OPENINGS), st.sampled_from(STATED), st.sampled_from(CLOSINGS)).map("".join)
TEXTS = st.one_of(
    st.lists(SENTENCES, max_size=5).map("".join), st.text(max_size=200), st.lists(PIECES, max_size=30).map("".join)
)
INTEGERS = st.integers(-(10**18), 10**18)
FRACTIONS = st.fractions(max_denominator=10**6)


@given(TEXTS, TASKS)
@settings(max_examples=500)
def test_reading_never_raises_and_says_what_it_did(text: str, task: str) -> None:
    answer = extract(text, task, options={"A": "12", "B": text[:20]} if task == "choice" else None)
    assert (answer.value is None) == (answer.error is not None)
    assert answer.rule and answer.text == answer.text.strip() or answer.value is None


@given(TEXTS, TEXTS, st.sampled_from(["number", "choice"]), st.sampled_from([None, 1e-3]))
@settings(max_examples=300)
def test_grading_is_symmetric(a: str, b: str, task: str, tolerance: float | None) -> None:
    forth, back = grade(a, b, task, tolerance=tolerance), grade(b, a, task, tolerance=tolerance)
    assert forth.verdict == back.verdict
    assert (forth.verdict == "unparsed") == (forth.error is not None)


@given(TEXTS, st.sampled_from(["number", "choice"]))
@settings(max_examples=300)
def test_an_answer_equals_itself_and_its_canonical_text(text: str, task: str) -> None:
    answer = extract(text, task)
    if answer.value is None:
        assert grade(text, text, task).verdict == "unparsed"
        return
    again = extract(answer.canonical, task)
    assert again.canonical == answer.canonical
    assert grade(answer, answer, task).verdict == "correct"
    assert grade(again, answer, task).verdict == "correct"


ENDINGS = st.sampled_from(
    ["{}", "#### {}", "A: {}", "The answer is {}.", "The answer is ${}.", "Final answer: {}", "so $\\boxed{{{}}}$.",
     "\\boxed{{{}\\text{{ eggs}}}}", "<answer>\n{}\n</answer>", "**Answer:** {}", "The answer is {} apples.",
     "答案是{}。"]
)  # fmt: skip


@given(INTEGERS, ENDINGS, st.sampled_from(["{}", "{:,}", "{}.0", "{:,}.00"]))
def test_what_is_written_is_read_back_integers(value: int, ending: str, form: str) -> None:
    assert extract(f"We add 3 and 4.\n{ending.format(form.format(value))}").value == value


@given(FRACTIONS, ENDINGS)
def test_what_is_written_is_read_back_fractions(value: Fraction, ending: str) -> None:
    text = "We add 3 and 4.\n" + ending.format(f"{value.numerator}/{value.denominator}")
    assert extract(text).value == value
    latex = rf"\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    assert extract(rf"\boxed{{{'-' if value < 0 else ''}{latex}}}").value == value


@given(st.fractions(-(10**6), 10**6, max_denominator=10**5))
def test_a_printed_double_equals_the_fraction_that_it_stands_for(value: Fraction) -> None:
    printed = repr(float(value))
    assume(float(value) == value or sum(map(str.isdigit, printed.lstrip("-0."))) >= DOUBLE_DIGITS)
    assert grade(printed, str(value)).verdict == "correct"


@given(st.integers(-(10**15), 10**15))
def test_a_whole_double_is_exact(value: int) -> None:
    assert extract(repr(float(value))).value == value


@given(st.one_of(INTEGERS, FRACTIONS))
def test_canonical_text_is_exact(value: int | Fraction) -> None:
    assert Fraction(canonical(value)) == value
    assert extract(canonical(value)).value == value


@given(TEXTS)
@settings(max_examples=500)
def test_the_fast_path_never_disagrees(text: str) -> None:
    fast = numbers_module._fast(text)
    if fast is not None:
        original, numbers_module._fast = numbers_module._fast, lambda text: None
        try:
            assert extract(text) == fast
        finally:
            numbers_module._fast = original


def test_the_fast_path_sees_every_second_statement_that_is_next_to_the_last() -> None:
    sentences = ["".join(parts) for parts in product(OPENINGS[::2], STATED, CLOSINGS)]
    original = numbers_module._fast
    quick = [(text, fast) for text in map("".join, product(sentences, repeat=2)) if (fast := original(text))]
    try:
        numbers_module._fast = lambda text: None
        assert len(quick) > 200
        assert [text for text, fast in quick if extract(text) != fast] == []
    finally:
        numbers_module._fast = original


@given(st.text(max_size=80))
@example("1½ ² ﬁ Ａ Ìdáhùn")
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


UNITS = [r"\(", r"\[", r"\text{", "$", " ", "\n", "(", "a ", "1.", r"\frac", "```python\n", r"\boxed{", "9 ", "x=",
         "-", "the answer is ", "answer ", "1,", "5 and ", "<answer>", "Finish[", "#### ", "{", "A:\n",
         "答"]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_no_text_makes_reading_hang(unit: str) -> None:
    """100,000 characters take about a second; where time grows with the square of the length, minutes."""
    start = time.process_time()
    for task in ("number", "choice", "math"):
        extract(unit * (100_000 // len(unit)), task)
    assert time.process_time() - start < 20
