"""The table that a stage ends with."""

from __future__ import annotations

from stages import output


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
