"""The table that a stage ends with."""

from __future__ import annotations

import pandas as pd
import pytest

from stages import output

PROBLEMS = pd.DataFrame({"id": ["a", "b"]})


def test_counts_come_first_and_time_last():
    counts = {"rows": {"in": 1194, "out": 394, "dropped": {"wrong": 429, "torn": 0}}, "tokens": {"prompt": 12345}}
    facts = {
        "solved_at": {"1": 247},
        "verdicts": {"cot": {"correct": 2, "wrong": 1}},
        "share": 0.123456,
        "path": "data",
    }
    assert output.ending(facts, counts, 2.04) == [
        ("rows", "1,194 in, 394 out"),
        ("dropped", "wrong 429"),
        ("tokens", "prompt 12,345"),
        ("solved at", "1 247"),
        ("verdicts", "cot (correct 2, wrong 1)"),
        ("share", "0.1235"),
        ("path", "data"),
        ("time", "2.0 s"),
    ]


def test_what_is_not_known_is_not_zero():
    assert output.ending({"names": [], "left": {}, "model": None}, {}, 0) == [
        ("names", "none"), ("left", "none"), ("model", "None"), ("time", "0.0 s"),
    ]  # fmt: skip


def test_brackets_in_a_fact_are_printed_as_they_are(capsys):
    output.finish("a stage", options="[red]{}[/red]", path="a[b]")
    assert "[red]{}[/red]" in (printed := capsys.readouterr().out) and "a[b]" in printed


@pytest.mark.parametrize(
    ("attempts", "rows_out", "rows", "tokens"),
    [
        ({"prompt_tokens": [5, 6], "completion_tokens": [1, 2]}, None, 2, {"prompt": 11, "completion": 3}),
        ({"prompt_tokens": [5, 6], "completion_tokens": [1, 2]}, 7, 7, {"prompt": 11, "completion": 3}),
        ({"prompt_tokens": [None] * 2, "completion_tokens": [1, None]}, None, 2, {"prompt": None, "completion": None}),
        ({}, None, 0, {"prompt": 0, "completion": 0}),
    ],
    ids=["its own", "earlier ones beside", "unknown", "none"],
)
def test_tokens_of_attempts(monkeypatch, attempts, rows_out, rows, tokens):
    monkeypatch.setattr(output, "COUNTS", {})
    output.count_attempts(PROBLEMS, pd.DataFrame(attempts), rows_out)
    assert output.COUNTS == {"rows": {"in": 2, "out": rows, "dropped": {}}, "tokens": tokens}


def test_tokens_that_are_unknown_are_not_told():
    counts = {"rows": {"in": 2, "out": 2, "dropped": {}}, "tokens": {"prompt": None, "completion": 3}}
    assert dict(output.ending({}, counts, 0))["tokens"] == "completion 3"
