"""The viewer's page and data: every attempt, in files that a page opened from a disk can load.

A page opened as a file may not fetch, but it may load scripts, so the data are scripts that hand over gzipped, base64
coded JSON. `index.js` has what filters need, a few bytes for each attempt; `NNN.js` have the texts, some hundred
problems with all of their attempts each, loaded when one of them is looked at.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from whetstone.errors import UserError
from whetstone.report.page import environment

CHUNK = 1_000_000  # characters of text in one file, about; compressed it is a tenth
EXAMPLE, CHOSEN, REJECTED = 1, 2, 4  # bits of `used`; attempts.js has them too
NONE = "none"
_TEXTS = ("text", "answer", "rule", "output", "finish_reason", "probability", "logprob", "prompt_tokens",
          "completion_tokens", "prompt_hash", "engine", "seed")  # fmt: skip


def _coded(values: Sequence) -> tuple[list[str], np.ndarray]:
    """Names in the order of first appearance, and each value's place among them."""
    codes, names = pd.factorize(pd.Series(values, dtype=object).fillna(NONE).astype(str))
    if len(names) > 65_536:
        raise UserError(f"{len(names)} different values are too many to filter by, such as {names[0]!r}")
    return list(names), codes


def _bytes(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.asarray(array).astype(kind).tobytes()).decode()


def _script(call: str, content: object) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    packed = base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
    return f'whetstone.{call}"{packed}")\n'


def _plain(column: pd.Series) -> list:
    """Python values, None where there is none."""
    return [None if value is None or value != value else value for value in column.tolist()]


