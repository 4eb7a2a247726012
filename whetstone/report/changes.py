"""What changed from one checkpoint to the next on the same problems: choices that moved, outcomes that flipped, and
what the choice is worth beside simpler ways to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from whetstone.evaluation.intervals import paired_bootstrap
from whetstone.evaluation.smart import choice_probabilities, few_shot_metrics, outcomes
from whetstone.report.summary import BASE

UNTAUGHT = "base_zero_shot"
FLIPS = ("kept right", "newly right", "newly wrong", "kept wrong")  # by (right before, right after)


def firsts(attempts: pd.DataFrame, label: str) -> pd.DataFrame:
    """A checkpoint's first attempts: columns strategy, right, attempt_id; rows by problem id, sorted. The base model,
    which was never taught to choose, stands for its best single few-shot strategy."""
    if label == BASE:
        own = attempts[attempts["strategy"] == few_shot_metrics(attempts)["best_single"]["strategy"]]
    else:
        own = attempts[attempts["turn"] == 1]
    return pd.DataFrame(
        {
            "strategy": own["strategy"].to_numpy(),
            "right": (own["verdict"] == "correct").to_numpy(),
            "attempt_id": own["id"].to_numpy(),
        },
        index=pd.Index(own["problem_id"], name="problem_id"),
    ).sort_index()


def flips(old: pd.DataFrame, new: pd.DataFrame) -> pd.Series:
    """One of FLIPS for each problem, from two tables of `firsts` on the same problems."""
    if not old.index.equals(new.index):
        raise ValueError(f"flips need the same problems: {len(old)} and {len(new)}")
    names = {(True, True): 0, (False, True): 1, (True, False): 2, (False, False): 3}
    named = [FLIPS[names[pair]] for pair in zip(old["right"].map(bool), new["right"].map(bool), strict=True)]
    return pd.Series(named, index=old.index)


def moved(old: pd.DataFrame, new: pd.DataFrame) -> pd.Series:
    """How the choice moved, such as `cot → pot`, for each problem whose choice changed."""
    before, after = old["strategy"].fillna("none"), new["strategy"].fillna("none")
    return (before + " → " + after)[before != after]


def moves(old: pd.DataFrame, new: pd.DataFrame) -> list[dict]:
    """How the choice moved: {before, after, flip, problems}, `none` where a model named no strategy."""
    table = pd.DataFrame(
        {"before": old["strategy"].fillna("none"), "after": new["strategy"].fillna("none"), "flip": flips(old, new)}
    )
    counts = table.groupby(["before", "after", "flip"]).size()
    return [
        {"before": before, "after": after, "flip": flip, "problems": int(n)}
        for (before, after, flip), n in counts.items()
    ]


def by_family(named: pd.Series, problems: pd.DataFrame) -> list[dict]:
    """Flips by family: {family, flip, problems}, those that changed only; empty where problems have no family."""
    family = problems.set_index("id")["family"].reindex(named.index)
    changed = named.isin(["newly right", "newly wrong"]) & family.notna()
    counts = named[changed].groupby([family[changed].rename("family"), named[changed].rename("flip")]).size()
    return [{"family": family, "flip": flip, "problems": int(n)} for (family, flip), n in counts.items()]


def choice_shares(first: pd.DataFrame, problems: pd.DataFrame, names: Sequence[str]) -> list[dict]:
    """How often each strategy is the first choice in each family: {family, strategy, share, right, problems}, where
    `right` is the accuracy of those first attempts (None where there are none)."""
    family = problems.set_index("id")["family"].reindex(first.index)
    rows = []
    for name, own in first.groupby(family):
        for strategy in (*names, "none"):
            chosen = own[own["strategy"].fillna("none") == strategy]
            if strategy == "none" and chosen.empty:
                continue
            right = float(chosen["right"].mean()) if len(chosen) else None
            rows.append(
                {
                    "family": str(name),
                    "strategy": strategy,
                    "share": len(chosen) / len(own),
                    "right": right,
                    "problems": len(chosen),
                }
            )
    return rows


def controls(attempts: pd.DataFrame, problems: pd.DataFrame, seed: int = 0) -> dict[str, dict]:
    """Accuracy of a tuned checkpoint's weights under other ways to choose, all from the same forced solutions:
    {name: {value, low, high}} with bootstrap intervals over problems.

    random: a strategy drawn evenly (expected). drawn: drawn by the model's own distribution (expected). best single:
    the strategy that is best on these problems. best of family: the strategy that is best in the problem's family,
    chosen on these very problems, so it favours itself. first attempt: what the model does. oracle: any strategy.
    """
    right = outcomes(attempts)
    names = [name for name in right.columns if name not in ("oracle", "first")]
    pi = choice_probabilities(attempts).reindex(index=right.index, columns=names).to_numpy()
    forced = right[names].to_numpy(dtype=float)
    family = problems.set_index("id")["family"].reindex(right.index)
    columns = {
        "random": forced.mean(axis=1),
        "drawn": (forced * pi).sum(axis=1),
        "first attempt": right["first"].to_numpy(dtype=float),
        "oracle": right["oracle"].to_numpy(dtype=float),
    }
    if family.notna().all() and family.nunique() > 1:
        best = right.groupby(family)[names].mean().idxmax(axis=1)
        columns["best of family"] = forced[np.arange(len(right)), [names.index(best[one]) for one in family]]
    result = {name: paired_bootstrap(column[:, None], lambda m: m[:, 0], seed) for name, column in columns.items()}
    result["best single"] = paired_bootstrap(forced, lambda m: m.max(axis=1), seed)
    order = ("random", "drawn", "best single", "best of family", "first attempt", "oracle")
    return {name: result[name] for name in order if name in result}


def example(before: pd.DataFrame, after: pd.DataFrame, attempts: Mapping[str, pd.DataFrame]) -> tuple[str, str] | None:
    """The attempts of one problem that turned right because another strategy was chosen: the shortest such pair of
    texts (ties by id), or None where there is none."""
    named = flips(before, after)
    moved = (named == "newly right") & (before["strategy"] != after["strategy"])
    if not moved.any():
        return None
    texts = pd.concat([one.set_index("id")["text"] for one in attempts.values()])
    pairs = list(zip(before["attempt_id"][moved], after["attempt_id"][moved], strict=True))
    return min(pairs, key=lambda pair: (sum(len(texts[one]) for one in pair), pair))
