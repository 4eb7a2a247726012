"""What changed between two checkpoints, and what choosing is worth beside other ways to choose."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.evaluation.intervals import compare
from whetstone.report import changes


def firsts(*rows: tuple[str | None, bool]) -> pd.DataFrame:
    index = pd.Index([f"p{n}" for n in range(len(rows))], name="problem_id")
    names, right = zip(*rows, strict=True)
    ids = [f"a{n}" for n in range(len(rows))]
    return pd.DataFrame({"strategy": list(names), "right": list(right), "attempt_id": ids}, index=index)


def test_every_problem_is_one_of_four():
    old = firsts(("cot", True), ("cot", False), ("cot", True), ("cot", False))
    new = firsts(("cot", True), ("cot", True), ("pot", False), (None, False))
    assert list(changes.flips(old, new)) == ["kept right", "newly right", "newly wrong", "kept wrong"]
    assert changes.moves(old, new) == [
        {"before": "cot", "after": "cot", "flip": "kept right", "problems": 1},
        {"before": "cot", "after": "cot", "flip": "newly right", "problems": 1},
        {"before": "cot", "after": "none", "flip": "kept wrong", "problems": 1},
        {"before": "cot", "after": "pot", "flip": "newly wrong", "problems": 1},
    ]
    assert changes.moved(old, new).to_dict() == {"p2": "cot → pot", "p3": "cot → none"}


outcomes = st.lists(
    st.tuples(st.sampled_from(["cot", "l2m", None]), st.booleans(), st.booleans()), min_size=1, max_size=40
)


@given(outcomes)
def test_flips_are_the_wins_and_losses_of_the_comparison(rows):
    old, new = firsts(*((s, a) for s, a, _ in rows)), firsts(*((s, b) for s, _, b in rows))
    named = changes.flips(old, new)
    tested = compare(new["right"], old["right"])
    assert (named == "newly right").sum() == tested["wins"] and (named == "newly wrong").sum() == tested["losses"]
    assert sum(row["problems"] for row in changes.moves(old, new)) == len(rows)


def test_other_problems_are_refused():
    with pytest.raises(ValueError, match="same problems: 2 and 1"):
        changes.flips(firsts(("cot", True), ("cot", True)), firsts(("cot", True)))


def test_the_base_model_stands_for_its_best_single_strategy(run):
    own = run.datasets["test"]["base"]
    first = changes.firsts(own, "base")
    by_hand = own.groupby("strategy")["verdict"].agg(lambda v: (v == "correct").mean())
    assert set(first["strategy"]) == {by_hand.idxmax()} and first["right"].mean() == by_hand.max()


def test_shares_add_up_in_each_family(run):
    first = changes.firsts(run.datasets["test"]["epoch1"], "epoch1")
    rows = pd.DataFrame(changes.choice_shares(first, run.problems_of("test"), ["cot", "l2m", "pot"]))
    assert rows.groupby("family")["share"].sum().to_numpy() == pytest.approx(1)
    assert rows["problems"].sum() == len(first)
    weighted = (rows["right"].astype(float) * rows["problems"]).sum() / len(first)
    assert weighted == pytest.approx(first["right"].mean())
    assert rows.loc[rows["problems"] == 0, "right"].isna().all()  # none isn't zero


def test_controls_are_what_they_say(run):
    attempts, problems = run.datasets["test"]["epoch1"], run.problems_of("test")
    right = attempts.assign(right=attempts["verdict"] == "correct")
    found = {name: one["value"] for name, one in changes.controls(attempts, problems).items()}
    assert found["random"] == pytest.approx(right["right"].mean())
    assert found["first attempt"] == pytest.approx(right[right["turn"] == 1]["right"].mean())
    pi = right["turn"].map({1: 0.7, 2: 0.3 * 0.6, 3: 0.3 * 0.4})
    assert found["drawn"] == pytest.approx((right["right"] * pi).sum() / len(problems))
    assert found["best single"] == pytest.approx(right.groupby("strategy")["right"].mean().max())
    family = right["problem_id"].map(problems.set_index("id")["family"])
    best = right.groupby([family, "strategy"])["right"].sum().groupby(level=0).max().sum() / len(problems)
    assert found["best of family"] == pytest.approx(best)
    assert found["best single"] <= found["best of family"] <= found["oracle"]
    assert all(one["low"] <= one["value"] <= one["high"] for one in changes.controls(attempts, problems).values())


def test_problems_without_families_have_no_control_by_family(run):
    problems = run.problems_of("test").assign(family=None)
    assert "best of family" not in changes.controls(run.datasets["test"]["epoch1"], problems)
    first = changes.firsts(run.datasets["test"]["epoch1"], "epoch1")
    assert changes.choice_shares(first, problems, ["cot"]) == []
    assert changes.by_family(changes.flips(first, first), problems) == []


def test_the_example_came_right_by_another_choice(run):
    attempts = run.datasets["test"]
    first = {label: changes.firsts(attempts[label], label) for label in ("epoch1", "epoch2")}
    before, after = changes.example(first["epoch1"], first["epoch2"], attempts)
    rows = pd.concat(attempts.values()).set_index("id").loc[[before, after]]
    assert list(rows["verdict"] == "correct") == [False, True] and rows["problem_id"].nunique() == 1
    assert rows["strategy"].nunique() == 2
    assert changes.example(first["epoch2"], first["epoch2"], attempts) is None
