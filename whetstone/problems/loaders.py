"""Public data sets as PROBLEM rows: MetaMathQA, GSM8K, SVAMP, ASDiv, MAWPS and its parts, any table, any Hub data set.

Where rows come from (a file, or a Hub data set at a pinned commit) and what their columns mean (`kind`) are told
apart, so a downloaded MetaMathQA and the one on the Hub are the same problems. docs/data.md lists the sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from whetstone import grading
from whetstone.errors import UserError
from whetstone.problems import reading
from whetstone.problems.splits import deduplicate, group_of, normalise, part_of, uniform
from whetstone.records import fingerprint

Type = Literal[
    "GSM_AnsAug", "GSM_Rephrased", "GSM_SV", "GSM_FOBAR", "MATH_AnsAug", "MATH_Rephrased", "MATH_SV", "MATH_FOBAR"
]
GSM_TYPES: tuple[Type, ...] = ("GSM_AnsAug", "GSM_Rephrased", "GSM_SV", "GSM_FOBAR")


class SourceSpec(BaseModel):
    """One data set: where its rows are, what its columns mean, and into which split they go."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["metamath", "gsm8k", "svamp", "asdiv", "mawps", "table"]
    path: str | None = None  # a file, or a pattern of files
    dataset: str | None = None  # or a data set of the Hub ...
    revision: str | None = None  # ... at this commit (40 hexadecimal digits)
    config: str | None = None
    hub_split: str = "train"
    name: str | None = None  # what `source` says; by default the kind, see `load`
    split: str = "train"
    task: Literal["number", "math"] = "number"
    columns: dict[Literal["id", "question", "answer", "group", "family", "level"], str] = Field(default_factory=dict)
    types: tuple[Type, ...] | None = GSM_TYPES  # of MetaMathQA's rows; null takes all
    limit: int | None = Field(default=None, ge=1)  # this many problems, by hash of their id
    unparsed: Literal["raise", "drop"] = "raise"  # a gold that the grader can't read

    @model_validator(mode="after")
    def _one_origin(self) -> SourceSpec:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("name either `path` (a file) or `dataset` (a data set of the Hub), not both")
        if self.dataset and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(
                f"`revision` of {self.dataset} is {self.revision!r}; pin it to a commit (40 hexadecimal digits, under "
                "Files and versions > History on its page): a branch can change under a finished run"
            )
        if self.path and (self.revision or self.config):
            raise ValueError("`revision` and `config` belong to `dataset`; a file is versioned by DVC")
        if self.columns and self.kind != "table":
            raise ValueError(f"`columns` belongs to kind `table`; the columns of {self.kind} are known")
        return self


class Item(NamedTuple):
    """What a format reads from one row; the gold is still text."""

    question: str
    gold: object
    key: object = None  # the data set's own id
    original: str | None = None  # the question that this one was made from
    family: str | None = None
    level: int | None = None


def load(source: SourceSpec) -> pd.DataFrame:
    """The problems of a data set, with the columns of records.PROBLEM, in the order of the source.

    The gold is the grader's canonical text. `part` is 1..5 in train, by hash of the group, and 0 elsewhere.
    MetaMathQA is reduced to one row per question; other sets keep the rows that they were published with. `source` is
    the kind by default; a table's is its file name, MAWPS' too, and SVAMP's tells how many of its 1,000 problems there
    are (`svamp` or, with the usual 700/300 division, `svamp_700` and `svamp_300`).

    `frame.attrs["counts"]` tells rows `read`, `kept`, and dropped by reason: `type` (not asked for), `repeated`,
    `conflicting` (one question, two golds), `unparsed`, `limit`; `frame.attrs["unparsed"]` lists those golds by id.

    Raises:
        UserError: a file is missing, empty or malformed, a column is missing, no row is left, or a gold isn't readable
            and `unparsed` is `raise`.
    """
    place, found = str(source.path or source.dataset), list(_rows(source))
    counts = {"read": len(found)}
    if source.kind == "metamath" and source.types is not None:
        found = [(where, row) for where, row in found if _text(row, "type", where) in source.types]
        counts["type"] = counts["read"] - len(found)
    name = source.name or _name(source, len(found))
    rows, unparsed = [], {}
    for number, (where, row) in enumerate(found):
        item = _FORMATS[source.kind](row, where, source.columns)
        problem = _problem(item, number, name, source)
        if problem["answer"] is None:
            unparsed[problem["id"]] = (where, item.gold)
        else:
            rows.append(problem)
    if unparsed and source.unparsed == "raise":
        first, (where, gold) = next(iter(unparsed.items()))
        raise UserError(
            f"{where}: {first}: can't read the answer {str(gold)[-80:]!r} as a {source.task} ({len(unparsed)} of "
            f"{len(found)} rows); correct it, or set `unparsed: drop` to leave such rows out"
        )
    frame = pd.DataFrame(rows)
    counts["unparsed"] = len(unparsed)
    if source.kind == "metamath" and rows:
        frame, repeats = deduplicate(frame)
        counts |= repeats
    if source.limit is not None and len(frame) > source.limit:
        counts["limit"] = len(frame) - source.limit
        order = frame["id"].map(lambda identifier: uniform("limit", identifier))
        frame = frame.loc[sorted(order.nsmallest(source.limit).index)].reset_index(drop=True)
    if frame.empty:
        raise UserError(f"{place}: 0 of {counts['read']} rows are left: {counts}")
    counts["kept"] = len(frame)
    frame.attrs = {"counts": counts, "unparsed": {identifier: str(gold) for identifier, (_, gold) in unparsed.items()}}
    return frame


