"""Public multiple-choice sets as PROBLEM rows: MMLU, MMMLU, Global-MMLU, LogiQA 2.0, AQuA, CommonsenseQA.

`source` says data set and language (`mmlu:yo`). Each row has the keys by which it belongs together with others (its
text, its passage, an id that its set gives it in every language), and the place by which `problems.alignment` finds
the same question in other languages and layouts. `problems.choice_splits` makes groups and splits of them.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from whetstone.errors import UserError
from whetstone.problems import reading
from whetstone.problems.splits import normalise
from whetstone.prompts.choices import LETTERS
from whetstone.records import fingerprint

Kind = Literal["mmlu", "simple_evals", "mmmlu", "global_mmlu", "logiqa2", "aqua", "commonsenseqa"]
_HUB = ("mmmlu", "global_mmlu", "simple_evals", "mmlu")
_LONG = 40  # words from which on the text before a question is a passage that several questions may share
SPLIT_NAMES = {"validation": "val"}
_NUMBERED = re.compile(r"^\s*(?:\(?[A-J]\)|[A-J]\.)\s*")


class ChoiceSource(BaseModel):
    """One data set in one language: where its rows are, and into which split they go."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Kind
    path: str | None = None  # a file, or a pattern of files
    dataset: str | None = None  # or a data set of the Hub ...
    revision: str | None = None  # ... at this commit (40 hexadecimal digits)
    config: str | None = None  # of the Hub: the locale of MMMLU (YO_NG), the language of Global-MMLU (yo)
    hub_split: str = "test"
    language: str = "en"  # ISO 639-1
    split: Literal["train", "dev", "test", "divide"] = "divide"  # divide: by hash of the group
    published: str | None = None  # the split that the rows were published as; by default what path or hub_split say
    limit: int | None = Field(default=None, ge=1)  # this many groups, by hash: the same ones in every language

    @model_validator(mode="after")
    def _one_origin(self) -> ChoiceSource:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("name either `path` (a file) or `dataset` (a data set of the Hub), not both")
        if self.dataset and self.kind not in _HUB:
            raise ValueError(f"{self.kind} is read from a file: give `path`")
        if self.dataset and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"`revision` of {self.dataset} is {self.revision!r}; pin it to a commit, 40 hexadecimals")
        return self

    @property
    def was_published_as(self) -> str:
        if self.published:
            return self.published
        if self.dataset:
            return self.hub_split
        if self.kind in ("simple_evals", "mmmlu"):  # both hold MMLU's test set and nothing else
            return "test"
        found = re.search(r"(?:^|[_./-])(train|dev|val|validation|test)(?=[_./-])", Path(self.path or "").name)
        return found[1] if found else "unknown"


class Item(NamedTuple):
    """One question as its data set tells it. `key` names it within its source; `place` is its number in its subject
    (`anatomy/test/7`) or its file, None where `key` is an id that the set gives in every language; `passage` is text
    before it that other questions may share."""

    question: str
    options: list[str]
    answer: str
    key: str
    family: str | None = None
    passage: str | None = None
    published: str | None = None  # where the file, not the source, tells
    place: str | None = None


def load(source: ChoiceSource) -> pd.DataFrame:
    """The problems of one source, as records.PROBLEM with columns more: `keys` (what makes two rows one group),
    `published`, and `set`, `part_of_set` (its split there) and `place`, by which sources are aligned. Rows are in the
    source's order; `attrs["counts"]` tells rows read, kept, and dropped by reason: `answer` (names no option),
    `options` (fewer than two, or two the same).

    Raises:
        UserError: a file is missing or malformed, a column is missing, or no row is left.
    """
    rows, dropped, read = [], {"answer": 0, "options": 0}, 0
    for number, (where, item) in enumerate(_items(source)):
        read += 1
        options = [_NUMBERED.sub("", str(text)).strip() for text in item.options]
        if not 2 <= len(options) <= len(LETTERS) or len(set(options)) < len(options):
            dropped["options"] += 1
            continue
        if item.answer not in LETTERS[: len(options)]:
            dropped["answer"] += 1
            continue
        question = f"{item.passage}\n{item.question}".strip() if item.passage else item.question.strip()
        if not question:
            raise UserError(f"{where}: the question is empty; correct the row or leave it out")
        set_name = "mmlu" if source.kind in ("mmmlu", "global_mmlu", "simple_evals") else source.kind
        keys = [f"text:{normalise(question)}"]
        if item.place is None:
            keys.append(f"{set_name}:{item.key}")
        shared = item.passage or _passage(question)
        if shared and len(shared.split()) >= _LONG:
            keys.append(f"passage:{normalise(shared)}")
        rows.append(
            {
                "id": f"{set_name}-{source.language}-{fingerprint(source.kind, item.key, number)}",
                "question": question,
                "answer": item.answer,
                "task": "choice",
                "source": f"{set_name}:{source.language}",
                "group": "",
                "split": source.split,
                "part": 0,
                "family": item.family,
                "level": None,
                "language": source.language,
                "options": options,
                "keys": keys,
                "published": source.published or item.published or source.was_published_as,
                "set": set_name,
                "part_of_set": SPLIT_NAMES.get(published := item.published or source.was_published_as, published),
                "place": item.place,
            }
        )
    if not rows:
        raise UserError(f"{source.path or source.dataset}: 0 of {read} rows are left: {dropped}")
    frame = pd.DataFrame(rows)
    frame.attrs = {"counts": {"read": read, "kept": len(rows), **dropped}}
    return frame


def _passage(question: str) -> str:
    """All lines but the last: MMLU puts a passage before its question."""
    return question.rpartition("\n")[0]


