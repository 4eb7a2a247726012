"""Intervals and paired tests against published or independently computed values."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.evaluation.intervals import compare, mcnemar, paired_bootstrap, wilson


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
def test_mcnemar_is_the_exact_binomial_tail_of_the_discordant_pairs(wins, losses):
    n = wins + losses
    tail = sum(comb(n, i) for i in range(min(wins, losses) + 1)) / 2**n
    assert mcnemar(wins, losses) == pytest.approx(min(1, 2 * tail), rel=1e-9)
    assert mcnemar(wins, losses) == mcnemar(losses, wins)


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
        "difference": 0, "low": 0, "high": 0, "p_value": 1, "wins": 0, "losses": 0, "n": 3,
    }  # fmt: skip


def test_unpaired_outcomes_are_refused():
    with pytest.raises(ValueError, match="same problems"):
        compare(np.array([True]), np.array([True, False]))