def gold(value: object, task: str = "number") -> str | None:
    """The grader's canonical text of a gold answer, or None. Stricter than for a completion: a gold is a number or an
    expression alone, so neither "3:30 p.m." nor "Vendor 2" nor "5; 15" is one, and none is searched for in prose."""
    text = "" if value is None else str(value).strip()
    if task == "math":
        return grading.extract(f"\\boxed{{{text}}}", task).canonical if text else None
    answer = grading.extract(text, task)
    worded = re.search(r"[^\W\d_]{2}", re.sub(r"\\[a-z]+", "", text))
    return answer.canonical if answer.rule == "bare" and not worded else None


def _rows(source: SourceSpec) -> Iterator[tuple[str, reading.Row]]:
    if source.path is not None:
        return reading.rows(source.path)
    return reading.hub_rows(source.dataset, source.revision, source.hub_split, source.config)


def _name(source: SourceSpec, rows: int) -> str:
    if source.kind == "svamp":
        return "svamp" if rows == 1000 else f"svamp_{rows}"
    if source.kind in ("mawps", "table"):
        return Path(source.path).stem.lower() if source.path else source.dataset.rpartition("/")[2].lower()
    return source.kind


def _problem(item: Item, number: int, name: str, source: SourceSpec) -> dict[str, Any]:
    """The PROBLEM row; its answer is None where the grader can't read the gold."""
    question = item.question.strip()
    group = group_of(item.original or question)
    if source.kind == "metamath":  # its rows have no id of their own, and repeat
        identifier = f"{name}-{fingerprint(normalise(question))}"
    else:
        identifier = f"{name}-{source.split}-{number:05d}" if item.key is None else f"{name}-{item.key}"
    return {
        "id": identifier,
        "question": question,
        "answer": gold(item.gold, source.task),
        "task": source.task,
        "source": name,
        "group": group,
        "split": source.split,
        "part": part_of(group) if source.split == "train" else 0,
        "family": item.family,
        "level": item.level,
        "options": None,
    }


def _cell(row: reading.Row, column: str, where: str) -> Any:
    if column not in row:
        raise UserError(f"{where}: no column `{column}` in {', '.join(row)}; correct `kind`, or name it in `columns`")
    return row[column]


def _text(row: reading.Row, column: str, where: str) -> str:
    value = _cell(row, column, where)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: `{column}` is {value!r}, expected text; correct the row or leave it out")
    return value.strip()


def _whole(value: object, column: str | None, where: str) -> int | None:
    """A level: 3, "3", absent."""
    try:
        return None if value in (None, "") else int(str(value))
    except ValueError:
        raise UserError(f"{where}: `{column}` is {value!r}, expected a whole number") from None


def _metamath(row: reading.Row, where: str, _: dict) -> Item:
    """The response ends `The answer is: 4`. SV and FOBAR rows ask for the x that the question hides: their gold isn't
    the original question's."""
    gold = _text(row, "response", where).rpartition("The answer is:")[2]
    original = _text(row, "original_question", where)
    return Item(_text(row, "query", where), gold, original=original, family=_text(row, "type", where))


def _gsm8k(row: reading.Row, where: str, _: dict) -> Item:
    return Item(_text(row, "question", where), _text(row, "answer", where).rpartition("####")[2])


def _svamp(row: reading.Row, where: str, _: dict) -> Item:
    question = f"{_text(row, 'Body', where)} {_text(row, 'Question', where)}"
    family = _text(row, "Type", where).replace("Common-Divison", "Common-Division")  # one row misspells it
    return Item(question, _cell(row, "Answer", where), key=_cell(row, "ID", where), family=family)


def _asdiv(row: reading.Row, where: str, _: dict) -> Item:
    """The XML, and its copy on the Hub, which has neither id nor grade. A unit stands in brackets after the number."""
    question = f"{_text(row, 'body', where)} {_text(row, 'question', where)}"
    gold = re.sub(r"\s+\([^()]*\)$", "", _text(row, "answer", where))
    level = _whole(row.get("grade"), "grade", where)
    return Item(question, gold, key=row.get("id"), family=_text(row, "solution_type", where), level=level)


def _mawps(row: reading.Row, where: str, _: dict) -> Item:
    """Two forms: `sQuestion` with solutions (MultiArith, AddSub, SingleEq), `original_text` with `ans` (MAWPS)."""
    if "sQuestion" in row:
        solutions = _cell(row, "lSolutions", where)
        gold = solutions[0] if len(solutions) == 1 else solutions
        return Item(_text(row, "sQuestion", where), gold, key=row.get("iIndex"))
    return Item(_text(row, "original_text", where), _cell(row, "ans", where), key=row.get("id"))


def _table(row: reading.Row, where: str, columns: dict[str, str]) -> Item:
    question = _text(row, columns.get("question", "question"), where)
    gold = _cell(row, columns.get("answer", "answer"), where)
    key, original, family, level = (
        _cell(row, columns[name], where) if name in columns else None for name in ("id", "group", "family", "level")
    )
    return Item(question, gold, key, original, family, _whole(level, columns.get("level"), where))


_FORMATS: dict[str, Callable[[reading.Row, str, dict], Item]] = {
    "metamath": _metamath,
    "gsm8k": _gsm8k,
    "svamp": _svamp,
    "asdiv": _asdiv,
    "mawps": _mawps,
    "table": _table,
}