def _ordered(
    attempts: pd.DataFrame, problems: pd.DataFrame, models: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attempts with those of one problem together, in the order of models, episodes and turns; and their problems
    in the same order."""
    if attempts["id"].duplicated().any():
        name = attempts["id"][attempts["id"].duplicated()].iloc[0]
        raise UserError(f"attempt {name!r} occurs twice among the attempts; delete data/attempts and run again")
    asked = problems[problems["id"].isin(set(attempts["problem_id"]))]
    asked = asked.sort_values(["split", "id"]).reset_index(drop=True)
    place = dict(zip(asked["id"], asked.index, strict=True))
    if unknown := sorted(set(attempts["problem_id"]) - set(place)):
        raise UserError(f"{len(unknown)} problems of the attempts aren't in data/problems, such as {unknown[0]!r}")
    rank = {name: position for position, name in enumerate(models)}
    keys = pd.DataFrame(
        {
            "problem": attempts["problem_id"].map(place).to_numpy(),
            "model": attempts["model"].map(rank).fillna(len(rank)).to_numpy(),
            "sample": attempts["sample"].to_numpy(),
            "turn": attempts["turn"].to_numpy(),
            "id": attempts["id"].to_numpy(),
        }
    )
    order = keys.sort_values(list(keys.columns)).index
    return attempts.iloc[order].assign(problem=keys["problem"].to_numpy()[order]).reset_index(drop=True), asked


def _cuts(attempts: pd.DataFrame, asked: pd.DataFrame) -> list[int]:
    """The problems at which a new file begins, then their number."""
    texts = attempts["text"].str.len().groupby(attempts["problem"]).sum().reindex(range(len(asked)), fill_value=0)
    size = (texts.to_numpy() + asked["question"].str.len().to_numpy() + 200).cumsum()
    return [0, *(np.flatnonzero(np.diff(size // CHUNK)) + 1).tolist(), len(asked)]


def _index(rows: pd.DataFrame, asked: pd.DataFrame, used: np.ndarray, marks: Mapping, models: Sequence[str]) -> dict:
    facets = {}
    for name in ("strategy", "verdict", "error", "model"):
        names, codes = _coded(rows[name])
        facets[name] = {"names": names, "codes": _bytes(codes, "<u2")}
    for name in ("split", "family", "level"):
        names, codes = _coded(asked[name])
        facets[name] = {"names": names, "codes": _bytes(codes, "<u2"), "by": "problem"}
    place = pd.Series(asked.index, index=asked["id"])
    for title, named in marks.items():
        names = sorted(set(named))
        codes = np.zeros(len(asked), dtype="<u2")
        codes[place[named.index].to_numpy()] = [1 + names.index(one) for one in named]
        facets[title] = {"names": [NONE, *names], "codes": _bytes(codes, "<u2"), "by": "problem"}
    return {
        "models": [name for name in models if name in set(rows["model"])],
        "facets": facets,
        "problem": _bytes(rows["problem"], "<u4"),
        "turn": _bytes(rows["turn"], "<u2"),
        "sample": _bytes(rows["sample"], "<u2"),
        "used": _bytes(used, "<u1"),
        "ids": "\n".join(rows["id"]),
        "problems": "\n".join(asked["id"]),
    }


def _used(rows: pd.DataFrame, examples: Mapping, pairs: Mapping) -> tuple[np.ndarray, list[dict]]:
    """Bits of `used` for each attempt; and each epoch's pairs as places of attempts: {epoch, chosen, rejected}."""
    place = pd.Series(rows.index, index=rows["id"])
    used, listed = np.zeros(len(rows), dtype="<u1"), []
    for own in examples.values():
        used[place[[one for ids in own["attempt_ids"] for one in ids]].to_numpy()] |= EXAMPLE
    for epoch, own in pairs.items():
        sides = np.array([place[list(ids)].to_numpy() for ids in own["attempt_ids"]]).reshape(-1, 2)
        used[sides[:, 0]] |= CHOSEN
        used[sides[:, 1]] |= REJECTED
        listed.append({"epoch": epoch, "chosen": _bytes(sides[:, 0], "<u4"), "rejected": _bytes(sides[:, 1], "<u4")})
    return used, listed


def write(
    folder: Path,
    attempts: pd.DataFrame,
    problems: pd.DataFrame,
    *,
    models: Sequence[str],
    examples: Mapping[str, pd.DataFrame],
    pairs: Mapping[str, pd.DataFrame],
    marks: Mapping[str, pd.Series],
) -> int:
    """Writes `attempts.html` and `attempts/*.js` into the folder; returns how many files of texts there are.

    Args:
        attempts, problems: all of them (records.ATTEMPT, records.PROBLEM); a problem without an attempt isn't shown.
        models: labels in the order in which they are shown.
        examples, pairs: what each epoch was trained on (records.EXAMPLE, records.PAIR), by epoch.
        marks: what else problems can be filtered by: title, such as `flip, epoch1 → epoch2`, to a name by problem id.

    Raises:
        UserError: an attempt occurs twice, or names an unknown problem.
    """
    rows, asked = _ordered(attempts, problems, models)
    used, listed = _used(rows, examples, pairs)
    cuts = _cuts(rows, asked)
    starts = np.searchsorted(rows["problem"], cuts)
    (folder / "attempts").mkdir(parents=True, exist_ok=True)
    for number, (first, last) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        own, these = rows.iloc[starts[number] : starts[number + 1]], asked.iloc[first:last]
        content = {name: _plain(own[name]) for name in _TEXTS}
        content |= {name: these[name].tolist() for name in ("question",)} | {"gold": these["answer"].tolist()}
        content["options"] = [None if one is None else list(one) for one in these["options"]]
        (folder / f"attempts/{number:03d}.js").write_text(_script(f"chunk({number},", content))
    index = _index(rows, asked, used, marks, models)
    index |= {"pairs": listed, "chunks": _bytes(cuts, "<u4"), "starts": _bytes(starts, "<u4")}
    (folder / "attempts/index.js").write_text(_script("index(", index))
    (folder / "attempts.html").write_text(environment().get_template("attempts.html").render())
    return len(cuts) - 1
