"""Grades the attempts of a model: texts by what they state, programs by what they answer in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from whetstone.errors import UserError
from whetstone.grading import Answer, Options, extract, grade
from whetstone.grading.answers import unparsed

if TYPE_CHECKING:
    from whetstone.grading.sandbox import Outcome

_SHOWN = 80
_OUTPUT = 2_000  # characters kept of what a program printed
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")

_FENCE = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL | re.IGNORECASE)


class GradedAttempt(NamedTuple):
    """answer: the canonical string that was read, or None. verdict, rule, error: as in `Verdict`; the error of a
    program that failed is the sandbox's class (syntax, exception, timeout, …); "truncated": the completion hit its
    token limit. output: what a program printed and the message that it failed with; None for a text and for a silent
    program.
    """

    answer: str | None
    verdict: str
    rule: str
    error: str | None
    output: str | None = None


def grade_attempts(
    texts: Sequence[str],
    strategies: Sequence[str],
    golds: Sequence[str],
    tasks: Sequence[str] | str = "number",
    *,
    finish_reasons: Sequence[str | None] | None = None,
    options: Sequence[Options | None] | None = None,
    tolerance: float | None = None,
    timeout: float = 5.0,
    workers: int | None = None,
) -> list[GradedAttempt]:
    """Verdicts on N completions, in their order. A row's verdict depends on that row alone, so a long list may be
    graded in chunks of any size.

    strategies: "pot" completions are programs and run in the sandbox, `timeout` seconds each, in `workers` processes;
    all others are texts. finish_reasons: a completion that stopped at "length" has not given its answer.
    Raises UserError when the lengths differ or a gold answer can't be read: that row would count against the model.
    """
    n = len(texts)
    tasks = [tasks] * n if isinstance(tasks, str) else tasks
    columns = (("strategies", strategies), ("golds", golds), ("tasks", tasks), ("options", options))
    for name, column in (*columns, ("finish_reasons", finish_reasons)):
        if column is not None and len(column) != n:
            raise UserError(f"grade_attempts: {n} texts but {len(column)} {name}; every attempt needs one")
    options = options or [None] * n
    truncated = [reason == "length" for reason in finish_reasons] if finish_reasons else [False] * n
    programs = [row for row in range(n) if strategies[row] == "pot" and not truncated[row]]
    outcomes = {}
    if programs:
        from whetstone.grading.sandbox import run_programs

        limits = {"timeout": timeout} if workers is None else {"timeout": timeout, "workers": workers}
        ran = run_programs([program_of(texts[row]) for row in programs], **limits)
        outcomes = dict(zip(programs, ran, strict=True))
    graded = []
    for row in range(n):
        gold = extract(golds[row], tasks[row], options=options[row])
        if gold.value is None:
            shown = golds[row] if len(golds[row]) <= _SHOWN else golds[row][:_SHOWN] + "…"
            raise UserError(
                f"grade_attempts: the gold answer of row {row} is no {tasks[row]} answer ({gold.error}): {shown!r}; "
                "drop such problems when they are loaded"
            )
        if truncated[row]:
            answer = unparsed("truncated")
        elif row in outcomes:
            outcome = outcomes[row]
            answer = unparsed(outcome.error or "no_answer", "program")
            if outcome.error is None and outcome.answer is not None:
                answer = _of_program(extract(outcome.answer, tasks[row], options=options[row], tolerance=tolerance))
        else:
            answer = extract(texts[row], tasks[row], options=options[row], tolerance=tolerance)
        verdict = grade(answer, gold, tasks[row], tolerance=tolerance, options=options[row])
        printed = _printed(outcomes[row]) if row in outcomes else None
        graded.append(GradedAttempt(answer.canonical, *verdict, printed))
    return graded


def program_of(solution: str) -> str:
    """The program of a program-of-thoughts solution: its first fenced block, or all of it when nothing is fenced."""
    fenced = _FENCE.search(solution)
    return fenced[1] if fenced else solution


def _printed(outcome: Outcome) -> str | None:
    """To be read by people. Addresses change from run to run, so they are left out: tables repeat byte by byte."""
    printed = outcome.stdout.strip()
    if len(printed) > _OUTPUT:
        printed = f"{printed[:_OUTPUT]}… ({len(printed) - _OUTPUT:,} characters more)"
    lines = [line for line in (printed, outcome.detail.strip() if outcome.error else "") if line]
    return _ADDRESS.sub("0x…", "\n".join(lines)) or None


def _of_program(answer: Answer) -> Answer:
    return answer._replace(rule=f"program:{answer.rule}")