def _cell(row: reading.Row, column: str, where: str) -> str:
    if column not in row or row[column] is None:
        raise UserError(f"{where}: no column `{column}` in {', '.join(row)}; correct `kind`")
    return str(row[column])


def _items(source: ChoiceSource) -> Iterator[tuple[str, Item]]:
    return _READERS[source.kind](source)


def _hub(source: ChoiceSource) -> Iterator[tuple[str, reading.Row]]:
    """MMMLU had one configuration whose splits were the locales, and has one configuration for each locale."""
    try:
        yield from reading.hub_rows(source.dataset, source.revision, source.hub_split, source.config)
    except UserError:
        if source.kind != "mmmlu" or not source.config:
            raise
        yield from reading.hub_rows(source.dataset, source.revision, source.config, "by_language")


def _rows(source: ChoiceSource) -> Iterator[tuple[str, reading.Row]]:
    return _hub(source) if source.dataset else reading.rows(source.path)


def subject(name: str) -> str:
    """`college_mathematics_test.csv_YO-NG.csv` -> `college_mathematics`."""
    return re.sub(r"_(?:dev|val|test)(?:[._].*)?$", "", name.strip().lower().replace(" ", "_"))


def _mmlu(source: ChoiceSource) -> Iterator[tuple[str, Item]]:
    """The original files: no header, six cells; `anatomy_test.csv`, `anatomy_test_zu.csv`. And cais/mmlu."""
    if source.dataset:
        seen: Counter = Counter()
        for where, row in _hub(source):
            letter = LETTERS[int(row["answer"])]
            name = subject(_cell(row, "subject", where))
            place = f"{name}/{SPLIT_NAMES.get(source.hub_split, source.hub_split)}/{seen[name]}"
            seen[name] += 1
            yield where, Item(_cell(row, "question", where), row["choices"], letter, place, name, place=place)
        return
    for file in reading.files(source.path):
        name, split = subject(file.name), _file_split(file)
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, cells in enumerate(csv.reader(lines)):
                where = f"{file}: row {number + 1}"
                if len(cells) != 6:
                    raise UserError(f"{where}: {len(cells)} cells, expected question, A, B, C, D and the answer")
                question, *options, letter = cells
                place = f"{name}/{split}/{number}"
                yield where, Item(question, options, letter.strip().upper(), place, name, None, split, place)


def _file_split(file: Path) -> str:
    found = re.search(r"_(dev|val|test)(?:[._]|$)", file.name)
    return found[1] if found else "test"


def _simple_evals(source: ChoiceSource) -> Iterator[tuple[str, Item]]:
    """Question, A to D, Answer, Subject: the CSV files of simple-evals and MMMLU. The first column, which has no name,
    numbers the rows alike in every language."""
    for number, (where, row) in enumerate(_rows(source)):
        place = str(row.get("", row.get("Unnamed: 0", number)))
        options = [_cell(row, letter, where) for letter in "ABCD"]
        answer = _cell(row, "Answer", where).strip().upper()
        name = subject(_cell(row, "Subject", where))
        yield where, Item(_cell(row, "Question", where), options, answer, place, name, place=place)


def _global_mmlu(source: ChoiceSource) -> Iterator[tuple[str, Item]]:
    for where, row in _rows(source):
        options = [_cell(row, f"option_{letter}", where) for letter in "abcd"]
        answer, key = _cell(row, "answer", where).strip().upper(), _cell(row, "sample_id", where)
        name, split = subject(_cell(row, "subject", where)), re.search(r"/(dev|val|test)/\d+$", key)
        yield where, Item(_cell(row, "question", where), options, answer, key, name, None, split and split[1], key)


def _lines(file: Path) -> Iterator[tuple[str, reading.Row]]:
    try:
        text = file.read_text(encoding="utf-8")
        for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
            yield f"{file}: row {number}", json.loads(line)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {error}") from error


def _logiqa2(source: ChoiceSource) -> Iterator[tuple[str, Item]]:
    """JSON Lines, named .txt. The answer is a number from 0; ids repeat, so text and question are the id."""
    rows = _lines(Path(source.path)) if source.path.endswith(".txt") else reading.rows(source.path)
    for number, (where, row) in enumerate(rows):
        passage, question = _cell(row, "text", where).strip(), _cell(row, "question", where).strip()
        kinds = row.get("type")
        family = min(kinds) if isinstance(kinds, dict) and kinds else None
        answer = LETTERS[int(_cell(row, "answer", where))]
        key = normalise(passage + question)
        yield where, Item(question, row["options"], answer, key, family, passage, place=str(number))


def _aqua(source: ChoiceSource) -> Iterator[tuple[str, Item]]:
    for number, (where, row) in enumerate(reading.rows(source.path)):
        question, letter = _cell(row, "question", where), _cell(row, "correct", where).strip()
        yield where, Item(question, row["options"], letter, normalise(question), place=str(number))


def _commonsenseqa(source: ChoiceSource) -> Iterator[tuple[str, Item]]:
    for where, row in reading.rows(source.path):
        asked: dict[str, Any] = row["question"]
        options = [one["text"] for one in sorted(asked["choices"], key=lambda one: one["label"])]
        family = asked.get("question_concept")
        yield where, Item(asked["stem"], options, _cell(row, "answerKey", where), _cell(row, "id", where), family)


_READERS: dict[str, Callable[[ChoiceSource], Iterator[tuple[str, Item]]]] = {
    "mmlu": _mmlu,
    "simple_evals": _simple_evals,
    "mmmlu": _simple_evals,
    "global_mmlu": _global_mmlu,
    "logiqa2": _logiqa2,
    "aqua": _aqua,
    "commonsenseqa": _commonsenseqa,
}
