"""The run's page, from manifests; a stage without one is said to have none."""

from __future__ import annotations

import pytest

from whetstone.report import times

RECORD = {
    "stage": "infer@cot-1", "started": "2026-01-02T03:04:05+00:00", "seconds": 75.5,
    "git": {"revision": "0123456789abcdef", "dirty": True}, "device": "2 x Some <CPU>",
    "packages": {"python": "3.12.1", "torch": "2.13.0"},
    "rows": {"in": 398, "out": 398, "dropped": {"none": 0, "torn": 2}},
    "tokens": {"prompt": 1000, "completion": 234},
}  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (119.6, "2 min 0 s"),
        (3600, "1 h 0 min"),
        (93784, "26 h 3 min"),
    ],
)
def test_durations(seconds, said):
    assert times.duration(seconds) == said


def test_a_row_says_what_the_manifest_says():
    (row,) = times.rows({"infer@cot-1": RECORD})
    assert row["rows"] == (398, 398) and row["tokens"] == 1234 and row["dropped"] == {"torn": 2}
    assert row["revision"] == "01234567 with edits" and row["time"] == "1 min 16 s"


def test_the_page_names_what_is_missing():
    page = times.html({"infer@cot-1": RECORD, "report": None})
    assert "1 of 2 stages" in page and "no manifest here" in page
    assert "2 torn" in page and "2 x Some &lt;CPU&gt;" in page and "torch 2.13.0" in page


def test_versions_that_differ_are_all_named():
    other = RECORD | {"packages": {"torch": "2.12.0"}}
    assert times.versions([RECORD, None, other]) == {"python": ["3.12.1"], "torch": ["2.12.0", "2.13.0"]}


def test_nothing_ran():
    assert "0 of 1 stages" in times.html({"report": None})
