"""Estimates from manifests: what scales with what, and what stays unknown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.estimate import Need, need, reference, work

ROOT = Path(__file__).parents[2]
INFER = {"k": 1, "max_tokens": 256}
MODEL = {"name": "models/base", "revision": None}
SAMPLING = ("infer@", "baseline", "sample@", "evaluate@", "rationalize@")
TRAIN = {"max_steps": 120, "epochs": None, "batch_size": 16, "gradient_accumulation": 1}


def manifest(stage: str, rows_in: int = 400, rows_out: int = 400, seconds: float = 60, **more) -> dict:
    own = {
        "stage": stage, "started": "2026-01-01T00:00:00+00:00", "seconds": seconds, "device": "2 x a CPU",
        "params": {"infer": INFER}, "rows": {"in": rows_in, "out": rows_out, "dropped": {}},
        "tokens": {"prompt": 100 * rows_out, "completion": 30 * rows_out},
        "sampled": {"completions": rows_out, "tokens": 30 * rows_out, "seconds": seconds - 5},
    }  # fmt: skip
    return own | more


def stage(name: str, size: int | None = 1000) -> SimpleNamespace:
    return SimpleNamespace(name=name, outs=[SimpleNamespace(meta=SimpleNamespace(size=size), hash_info="md5")])


def test_the_same_work_takes_the_same():
    found = need(stage("infer@cot-1"), manifest("infer@cot-1"), 1.0, {"infer": INFER}, None)
    assert found == Need(400, 130 * 400, 60, 2000, "its manifest, 2026-01-01")


@pytest.mark.parametrize(("growth", "k", "times"), [(1, 3, 3), (2, 1, 2), (0.5, 4, 2)])
def test_more_problems_or_samples_take_more_but_start_once(growth, k, times):
    found = need(stage("infer@cot-1"), manifest("infer@cot-1"), growth, {"infer": INFER | {"k": k}}, None)
    assert found[:4] == (400 * times, 130 * 400 * times, pytest.approx(5 + 55 * times), 2000 * times)


def test_more_devices_take_as_many_more_rows_in_the_same_time():
    trained = manifest("train@epoch1", seconds=60, params={"sft": TRAIN | {"devices": 1}}, tokens={"training": 5000})
    trained.pop("sampled")
    found = need(stage("train@epoch1"), trained, 1, {"sft": TRAIN | {"devices": 4}}, None)
    assert found.tokens == 4 * 5000 and found.seconds == pytest.approx(60)


def test_a_resumed_run_tells_its_speed_by_what_it_sampled():
    resumed = manifest("infer@cot-1", seconds=15, sampled={"completions": 100, "tokens": 3000, "seconds": 10})
    assert need(stage("infer@cot-1"), resumed, 1, {"infer": INFER}, None).seconds == pytest.approx(5 + 40)


def test_a_run_that_sampled_nothing_tells_no_time():
    """Its seconds are those of reading a journal: a fresh clone of the default pipeline was promised a quarter."""
    params = {"infer": INFER, "model": MODEL}
    reused = manifest("infer@cot-1", seconds=4, params=params, sampled={"completions": 0, "tokens": 0, "seconds": 0.0})
    found = need(stage("infer@cot-1"), reused, 1, params, None)
    assert found.seconds is None and found.rows == 400 and "journal" in found.basis
    measured = {"device": "2 x a CPU", "start": 10, "seconds_per_completion": 0.5, "seconds_per_trained_token": 0.01}
    assert need(stage("infer@cot-1"), reused, 1, params, measured).seconds == 210


@pytest.mark.parametrize("folder", ["manifests", "recipes/star/manifests"])
def test_what_is_committed_tells_a_fresh_clone_what_sampling_takes(folder):
    """The pipelines are committed as they ran from nothing, without a journal."""
    found = [json.loads(path.read_text()) for path in sorted((ROOT / folder).glob("*.json"))]
    sampling = {one["stage"]: one.get("sampled") for one in found if one["stage"].startswith(SAMPLING)}
    assert len(sampling) > 10
    assert [name for name, sampled in sampling.items() if not sampled or not sampled["completions"]] == []


def test_rows_that_are_carried_over_are_not_sampled():
    """Second tries: 20 completions, after 2,400 attempts that stand in the same table."""
    sampled = {"completions": 20, "tokens": 600, "seconds": 1}
    found = manifest("rationalize@base", 20, 2420, 4, tokens={"prompt": 2000, "completion": 600}, sampled=sampled)
    assert need(stage("rationalize@base"), found, 1, {"infer": INFER}, None).seconds == pytest.approx(4)
    assert need(stage("rationalize@base"), found, 2, {"infer": INFER}, None).seconds == pytest.approx(5)
    measured = {"device": "1 x a GPU", "start": 10, "seconds_per_completion": 0.5, "seconds_per_trained_token": 0.01}
    assert need(stage("rationalize@base"), found, 1, {"infer": INFER}, measured).seconds == pytest.approx(20)


def test_unknown_tokens_stay_unknown():
    served = manifest("infer@cot-1", tokens={"prompt": None, "completion": 3000})
    assert need(stage("infer@cot-1"), served, 2, {"infer": INFER}, None).tokens is None


def test_a_stage_that_never_ran_takes_the_likest_manifest():
    known = {name: manifest(name) for name in ("infer@cot-1", "infer@pot-1", "sample@epoch1-2")}
    assert reference("infer@pot-2", known)["stage"] == "infer@pot-1"
    assert reference("infer@cot-1", known)["stage"] == "infer@cot-1"
    assert reference("merge@epoch1", known) is None
    known["infer@cot-1"]["sampled"]["completions"] = 0  # all of it came from the journal: it tells no speed
    assert reference("infer@cot-1", known)["stage"] == "infer@pot-1"


@pytest.mark.parametrize(
    ("params", "rows", "expected"),
    [
        ({"sft": TRAIN}, 400, 120 * 16),
        ({"sft": TRAIN | {"max_steps": None, "epochs": 3}}, 400, 3 * 400),
        ({"sft": TRAIN | {"max_steps": None, "epochs": 1, "gradient_accumulation": 2}}, 400, 13 * 32),
        ({"sft": TRAIN | {"devices": 8}}, 400, 8 * 120 * 16),
        ({"sft": TRAIN | {"max_steps": None, "epochs": 2, "devices": 8}}, 400, 7 * 128),
        ({"infer": {"k": 4}, "model": {"name": "models/base"}}, 100, 400),
        ({"evaluate": {"max_tokens": 8}}, 100, 100),
        ({"problems": {"world": {"train": 10, "test": 5, "seed": 7}}}, 1, 15),
    ],
)
def test_work(params, rows, expected):
    assert work(params, rows) == expected


def test_steps_decide_what_training_takes_and_a_model_stays_as_large():
    found = manifest("train@epoch1", params={"sft": TRAIN}, tokens={"training": 5000}, rows={"in": 32, "out": 32})
    found.pop("sampled")
    more = need(stage("train@epoch1", 10**7), found, 2, {"sft": TRAIN | {"max_steps": 240}}, None)
    assert more[:4] == (64, 10_000, 120, 2e7)


def test_another_model_has_no_time_until_it_is_measured():
    params = {"infer": INFER, "model": MODEL}
    old, new = manifest("infer@cot-1", params=params), params | {"model": MODEL | {"name": "a/b"}}
    assert need(stage("infer@cot-1"), old, 1, new, None).seconds is None
    measured = {"device": "2 x a CPU", "start": 10, "seconds_per_completion": 0.5, "seconds_per_trained_token": 0.01}
    assert need(stage("infer@cot-1"), old, 1, new, measured).seconds == 10 + 200
    assert need(stage("infer@cot-1"), old, 1, params, measured).seconds == 60  # the manifest knows better
    assert need(stage("infer@cot-1"), old, 1, params, measured | {"device": "1 x a GPU"}).seconds == 210


def test_nothing_is_invented():
    unknown = need(stage("merge@epoch1", None), None, 1, {}, None)
    assert unknown == Need(None, None, None, None, "no manifest of its kind")
