"""The viewer's files hold every attempt, unchanged, and nothing that a browser could take for markup."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest

from whetstone.errors import UserError
from whetstone.report import run as runs
from whetstone.report import viewer


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    made = tmp_path_factory.mktemp("report")
    runs.write(run, runs.results(run), made)
    return made


def unpacked(path):
    packed = re.fullmatch(r'whetstone\.\w+\((?:\d+,)?"([A-Za-z0-9+/=]*)"\)\n', path.read_text())[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def all_attempts(run) -> pd.DataFrame:
    return pd.concat([*run.sampled.values(), *run.evaluated.values()]).set_index("id")


def read_back(folder) -> pd.DataFrame:
    """The viewer's files as a table of attempts."""
    index = unpacked(folder / "attempts/index.js")
    problems, ids = index["problems"].split("\n"), index["ids"].split("\n")
    rows = pd.DataFrame({"problem_id": [problems[n] for n in array(index["problem"], "<u4")]}, index=ids)
    for name in ("turn", "sample"):
        rows[name] = array(index[name], "<u2")
    for name, facet in index["facets"].items():
        codes = array(facet["codes"], "<u2")
        codes = codes[array(index["problem"], "<u4")] if facet.get("by") == "problem" else codes
        rows[name] = [facet["names"][code] for code in codes]
    rows["used"] = array(index["used"], "<u1")
    cuts, starts = array(index["chunks"], "<u4"), array(index["starts"], "<u4")
    texts = []
    for number in range(len(cuts) - 1):
        own = unpacked(folder / f"attempts/{number:03d}.js")
        assert len(own["text"]) == starts[number + 1] - starts[number]
        assert len(own["question"]) == cuts[number + 1] - cuts[number]
        about = array(index["problem"], "<u4")[starts[number] : starts[number + 1]] - cuts[number]
        texts.append(pd.DataFrame({name: own[name] for name in viewer._TEXTS}).assign(
            question=[own["question"][n] for n in about], gold=[own["gold"][n] for n in about]))  # fmt: skip
    return rows.join(pd.concat(texts, ignore_index=True).set_index(rows.index))


def test_every_attempt_is_there_as_it_was(run, folder):
    expected, found = all_attempts(run), read_back(folder)
    assert len(found) == len(expected) and set(found.index) == set(expected.index)
    expected = expected.loc[found.index]
    for name in ("problem_id", "text", "answer", "verdict", "rule", "turn", "sample", "strategy", "model", "seed"):
        same = found[name].where(found[name].notna(), None) == expected[name].where(expected[name].notna(), None)
        assert (same | (found[name].isna() & expected[name].isna())).all(), name
    problems = pd.concat(run.problems.values()).set_index("id").loc[found["problem_id"]]
    assert list(found["question"]) == list(problems["question"]) and list(found["gold"]) == list(problems["answer"])
    assert list(found["family"]) == list(problems["family"])


def test_what_was_trained_on_is_marked(run, folder):
    found = read_back(folder)["used"]
    taught = {one for ids in run.epochs["epoch1"].rows["attempt_ids"] for one in ids}
    assert set(found.index[found & viewer.EXAMPLE > 0]) == taught
    chosen, rejected = zip(*run.epochs["epoch2"].rows["attempt_ids"], strict=True)
    assert set(found.index[found & viewer.CHOSEN > 0]) == set(chosen)
    assert set(found.index[found & viewer.REJECTED > 0]) == set(rejected)


def test_flips_are_filters(run, folder):
    found = read_back(folder)
    rows = found[(found["split"] == "test") & (found["epoch1 → epoch2"] == "newly right")]
    first = rows[(rows["turn"] == 1) & rows["model"].isin(["epoch1", "epoch2"])]
    assert len(first) and set(zip(first["model"], first["verdict"] == "correct", strict=True)) == {
        ("epoch1", False), ("epoch2", True),
    }  # fmt: skip


def test_the_same_run_gives_the_same_bytes(run, folder, tmp_path):
    runs.write(run, runs.results(run), tmp_path)
    for file in folder.rglob("*.*"):
        assert (tmp_path / file.relative_to(folder)).read_bytes() == file.read_bytes(), file.name


def test_texts_are_cut_into_several_files(run, tmp_path, monkeypatch, folder):
    monkeypatch.setattr(viewer, "CHUNK", 2_000)
    runs.write(run, runs.results(run), tmp_path)
    assert len(list((tmp_path / "attempts").glob("0*.js"))) > 5
    pd.testing.assert_frame_equal(read_back(tmp_path), read_back(folder))


def arguments(run, attempts: pd.DataFrame) -> dict:
    problems = pd.concat(run.problems.values(), ignore_index=True)
    return {"attempts": attempts, "problems": problems, "models": ["base"], "examples": {}, "pairs": {}, "marks": {}}


def test_what_cannot_be_shown_is_named(run, tmp_path):
    own = run.datasets["test"]["base"]
    with pytest.raises(UserError, match="attempt 'base:world-test-000001:cot:0' occurs twice"):
        viewer.write(tmp_path, **arguments(run, pd.concat([own, own])))
    with pytest.raises(UserError, match="1 problems of the attempts aren't in data/problems, such as 'elsewhere'"):
        viewer.write(tmp_path, **arguments(run, own.head(1).assign(problem_id="elsewhere")))
