"""Numeric answers: what is read from a text, what is refused, and when two are equal."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from whetstone.grading import Answer, extract, grade
from whetstone.grading import numbers as numbers_module
from whetstone.grading.numbers import equal

READ = [
    # endings of solutions
    ("Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\n#### 18", "18", "hash"),
    ("#### 1,234", "1234", "hash"),
    ("####-5", "-5", "hash"),
    ("So she makes $18.\nA: 18", "18", "a_line"),
    ("She makes 9 * $2 = $18 a day. The answer is $18.", "18", "answer_is"),
    ("The answer is: 12", "12", "answer_is"),
    ("#### 12\nThe answer is: 12", "12", "answer_is"),
    ("Final answer: 12", "12", "answer_is"),
    ("Final Answer: The final answer is $18$. I hope it is correct.", "18", "answer_is"),
    ("### Final Answer\n\n**18**", "18", "answer_is"),
    ("**Answer:** 18", "18", "answer_is"),
    ("Answer:\n\n18 apples", "18", "answer_is"),
    ("So, therefore, the answer would be 7.", "7", "answer_is"),
    ("<answer>\n 18\n</answer>", "18", "tag"),
    ("Action 3: Finish[42]", "42", "finish"),
    (r"so $\boxed{18}$ eggs.", "18", "boxed"),
    (r"The answer is: $\boxed{18}$.", "18", "boxed"),
    (r"\boxed{\boxed{18}}", "18", "boxed"),
    (r"\boxed 7", "7", "boxed"),
    ("Then x = 5. She has 8 left", "8", "last_number"),
    # numbers in all spellings
    ("-5", "-5", "bare"),
    ("−5", "-5", "bare"),
    ("+5", "5", "bare"),
    ("0", "0", "bare"),
    ("51.0", "51", "bare"),
    ("1,234,567", "1234567", "bare"),
    ("12,34,567", "1234567", "bare"),
    ("$1,234.50", "1234.5", "bare"),
    ("The answer is $9 500.", "9500", "answer_is"),
    ("The answer is -$110.", "-110", "answer_is"),
    ("The answer is $-110.", "-110", "answer_is"),
    ("The answer is negative 5.", "-5", "answer_is"),
    ("Rs. 1,680", "1680", "bare"),
    ("€77", "77", "bare"),
    ("The answer is 1000$.", "1000", "answer_is"),
    ("20%", "20", "bare"),
    (r"\boxed{18\%}", "18", "boxed"),
    (r"\boxed{\$18}", "18", "boxed"),
    (r"\boxed{18.00}", "18", "boxed"),
    (r"\boxed{18\text{ eggs}}", "18", "boxed"),
    (r"10,\!080", "10080", "bare"),
    (r"11,\! 111,\! 111,\! 100", "11111111100", "bare"),
    ("10{,}080", "10080", "bare"),
    ("9 (apples)", "9", "bare"),
    ("57 ( science books)", "57", "bare"),
    ("240g", "240", "bare"),
    ("6th", "6", "bare"),
    ("15 cm²", "15", "bare"),
    (".35625", "0.35625", "bare"),
    ("3/4", "0.75", "bare"),
    ("29/3", "29/3", "bare"),
    ("-(1/3)", "-1/3", "bare"),
    (r"\frac{840}{13}", "840/13", "bare"),
    (r"\frac12", "0.5", "bare"),
    (r"-\dfrac{35}{9}", "-35/9", "bare"),
    ("1 3/4", "1.75", "bare"),
    ("1½", "1.5", "bare"),
    (r"137 \frac{1}{2}", "137.5", "bare"),
    ("1e5", "100000", "bare"),
    ("1.5E-3", "0.0015", "bare"),
    (r"6.02 \times 10^{23}", "602000000000000000000000", "bare"),
    ("2x10^3", "2000", "bare"),
    ("1.8 billion", "1800000000", "bare"),
    ("১৮", "18", "bare"),
    ("１２３", "123", "bare"),
    ("٣٫٥", "3.5", "bare"),
    # chains, asides, units
    ("The answer is 220 + 90 + 60 = 370.", "370", "answer_is"),
    ("The answer is 18 = 9 * 2.", "18", "answer_is"),
    ("Answer: x = 5", "5", "answer_is"),
    ("The answer is 18 dollars per day for 7 days.", "18", "answer_is"),
    ("The answer is 5 apples, because 3 and 2 make 5.", "5", "answer_is"),
    ("Answer: 5 (since 3+2 = 5)", "5", "answer_is"),
    ("The answer is $20/hour.", "20", "answer_is"),
    ("The answer is 12 or 12.0", "12", "answer_is"),
    # the last well-formed statement wins
    ("The answer is 5. Wait, 3 + 4 is 7. The answer is 7.", "7", "answer_is"),
    (r"\boxed{3} is what I had, but doubling gives \boxed{6}", "6", "boxed"),
    ("#### 4\nThat forgets the dog.\n#### 5", "5", "hash"),
    ("The answer is 5. The answer is correct.", "5", "answer_is"),
    # a marker that only opens the solution
    ("Answer: Janet has 16 eggs. She eats 3, so 13 are left", "13", "last_number"),
    ("A: Larry has 3 cats and 2 dogs. In all 5", "5", "last_number"),
    ("Answer to Sub-question 1: 4\nSo the total is 9", "9", "last_number"),
    ("#### Step 2: add 3\nThis gives 8", "8", "last_number"),
    # other languages
    ("La respuesta es 18", "18", "answer_is"),
    ("La réponse est 18.", "18", "answer_is"),
    ("Die Antwort ist 18.", "18", "answer_is"),
    ("Jibu: 18", "18", "answer_is"),
    ("উত্তর: ১৮", "18", "answer_is"),
    ("答案是18。", "18", "answer_is"),
    ("答えは 18 です", "18", "answer_is"),
]


@pytest.mark.parametrize(("text", "value", "rule"), READ)
def test_reads(text: str, value: str, rule: str) -> None:
    answer = extract(text)
    assert (answer.canonical, answer.rule, answer.error) == (value, rule, None)


REFUSED = [
    ("", "no_answer"),
    ("I can't tell.", "no_answer"),
    ("Yes", "no_answer"),
    ("Mrs. Hilt", "no_answer"),
    ("We have 2 cases. The answer is unknown.", "no_answer"),
    ("There are 5. <answer>none</answer>", "no_answer"),
    ("The answer is 2 or 3.", "contradiction"),
    ("The answer is 84 sofas and 88 chairs.", "contradiction"),
    ("The answer is 10 hours and 30 minutes.", "contradiction"),
    ("The answer is 6 feet 4 inches.", "contradiction"),
    ("The answer is x = 5 or x = -5.", "contradiction"),
    ("17 (years old); 12 (years old)", "contradiction"),
    (r"\boxed{3} or \boxed{4}", "contradiction"),
    (r"\boxed{3}, \boxed{4}, \boxed{5}", "contradiction"),
    ("The answer is 5. The answer is 7.", "contradiction"),
    ("#### 3\n#### 4", "contradiction"),
    ("5:45", "malformed"),
    ("The answer is 3:00 pm.", "malformed"),
    ("1,23", "malformed"),
    ("1/0", "malformed"),
    ("A: 10+John's age", "malformed"),
    ("The answer is 18 + x hours.", "malformed"),
    ("1e999999999", "malformed"),
    ("9" * 5000, "malformed"),
]


@pytest.mark.parametrize(("text", "error"), REFUSED)
def test_refuses(text: str, error: str) -> None:
    answer = extract(text)
    assert answer.value is None
    assert answer.canonical is None
    assert answer.error == error


GRADED = [
    ("The answer is 0.", "0", "correct"),  # 0 is an answer
    ("Yes", "No", "unparsed"),  # two answers that can't be read are not equal
    ("no idea", "#### 0", "unparsed"),  # nothing is not 0
    ("no idea", "#### -2048", "unparsed"),
    ("The total is $1,234.50", "1234.5", "correct"),  # not 1,234 and then 50
    ("#### 1,080", "1", "wrong"),  # a gold is not cut at its thousands separator
    ("#### 1080", "#### 1,080", "correct"),
    (r"\boxed{1080}", "#### 1,080", "correct"),
    ("0.46", "46", "wrong"),
    ("0.25", "1/4", "correct"),
    ("2/4", "1/2", "correct"),
    ("1.0", "1", "correct"),
    ("1000000", "1,000,000", "correct"),
    ("0.33", "1/3", "wrong"),
    ("12.5 (dollars)", "12", "wrong"),  # the digits after the point count
    ("63.99999999999999", "64", "correct"),  # a printed double is what it rounds from
    ("0.30000000000000004", "0.3", "correct"),
    ("14.666666666666666", "44/3", "correct"),
    ("14.666666666666666", "14.67", "wrong"),
    ("99999999999999999999", "100000000000000000000", "wrong"),  # integers are exact at any size
]


@pytest.mark.parametrize(("prediction", "gold", "verdict"), GRADED)
def test_grades(prediction: str, gold: str, verdict: str) -> None:
    assert grade(prediction, gold).verdict == verdict
    assert grade(gold, prediction).verdict == verdict
    assert grade(extract(prediction), extract(gold)).verdict == verdict


def test_none_equals_nothing() -> None:
    assert grade(None, None) == ("unparsed", "none", "no_answer")
    assert grade(None, "5").verdict == "unparsed"
    assert grade("5", None) == ("unparsed", "bare", "gold")
    assert grade("5", "unknown").error == "gold"


def test_tolerance_only_where_it_is_given() -> None:
    assert grade("78.21", "78.20").verdict == "wrong"
    assert grade("78.21", "78.20", tolerance=1e-3) == ("correct", "bare+tolerance", None)
    assert grade("78.21", "78.20", tolerance=1e-5).verdict == "wrong"
    assert equal(0, Fraction(1, 1000), 1e-3) and not equal(0, Fraction(2, 1000), 1e-3)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_double_without_a_value_equals_no_number(value: float) -> None:
    assert not equal(value, 3, 1e-3)


def test_one_function_reads_gold_and_prediction() -> None:
    gold = "She sells 48/2 = <<48/2=24>>24 clips in May.\n#### 72"
    assert grade("The answer is 72.", gold) == ("correct", "answer_is", None)
    assert grade(gold, gold) == ("correct", "hash", None)


@pytest.mark.parametrize(("text", "value", "rule"), READ)
def test_the_fast_path_changes_nothing(monkeypatch: pytest.MonkeyPatch, text: str, value: str, rule: str) -> None:
    usual = extract(text)
    monkeypatch.setattr(numbers_module, "_fast", lambda text: None)
    assert extract(text) == usual == Answer(usual.value, usual.text, rule)
