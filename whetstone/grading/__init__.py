"""The grader: reads the final answer of a text, and compares two. One reading serves gold answers and predictions.

    extract("… The answer is $1,234.50.", "number").value  ==  Fraction(2469, 2)
    grade("Final answer: 12", "#### 12")                   ==  Verdict("correct", "answer_is", None)

Neither raises on any text. Nothing that a model wrote is ever evaluated in this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whetstone.grading.answers import Answer, Value, Verdict, canonical
from whetstone.grading.numbers import equal, extract_number

__all__ = ["Answer", "TASKS", "Value", "Verdict", "canonical", "extract", "grade"]

Options = Mapping[str, str] | Sequence[str]
TASKS = ("number", "choice", "math")


def extract(
    text: str, task: str = "number", *, options: Options | None = None, tolerance: float | None = None
) -> Answer:
    """The final answer that a text states.

    options: for "choice", the texts by letter, or in order from A; only these letters exist, and a text may stand for
    its letter.
    tolerance: for "choice", how far (relative) a bare number may be from the option that it stands for.
    """
    if task == "number":
        return extract_number(text)
    if task == "choice":
        from whetstone.grading.choices import extract_choice

        return extract_choice(text, options, tolerance)
    if task == "math":
        from whetstone.grading.symbolic import extract_math

        return extract_math(text)
    raise ValueError(f"unknown task {task!r}: one of {', '.join(TASKS)}")


def grade(
    prediction: str | Answer | None,
    gold: str | Answer | None,
    task: str = "number",
    *,
    tolerance: float | None = None,
    options: Options | None = None,
) -> Verdict:
    """Whether two answers (texts, or answers that were extracted before) are the same. Symmetric in the verdict.

    tolerance: None compares exactly; else |a - b| <= tolerance * max(1, |a|, |b|), for data sets that say so.
    An answer that could not be read equals nothing: the verdict is "unparsed" and the error says why; "gold" when the
    prediction was read but the gold was not.
    """
    if not isinstance(prediction, Answer):
        prediction = _read(prediction, task, options, tolerance)
    if not isinstance(gold, Answer):
        gold = _read(gold, task, options, tolerance)
    if prediction.value is None:
        return Verdict("unparsed", prediction.rule, prediction.error)
    if gold.value is None:
        return Verdict("unparsed", prediction.rule, "gold")
    if prediction.value == gold.value:
        return Verdict("correct", prediction.rule)
    if task == "number":
        same = not isinstance(prediction.value, str) and not isinstance(gold.value, str)
        if same and equal(prediction.value, gold.value, tolerance):
            return Verdict("correct", f"{prediction.rule}+tolerance")
    elif task == "math":
        from whetstone.grading.symbolic import equivalent

        return equivalent(prediction, gold, tolerance)
    return Verdict("wrong", prediction.rule)


def _read(text: str | None, task: str, options: Options | None, tolerance: float | None) -> Answer:
    if text is None:
        return Answer(None, "", "none", "no_answer")
    return extract(text, task, options=options, tolerance=tolerance)
