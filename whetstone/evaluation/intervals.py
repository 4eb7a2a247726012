"""Intervals and paired tests for accuracies. All intervals are 95 %."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.95


def wilson(correct: int, n: int) -> dict:
    """{accuracy, low, high, correct, n} with Wilson's score interval (1927); all None where n is 0."""
    if n == 0:
        return {"accuracy": None, "low": None, "high": None, "correct": 0, "n": 0}
    interval = binomtest(int(correct), int(n)).proportion_ci(LEVEL, method="wilson")
    return {
        "accuracy": correct / n,
        "low": float(interval.low),
        "high": float(interval.high),
        "correct": int(correct),
        "n": int(n),
    }


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided exact p-value of McNemar's test: are the discordant pairs split evenly? 1 where there are none."""
    return float(binomtest(int(wins), int(wins + losses)).pvalue) if wins + losses else 1.0


def paired_bootstrap(
    outcomes: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0, draws: int = 10_000
) -> dict:
    """{value, low, high} of a statistic of column means, problems resampled with replacement (percentile interval).

    Args:
        outcomes: (problems, columns), a problem's outcomes in one row, so that columns stay paired.
        statistic: (draws, columns) column means to (draws,) values.

    Resampling rows is drawing the counts of the distinct rows from a multinomial, which is what makes this cheap.
    """
    patterns, counts = np.unique(np.asarray(outcomes, dtype=float), axis=0, return_counts=True)
    n = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=draws) @ patterns / n
    low, high = np.quantile(statistic(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": float(statistic(counts[None] @ patterns / n)[0]), "low": float(low), "high": float(high)}


def compare(new: np.ndarray, old: np.ndarray, seed: int = 0) -> dict:
    """Two checkpoints on the same problems: difference of accuracies, its paired interval, McNemar's p, wins, losses.

    Args:
        new, old: (problems,) booleans in the same order.
    """
    new, old = np.asarray(new, dtype=bool), np.asarray(old, dtype=bool)
    if new.shape != old.shape or not len(new):
        raise ValueError(f"paired outcomes need the same problems: {new.shape} and {old.shape}")
    difference = paired_bootstrap(np.stack([new, old], axis=1), lambda means: means[:, 0] - means[:, 1], seed)
    wins, losses = int((new & ~old).sum()), int((~new & old).sum())
    return {
        "difference": difference["value"],
        "low": difference["low"],
        "high": difference["high"],
        "p_value": mcnemar(wins, losses),
        "wins": wins,
        "losses": losses,
        "n": len(new),
    }
