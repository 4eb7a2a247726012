"""The columns of the four tables that flow through every pipeline, validated when they are written.

problems -> attempts -> examples / pairs -> checkpoint -> attempts of the next epoch. Each record names what it came
from: an example names its attempts, an attempt names its problem, prompt, model and seed.

Tables are Parquet, sorted by `id`, without timestamps: the same rows give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from whetstone.errors import UserError

VERDICTS = ("correct", "wrong", "unparsed")


def _schema(**columns: tuple[pa.DataType, bool]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=nullable) for name, (kind, nullable) in columns.items()])


_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()

PROBLEM = _schema(
    id=(_TEXT, False),  # unique
    question=(_TEXT, False),
    answer=(_TEXT, False),  # the gold, as canonical text of the grader
    task=(_TEXT, False),  # number | choice | math: how the answer is graded
    source=(_TEXT, False),  # data set it came from
    group=(_TEXT, False),  # problems that share a group never straddle two splits or two parts
    split=(_TEXT, False),  # train | dev | test | test_hard ...
    part=(_INT, False),  # 1..5 in train, 0 elsewhere
    family=(_TEXT, True),
    level=(_INT, True),
    language=(_TEXT, True),  # of the question, where a data set has several: en, sw ...
    options=(pa.list_(_TEXT), True),  # of a multiple-choice problem, A first
)
ATTEMPT = _schema(
    id=(_TEXT, False),
    problem_id=(_TEXT, False),
    model=(_TEXT, False),  # label of the checkpoint that wrote it: base, epoch1 ...
    strategy=(_TEXT, True),  # cot | l2m | pot; None where the model named none
    sample=(_INT, False),  # which of the k episodes of this problem, from 0
    turn=(_INT, False),  # 1 = first attempt of the episode, 2 = after one failure ...
    parent=(_TEXT, True),  # id of the attempt before it in the episode
    step=(_INT, True),  # after which step of the parent it goes on, where it begins with a part of it
    variant=(_TEXT, True),  # how the problem was put: the number of the options' order, hinted, the kind of feedback
    gold=(_TEXT, True),  # the right answer as the prompt showed it; None for completions made elsewhere
    options=(pa.list_(_TEXT), True),  # as the prompt showed them, A first
    probability=(_FLOAT, True),  # of this strategy among those still allowed, where the model chose
    text=(_TEXT, False),  # the completion, as sampled
    answer=(_TEXT, True),  # extracted, canonical; None when unparsed
    verdict=(_TEXT, False),  # correct | wrong | unparsed
    rule=(_TEXT, True),  # rule of the grader that fired
    error=(_TEXT, True),  # error class of a program or of a malformed text
    output=(_TEXT, True),  # what its program printed, and the message that it failed with
    finish_reason=(_TEXT, False),  # stop | length
    prompt_tokens=(_INT, True),  # these three are unknown for completions made elsewhere
    completion_tokens=(_INT, True),
    logprob=(_FLOAT, True),  # sum over the sampled tokens, nats
    prompt_hash=(_TEXT, True),  # of the prompt text
    engine=(_TEXT, False),  # fingerprint: engine, model weights, precision
    seed=(_INT, True),  # None for completions made elsewhere
)
EXAMPLE = _schema(
    id=(_TEXT, False),
    problem_id=(_TEXT, False),
    kind=(_TEXT, True),  # how it was found, where a recipe has several ways: rationalized ...
    strategy=(_TEXT, True),
    prompt=(_TEXT, False),
    completion=(_TEXT, False),
    weight=(_FLOAT, False),
    attempt_ids=(pa.list_(_TEXT), False),
)
PAIR = _schema(
    id=(_TEXT, False),
    problem_id=(_TEXT, False),
    kind=(_TEXT, True),  # what it teaches, where a recipe has several kinds: between or within strategies ...
    prompt=(_TEXT, False),
    chosen=(_TEXT, False),
    rejected=(_TEXT, False),
    chosen_strategy=(_TEXT, True),
    rejected_strategy=(_TEXT, True),
    attempt_ids=(pa.list_(_TEXT), False),  # chosen, rejected
)


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits that name the parts; the separator keeps ("ab", "c") and ("a", "bc") apart."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


def seed_of(*parts: object) -> int:
    """A 31-bit seed that depends on the parts alone, so that a result doesn't depend on the batch that it was in."""
    return int(fingerprint(*parts), 16) & 0x7FFFFFFF


