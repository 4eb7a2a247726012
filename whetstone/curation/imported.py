"""Completions made elsewhere, graded and told apart like our own: rows of a file to attempts.

A row names its problem (by id, or by its question) and its strategy and holds the text, or a list of texts, one per
sample. Nothing is known of the model's prompt or seed, so those columns say so.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from whetstone.errors import UserError
from whetstone.grading.attempts import grade_attempts
from whetstone.problems import reading
from whetstone.problems.splits import normalise
from whetstone.prompts import strategies

Column = Literal["problem_id", "question", "strategy", "text", "finish_reason", "prompt_tokens", "completion_tokens"]


class CompletionsSpec(BaseModel):
    """A file of completions and what its columns are called, where they aren't called what we call them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str  # a file, or a pattern of files
    model: str  # label of the model that wrote them
    strategy: str | None = None  # of all rows, where no column tells it
    columns: dict[Column, str] = Field(default_factory=dict)
    unmatched: Literal["raise", "drop"] = "raise"  # a row whose problem isn't among the problems


def load(source: CompletionsSpec, problems: pd.DataFrame, workers: int | None = None) -> pd.DataFrame:
    """The attempts (records.ATTEMPT) in a file of completions; see `attempts`."""
    digest = hashlib.sha256()
    for file in reading.files(source.path):
        digest.update(file.read_bytes())
    return attempts(reading.rows(source.path), source, problems, f"imported:{digest.hexdigest()[:16]}", workers)


def attempts(
    rows: Iterable[tuple[str, reading.Row]],
    source: CompletionsSpec,
    problems: pd.DataFrame,
    engine: str,
    workers: int | None = None,
) -> pd.DataFrame:
    """The attempts that completions amount to, in the order of the rows; programs run in the sandbox (`workers`).

    A problem is found by `problem_id`, or else by its question, whatever its spacing and punctuation. Several texts
    for one (problem, strategy) are its samples 0, 1, ...; every attempt is a first attempt.

    `frame.attrs["counts"]` tells rows `read`, `unmatched` (dropped), and attempts `kept`.

    Raises:
        UserError: a column is missing, a strategy is unknown, a question is that of several problems, or a row matches
            no problem and `unmatched` is `raise`. One message names all rows concerned.
    """
    rows = list(rows)
    index = _Index(problems)
    found = [_find(row, where, source, index) for where, row in rows]
    lost = [where for (where, _), problem in zip(rows, found, strict=True) if problem is None]
    if lost and (source.unmatched == "raise" or len(lost) == len(rows)):
        raise UserError(
            f"{source.path}: {len(lost)} of {len(rows)} completions match none of the {len(problems)} problems, "
            f"the first at {lost[0]}; load the data set that they answer, or set `unmatched: drop`"
        )
    names = [_strategy(row, where, source) for where, row in rows]
    _check_strategies(names, source)
    made, samples = [], Counter()
    for (where, row), problem, given in zip(rows, found, names, strict=True):
        if problem is None:
            continue
        name = strategies.strategy(given).name
        for text in _texts(row, where, source):
            known = {"problem_id": problem["id"], "strategy": name, "sample": samples[problem["id"], name]}
            samples[problem["id"], name] += 1
            made.append(_attempt(row, where, source, text=text, engine=engine, **known))
    asked = [index.by_id[one["problem_id"]] for one in made]
    graded = grade_attempts(
        [one["text"] for one in made],
        [one["strategy"] for one in made],
        [problem["answer"] for problem in asked],
        [problem["task"] for problem in asked],
        finish_reasons=[one["finish_reason"] for one in made],
        options=[_lettered(problem.get("options")) for problem in asked],
        workers=workers,
    )
    frame = pd.DataFrame([one | grade._asdict() for one, grade in zip(made, graded, strict=True)], dtype=object)
    frame.attrs = {"counts": {"read": len(rows), "unmatched": len(lost), "kept": len(frame)}}
    return frame


class _Index:
    """Problems by id and by normalised question."""

    def __init__(self, problems: pd.DataFrame) -> None:
        self.by_id = {row["id"]: row for row in problems.to_dict("records")}
        self.by_question: dict[str, list[dict]] = defaultdict(list)
        for row in self.by_id.values():
            self.by_question[normalise(row["question"])].append(row)


def _find(row: reading.Row, where: str, source: CompletionsSpec, index: _Index) -> dict | None:
    identifier, question = (row.get(source.columns.get(name, name)) for name in ("problem_id", "question"))
    if identifier is not None:
        return index.by_id.get(str(identifier))
    if question is None:
        raise UserError(f"{where}: neither `problem_id` nor `question` in {', '.join(row)}; name one in `columns`")
    matches = index.by_question.get(normalise(str(question)), [])
    if len(matches) > 1:
        ids = ", ".join(one["id"] for one in matches)
        raise UserError(f"{where}: its question is that of {len(matches)} problems ({ids}); name the `problem_id`")
    return matches[0] if matches else None


def _strategy(row: reading.Row, where: str, source: CompletionsSpec) -> str:
    if source.strategy is not None:
        return source.strategy
    column = source.columns.get("strategy", "strategy")
    if row.get(column) is None:
        raise UserError(f"{where}: no `{column}` in {', '.join(row)}; name it in `columns`, or set `strategy`")
    return str(row[column])


def _check_strategies(names: list[str], source: CompletionsSpec) -> None:
    known = {*strategies.STRATEGIES, *strategies.OLD_NAMES}
    unknown = Counter(name for name in names if name not in known)
    if unknown:
        told = ", ".join(f"{name!r} in {count} rows" for name, count in sorted(unknown.items()))
        raise UserError(f"{source.path}: unknown strategies: {told}; known: {', '.join(sorted(known))}")


def _texts(row: reading.Row, where: str, source: CompletionsSpec) -> list[str]:
    column = source.columns.get("text", "text")
    value = row.get(column)
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: `{column}` is {value!r}, expected a text or a list of texts")
    return texts


def _attempt(row: reading.Row, where: str, source: CompletionsSpec, **known: object) -> dict:
    """The ungraded attempt of one text."""
    finish = row.get(source.columns.get("finish_reason", "finish_reason")) or "stop"
    if finish not in ("stop", "length"):
        raise UserError(f"{where}: finish_reason is {finish!r}, expected `stop` or `length`")
    tokens = {name: row.get(source.columns.get(name, name)) for name in ("prompt_tokens", "completion_tokens")}
    return known | {
        "id": f"{source.model}:{known['problem_id']}:{known['strategy']}:{known['sample']}",
        "model": source.model,
        "turn": 1,
        "probability": None,
        "finish_reason": finish,
        **{name: None if count is None else int(count) for name, count in tokens.items()},
        "logprob": None,
        "prompt_hash": None,
        "seed": None,
    }


def _lettered(options: list[str] | None) -> dict[str, str] | None:
    return None if options is None else {chr(ord("A") + at): option for at, option in enumerate(options)}
