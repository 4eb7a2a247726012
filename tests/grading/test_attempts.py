"""Attempts: texts and programs side by side, in order, whatever the batch."""

from __future__ import annotations

import pytest

from whetstone.errors import UserError
from whetstone.grading.attempts import grade_attempts, program_of

ROWS = [  # text, strategy, gold, finish_reason, expected
    ("3 + 4 = 7. The answer is 7.", "cot", "7", "stop", ("7", "correct", "answer_is", None)),
    ("Sub-question 1: how many?\nAnswer to Sub-question 1: 4\nFinal Answer: 8", "l2m", "8", "stop",
     ("8", "correct", "answer_is", None)),
    ("answer = 3 + 4", "pot", "7", "stop", ("7", "correct", "program:bare", None)),
    ("answer = 5 - 5", "pot", "0", "stop", ("0", "correct", "program:bare", None)),
    ("answer = 0.1 + 0.2", "pot", "0.3", "stop", ("0.3", "correct", "program:bare", None)),
    ("answer = 3 * 4", "pot", "7", "stop", ("12", "wrong", "program:bare", None)),
    ("answer = 1 / 0", "pot", "7", "stop", (None, "unparsed", "program", "exception")),
    ("answer = (1", "pot", "7", "stop", (None, "unparsed", "program", "syntax")),
    ("total = 7", "pot", "7", "stop", (None, "unparsed", "program", "no_answer")),
    ("def solution():\n    return 7", "pot", "7", "stop", ("7", "correct", "program:bare", None)),
    ("```python\nanswer = 7\n```\nso it is 8", "pot", "7", "stop", ("7", "correct", "program:bare", None)),
    ("The answer is 7.", "cot", "7", "length", (None, "unparsed", "none", "truncated")),
    ("answer = 7", "pot", "7", "length", (None, "unparsed", "none", "truncated")),
    ("", "cot", "7", "stop", (None, "unparsed", "none", "no_answer")),
    ("The answer is 7.", None, "7", "stop", ("7", "correct", "answer_is", None)),
]  # fmt: skip


def columns(rows: list[tuple]) -> tuple[list, list, list, list]:
    return tuple(list(column) for column in list(zip(*rows, strict=True))[:4])


def test_texts_and_programs_keep_their_order() -> None:
    texts, strategies, golds, reasons = columns(ROWS)
    graded = grade_attempts(texts, strategies, golds, finish_reasons=reasons, workers=1)
    assert [one[:4] for one in graded] == [row[4] for row in ROWS]


SILENT = "the program set no `answer` and printed nothing"


@pytest.mark.parametrize(
    ("text", "strategy", "output"),
    [
        ("answer = 7", "pot", None),
        ("print('half: ', 7 / 2)\nanswer = 7", "pot", "half:  3.5"),
        ("total = 7", "pot", SILENT),
        ("print('so far')\nanswer = totl", "pot", "so far\nNameError: name 'totl' is not defined"),
        ("answer = (", "pot", "SyntaxError: '(' was never closed (<program>, line 1)"),
        ("print('x' * 3000)\nanswer = 7", "pot", "x" * 2000 + "… (1,000 characters more)"),
        ("while True: pass", "pot", "stopped after 1 s"),
        ("print(object())\nanswer = 7", "pot", "<object object at 0x…>"),  # another one in each run
        ("It prints 7. The answer is 7.", "cot", None),
    ],
)
def test_what_a_program_printed_is_kept_for_readers(text: str, strategy: str, output: str | None) -> None:
    (graded,) = grade_attempts([text], [strategy], ["7"], timeout=1.0, workers=1)
    assert graded.output == output


def test_the_batch_does_not_matter() -> None:
    texts, strategies, golds, reasons = columns(ROWS)
    whole = grade_attempts(texts, strategies, golds, finish_reasons=reasons, workers=1)
    parts = [
        graded
        for at in range(0, len(ROWS), 4)
        for graded in grade_attempts(texts[at : at + 4], strategies[at : at + 4], golds[at : at + 4],
                                     finish_reasons=reasons[at : at + 4], workers=1)
    ]  # fmt: skip
    assert parts == whole


def test_choices_and_expressions_beside_numbers() -> None:
    graded = grade_attempts(
        ["The answer is (b).", "answer = 600 / 2", r"\boxed{2\sqrt2}", "answer = Symbol('x') * 2"],
        ["cot", "pot", "cot", "pot"],
        ["B", "B", r"\sqrt8", "2x"],
        ["choice", "choice", "math", "math"],
        options=[["A)270", "B)300"], {"A": "270", "B": "300"}, None, None],
        workers=1,
    )
    assert [g.answer for g in graded] == ["B", "B", r"2\sqrt{2}", r"2\cdot x"]
    assert [g.verdict for g in graded] == ["correct"] * 4


def test_nothing_to_grade() -> None:
    assert grade_attempts([], [], []) == []


def test_a_gold_that_cannot_be_read_is_a_mistake_of_the_data() -> None:
    with pytest.raises(UserError, match=r"row 1 .*contradiction.*'8; 40'"):
        grade_attempts(["7", "8"], ["cot", "cot"], ["7", "8; 40"])


def test_columns_of_different_length() -> None:
    with pytest.raises(UserError, match="2 texts but 1 golds"):
        grade_attempts(["7", "8"], ["cot", "cot"], ["7"])


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("answer = 7", "answer = 7"),
        ("Here:\n```python\nanswer = 7\n```\nDone.", "answer = 7\n"),
        ("```\nanswer = 7\n```", "answer = 7\n"),
        ("```py\nanswer = 7", "answer = 7"),
    ],
)
def test_program_of(completion: str, program: str) -> None:
    assert program_of(completion) == program
