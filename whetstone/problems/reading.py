"""Rows of a data set as it was published: JSON, JSON Lines, Parquet, CSV, ASDiv's XML, the Hub at a commit."""

from __future__ import annotations

import csv
import glob
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whetstone.errors import UserError

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".xml")


def files(path: str | Path) -> list[Path]:
    """The file, or the files that a pattern (`data/train-*.parquet`) names, by name.

    Raises:
        UserError: there is none, or it is a folder, or of a kind that `rows` can't read.
    """
    pattern = str(path)
    found = [Path(p) for p in sorted(glob.glob(pattern))] if glob.has_magic(pattern) else [Path(path)]
    if not found or not found[0].exists():
        raise UserError(f"{path}: no such file; correct `path`, or fetch the data set (docs/data.md says how)")
    for one in found:
        if one.is_dir():
            raise UserError(f"{one}: a folder; name a file in it, or a pattern such as {one}/*.parquet")
        if one.suffix not in SUFFIXES:
            raise UserError(f"{one}: can't read {one.suffix or 'a file without suffix'}; known: {', '.join(SUFFIXES)}")
    return found


def rows(path: str | Path) -> Iterator[tuple[str, Row]]:
    """Every row of a file, or of all files of a pattern, with its place (`file: row 12`; the first row is 1).

    Raises:
        UserError: a file is missing, empty or malformed.
    """
    for file in files(path):
        try:
            read = list(_READERS[file.suffix](file))
        except (ValueError, OSError, ElementTree.ParseError) as error:  # ArrowInvalid, JSONDecodeError are ValueErrors
            raise UserError(f"{file}: {error}") from error
        if not read:
            raise UserError(f"{file}: no rows; fetch it again, or leave it out")
        for number, row in enumerate(read, 1):
            if not isinstance(row, dict):
                raise UserError(f"{file}: row {number}: {type(row).__name__}, expected an object with named columns")
            yield f"{file}: row {number}", row


def hub_rows(dataset: str, revision: str, split: str, config: str | None = None) -> Iterator[tuple[str, Row]]:
    """Every row of one split of a Hub data set at one commit.

    Raises:
        UserError: the Hub (or its cache) has no such data set, configuration, split or revision, or no row in it.
    """
    from datasets import load_dataset  # heavy: a second, and torch

    place = f"{dataset}@{revision[:8]}{f' {config}' if config else ''} {split}"
    try:
        loaded = load_dataset(dataset, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, no such configuration or split
        raise UserError(f"{place}: {error}") from error
    if not len(loaded):
        raise UserError(f"{place}: no rows")
    for number, row in enumerate(loaded, 1):
        yield f"{place}: row {number}", row


def _json_lines(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"line {number}: not JSON: {error}") from error


def _json(file: Path) -> list[Row]:
    """An array of objects; some sets name JSON Lines `.json`."""
    text = file.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        return json.loads(text)
    return list(_json_lines(file))


def _parquet(file: Path) -> list[Row]:
    import pyarrow.parquet as pq

    return pq.read_table(file).to_pylist()


def _csv(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True):
            if None in row or None in row.values():
                raise ValueError(f"a row has another number of cells than the header: {row}")
            yield row


def _asdiv_xml(file: Path) -> Iterator[Row]:
    """`<Problem ID Grade Source>` with children, named as in the Hub's copy (Solution-Type -> solution_type)."""
    for problem in ElementTree.parse(file).iter("Problem"):
        cells = dict(problem.attrib) | {child.tag: child.text or "" for child in problem}
        yield {name.lower().replace("-", "_"): value for name, value in cells.items()}


_READERS = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _csv,
    ".xml": _asdiv_xml,
}