_MODEL = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja", "*.py")


def weights_digest(*folders: str | Path) -> str:
    """16 hexadecimal digits of the content of every weight, configuration and tokenizer file in the folders, whatever
    these are called: about a second per gigabyte, less than loading them, and no change goes unseen."""

    def one(file: Path) -> bytes:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()

    files = [sorted({file for pattern in _MODEL for file in Path(folder).glob(pattern)}) for folder in folders]
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        for listed in files:
            for file, content in zip(listed, pool.map(one, listed), strict=True):
                digest.update(file.name.encode() + b"\0" + content)
            digest.update(b"\1")
    return digest.hexdigest()[:16]


def table(rows: Iterable[Mapping[str, object]] | pd.DataFrame, schema: pa.Schema, where: str = "table") -> pa.Table:
    """Rows as a validated Arrow table, sorted by id.

    Raises:
        UserError: a column is missing, unknown or of the wrong type, a value is absent where it must not be,
            or an id occurs twice.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), columns=None)
    if frame.empty:
        return schema.empty_table()
    missing = [name for name in schema.names if name not in frame.columns and not schema.field(name).nullable]
    unknown = [name for name in frame.columns if name not in schema.names]
    if missing or unknown:
        raise UserError(f"{where}: missing columns {missing}, unknown columns {unknown}; expected {schema.names}")
    frame = frame.assign(**{name: None for name in schema.names if name not in frame.columns})[schema.names]
    for field in schema:
        absent = frame[field.name].isna()
        if not field.nullable and absent.any():
            row = int(absent.to_numpy().argmax())
            raise UserError(f"{where}: row {row}: `{field.name}` is empty in {int(absent.sum())} of {len(frame)} rows")
    repeated = frame["id"].duplicated()
    if repeated.any():
        raise UserError(f"{where}: id {frame['id'][repeated].iloc[0]!r} occurs twice ({int(repeated.sum())} repeats)")
    try:
        return pa.Table.from_pandas(frame, schema=schema, preserve_index=False).sort_by("id").replace_schema_metadata()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"{where}: {error}") from error


def write(rows: Iterable[Mapping[str, object]] | pd.DataFrame, schema: pa.Schema, path: str | Path) -> int:
    """Validates the rows, writes them to `path` (Parquet, atomically) and returns how many there are."""
    path = Path(path)
    arrow = table(rows, schema, where=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    pq.write_table(arrow, partial, compression="zstd")
    partial.replace(path)
    return arrow.num_rows


def read(path: str | Path, schema: pa.Schema) -> pd.DataFrame:
    """Reads a table that `write` wrote (or a folder of them, by file name).

    Raises:
        UserError: there is no such file, or its columns aren't those of the schema.
    """
    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.exists() for file in files):
        raise UserError(f"{path}: no such table; run the stage that makes it (`dvc repro` does)")
    tables = [pq.read_table(file) for file in files]
    for file, one in zip(files, tables, strict=True):
        if one.schema.names != schema.names:
            raise UserError(f"{file}: columns {one.schema.names}, expected {schema.names}")
    frame = pa.concat_tables(tables).to_pandas(integer_object_nulls=True)
    return frame.astype(object).where(frame.notna(), None)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes metrics, keys in the order given, floats to 6 digits so that noise of the last bit makes no diff."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(content), indent=2) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value
