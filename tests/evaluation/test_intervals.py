"""Intervals and paired tests against published or independently computed values."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.evaluation.intervals import compare, grouped, paired_bootstrap, sign_flips, told, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_reproduces_newcombes_table(correct, n, low, high):
    found = wilson(correct, n)
    assert found["low"] == pytest.approx(low, abs=5e-5) and found["high"] == pytest.approx(high, abs=5e-5)
    assert found["accuracy"] == correct / n


def test_no_problems_have_no_accuracy():
    assert wilson(0, 0) == {"accuracy": None, "low": None, "high": None, "correct": 0, "n": 0}


@given(st.integers(0, 60), st.integers(0, 60))
def test_flips_of_single_problems_are_mcnemars_exact_test_of_the_discordant_pairs(wins, losses):
    n = wins + losses
    tail = sum(comb(n, i) for i in range(min(wins, losses) + 1)) / 2**n
    p_value = sign_flips(np.array([1] * wins + [-1] * losses + [0] * 5))
    assert p_value == pytest.approx(min(1, 2 * tail), rel=1e-9)
    assert p_value == sign_flips(np.array([-1] * wins + [1] * losses))


@given(st.lists(st.integers(-3, 3), max_size=10))
def test_flips_of_groups_are_counted_one_by_one(differences):
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in product((-1, 1), repeat=len(differences))]  # fmt: skip
    expected = np.mean([one >= abs(sum(differences)) for one in sums])
    assert sign_flips(np.array(differences)) == pytest.approx(expected, rel=1e-9)


def test_a_p_value_at_its_floor_is_told_as_a_bound():
    assert [told(p) for p in (1.0, 0.0357, 2.1e-5, 2e-5, 1e-30, 0.0)] == ["1", "0.036", "2.1e-05", *["< 2e-5"] * 3]


def test_the_bootstrap_agrees_with_resampling_row_by_row():
    rng = np.random.default_rng(0)
    rows = rng.random((400, 3)) < [0.8, 0.6, 0.5]
    gain = lambda means: means[:, 0] - means[:, 1:].max(axis=1)  # noqa: E731
    fast = paired_bootstrap(rows, gain, seed=1)
    slow = gain(np.stack([rows[rng.integers(0, 400, 400)].mean(axis=0) for _ in range(4000)]))
    assert fast["low"] == pytest.approx(np.quantile(slow, 0.025), abs=0.01)
    assert fast["high"] == pytest.approx(np.quantile(slow, 0.975), abs=0.01)
    assert fast["value"] == pytest.approx(gain(rows.mean(axis=0)[None])[0])


def test_pairing_narrows_the_interval_of_a_difference():
    rng = np.random.default_rng(0)
    old = rng.random(1000) < 0.6
    new = old | (rng.random(1000) < 0.05)
    paired, shuffled = compare(new, old), compare(rng.permutation(new), old)
    assert paired["high"] - paired["low"] < (shuffled["high"] - shuffled["low"]) / 2
    assert paired["losses"] == 0 and paired["wins"] == int(new.sum() - old.sum())
    assert paired["p_value"] == pytest.approx(2 * 0.5 ** paired["wins"])


def test_equal_checkpoints_do_not_differ():
    same = np.array([True, False, True])
    assert compare(same, same) == {
        "difference": 0, "low": 0, "high": 0, "p_value": 1, "wins": 0, "losses": 0, "n": 3, "groups": 3,
    }  # fmt: skip


def test_unpaired_outcomes_are_refused():
    with pytest.raises(ValueError, match="same problems"):
        compare(np.array([True]), np.array([True, False]))


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_problems_that_are_groups_of_their_own_have_wilsons_interval(right):
    found, plain = grouped(np.array(right)), wilson(sum(right), len(right))
    assert found.pop("groups") == len(right)
    assert found == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97, 1.0])
def test_translations_that_are_right_together_count_once_and_so_do_seeds_that_agree(share):
    once = np.arange(150) < round(150 * share)
    thrice, labels = np.tile(once, 3), np.tile(np.arange(150), 3)
    alone = wilson(int(once.sum()), 150)
    for right in (thrice, np.stack([thrice] * 5)):
        found = grouped(right, labels)
        assert (found["low"], found["high"]) == pytest.approx((alone["low"], alone["high"]), abs=1e-12)
        assert found["groups"] == 150 and found["n"] == right.size


def test_a_difference_of_problems_that_go_together_is_as_wide_as_that_of_one_of_each_group():
    rng = np.random.default_rng(0)
    new, old = rng.random(150) < 0.7, rng.random(150) < 0.6
    alone, labels = compare(new, old), np.tile(np.arange(150), 3)
    together = compare(np.tile(new, (5, 3)), np.tile(old, (5, 3)), labels)
    for name in ("difference", "low", "high"):
        assert together[name] == pytest.approx(alone[name], abs=0.005)
    assert together["p_value"] == pytest.approx(alone["p_value"]) and together["groups"] == 150
    apart = compare(np.tile(new, 3), np.tile(old, 3))
    assert apart["high"] - apart["low"] < 0.65 * (alone["high"] - alone["low"])


def test_seeds_that_disagree_widen_the_interval():
    old = np.zeros((2, 400), dtype=bool)
    alike = np.arange(400) % 10 < np.array([[6], [6]])
    unlike = np.arange(400) % 10 < np.array([[3], [9]])
    narrow, wide = compare(alike, old), compare(unlike, old)
    assert narrow["difference"] == wide["difference"] == pytest.approx(0.6)
    assert wide["low"] < 0.35 and wide["high"] > 0.85 and narrow["low"] > 0.54
    assert grouped(unlike)["low"] < 0.35 < 0.54 < grouped(alike)["low"]


def _models(rng: np.random.Generator, seeds: int, better: float, between: float) -> np.ndarray:
    """(seeds, 100 groups x 3 problems): a group, a problem, and a seed make it harder or easier."""
    ease = rng.normal(0, 1.5, (1, 100, 1)) + rng.normal(0, 1, (1, 100, 3)) + rng.normal(0, between, (seeds, 1, 1))
    return (rng.random((seeds, 100, 3)) < 1 / (1 + np.exp(-better - ease))).reshape(seeds, 300)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "between"), [(1, 0.0), (2, 0.0), (3, 0.15)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(seeds, between):
    """Of accuracies and differences, over 300 simulated sets of problems. One seed alone can't tell of other seeds."""
    rng, labels, runs = np.random.default_rng(seeds), np.repeat(np.arange(100), 3), 300
    deviation = np.hypot(np.hypot(1.5, 1), between)
    truth = {better: float((1 / (1 + np.exp(-rng.normal(better, deviation, 400_000)))).mean()) for better in (0, 1)}
    held, ignorant = np.zeros(2), 0
    for _ in range(runs):
        new, old = _models(rng, seeds, 1, between), _models(rng, seeds, 0, between)
        accuracy, gain = grouped(new, labels), compare(new, old, labels, draws=1000)
        held += [
            accuracy["low"] <= truth[1] <= accuracy["high"],
            gain["low"] <= truth[1] - truth[0] <= gain["high"],
        ]
        plain = wilson(int(new.sum()), new.size)
        ignorant += plain["low"] <= truth[1] <= plain["high"]
    assert (0.915 <= held / runs).all() and (held / runs <= 0.985).all(), held / runs
    assert ignorant / runs < 0.9
