"""Intervals and paired tests for accuracies. All intervals are 95 %.

A *group* is what is drawn together: a problem with its translations, or the questions of one passage. Several seeds
are several models on the same problems, so their outcomes at a problem belong to its group too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.95
Z = 1.959963984540054
FLOOR = 2e-5  # p-values are told down to here


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


def _totals(right: np.ndarray, groups: Sequence | None) -> tuple[np.ndarray, np.ndarray]:
    """(groups, seeds) right outcomes and (groups,) problems, from (seeds, problems)."""
    if groups is None:
        return right.T.astype(float), np.ones(right.shape[1])
    if len(groups) != right.shape[1]:
        raise ValueError(f"{right.shape[1]} problems, but groups of {len(groups)}")
    names, own = np.unique(np.asarray(groups), return_inverse=True)
    found = np.stack([np.bincount(own, weights=one, minlength=len(names)) for one in right.astype(float)], axis=1)
    return found, np.bincount(own, minlength=len(names)).astype(float)


def grouped(right: np.ndarray, groups: Sequence | None = None) -> dict:
    """`wilson` where outcomes aren't independent: {accuracy, low, high, correct, n, groups}.

    Wilson's interval of so many independent problems as would give this accuracy's variance (Kish's effective sample
    size): that between groups and that between seeds. With one problem in each group and one seed it is `wilson`;
    where all or no outcomes are right, each group counts once. `correct` and `n` count outcomes.

    Args:
        right: (problems,) or (seeds, problems) booleans.
        groups: (problems,) labels; by default each problem is its own group.
    """
    right = np.atleast_2d(np.asarray(right, dtype=bool))
    if not right.size:
        return {**wilson(0, 0), "groups": 0}
    totals, sizes = _totals(right, groups)
    value, seeds = float(right.mean()), len(right)
    variance = float(((totals.mean(axis=1) - value * sizes) ** 2).sum() / sizes.sum() ** 2)
    if seeds > 1:
        variance += float(right.mean(axis=1).var(ddof=1)) / seeds
    spread = value * (1 - value)
    n = min(spread / variance, right.size) if variance else right.size if spread else len(sizes)
    middle = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(spread / n + Z**2 / (4 * n**2))
    low, high = max(0.0, float(middle - half)), min(1.0, float(middle + half))
    counts = {"correct": int(right.sum()), "n": int(right.size), "groups": len(sizes)}
    return {"accuracy": value, "low": low, "high": high, **counts}


def sign_flips(differences: np.ndarray) -> float:
    """Two-sided exact p-value of a sum of integers under all flips of their signs; 1 where all are 0. Where they are
    -1, 0 and 1 this is McNemar's exact test."""
    sizes = np.abs(np.asarray(differences, dtype=int))
    sizes, whole = sizes[sizes > 0], int(sizes.sum())
    chance = np.zeros(whole + 1)  # of each sum of the ones that stay positive
    chance[0] = 1.0
    for size in sizes:
        chance[size:] = (chance[size:] + chance[:-size]) / 2
        chance[:size] /= 2
    sums = 2 * np.arange(whole + 1) - whole
    return min(1.0, float(chance[np.abs(sums) >= abs(int(np.sum(differences)))].sum()))


def told(p_value: float) -> str:
    """A p-value with two digits, and `< 2e-5` at or below that: what resampling can't resolve, and nobody needs."""
    return f"{p_value:.2g}" if p_value > FLOOR * (1 + 1e-9) else "< 2e-5"


def _resampled(rows: np.ndarray, seed: int, draws: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """(1, columns) means of the rows, (draws, columns) means of rows drawn with replacement, and the generator.

    Resampling rows is drawing the counts of the distinct rows from a multinomial, which is what makes this cheap.
    """
    patterns, counts = np.unique(np.asarray(rows, dtype=float), axis=0, return_counts=True)
    n, rng = counts.sum(), np.random.default_rng(seed)
    return counts[None] @ patterns / n, rng.multinomial(n, counts / n, size=draws) @ patterns / n, rng


def _percentiles(drawn: np.ndarray) -> dict:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"low": float(low), "high": float(high)}


def paired_bootstrap(
    outcomes: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0, draws: int = 10_000
) -> dict:
    """{value, low, high} of a statistic of column means, problems resampled with replacement (percentile interval).

    Args:
        outcomes: (problems, columns), a problem's outcomes in one row, so that columns stay paired.
        statistic: (draws, columns) column means to (draws,) values.
    """
    means, drawn, _ = _resampled(outcomes, seed, draws)
    return {"value": float(statistic(means)[0]), **_percentiles(statistic(drawn))}


def compare(
    new: np.ndarray, old: np.ndarray, groups: Sequence | None = None, seed: int = 0, draws: int = 10_000
) -> dict:
    """Two models on the same problems: difference of accuracies with its interval, p, wins, losses, n, groups.

    The interval resamples groups and, where there are several, seeds, each with replacement and apart from each other
    (Owen's pigeonhole bootstrap, 2007): what other problems and other seeds would have given. The p-value is of sign
    flips of the groups' differences (`sign_flips`): about these seeds' models. Wins, losses and n count outcomes.

    Args:
        new, old: (problems,) or (seeds, problems) booleans in the same order. A model that no seed changes has the
            same outcomes under each, which tells nothing twice.
        groups: (problems,) labels; by default each problem is its own group.
    """
    new, old = (np.atleast_2d(np.asarray(one, dtype=bool)) for one in (new, old))
    if new.shape != old.shape or not new.size:
        raise ValueError(f"paired outcomes need the same problems and seeds: {new.shape} and {old.shape}")
    seeds = len(new)
    (won, sizes), (lost, _) = _totals(new, groups), _totals(old, groups)
    _, drawn, rng = _resampled(np.column_stack([won, lost, sizes]), seed, draws)
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    difference = ((drawn[:, :seeds] - drawn[:, seeds:-1]) * weights).sum(axis=1) / drawn[:, -1]
    return {
        "difference": float(new.mean() - old.mean()),
        **_percentiles(difference),
        "p_value": sign_flips((won - lost).sum(axis=1)),
        "wins": int((new & ~old).sum()),
        "losses": int((~new & old).sum()),
        "n": int(new.size),
        "groups": len(sizes),
    }
