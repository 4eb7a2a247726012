"""What SMART reports about one checkpoint on one data set, all of it from the same attempts.

Two kinds of tables of attempts (records.ATTEMPT) come in. Few-shot: every strategy forced by its own prompt, nothing
chosen. Policy: the tuned model's three forced solutions, in the order of its own preference, each with the probability
of its strategy among those still untried; where the model's most probable next token wasn't a strategy's tag, its free
completion stands first, with no probability.

Nothing here decides by the gold what a deployed model would do, except what is called oracle.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from whetstone.errors import UserError
from whetstone.evaluation.intervals import paired_bootstrap, wilson


def outcomes(attempts: pd.DataFrame) -> pd.DataFrame:
    """Whether each problem came out right: rows by problem id; columns: the strategies, oracle (any of them), and
    first where the model chose.

    Raises:
        UserError: a problem lacks the attempt of a strategy that another problem has, or has it twice.
    """
    right = attempts["verdict"] == "correct"
    chosen = attempts["probability"].notna()
    forced = chosen if chosen.any() else attempts["strategy"].notna()
    if forced.sum() == 0:
        raise UserError("no attempt to evaluate")
    wide = pd.DataFrame({"problem_id": attempts["problem_id"], "strategy": attempts["strategy"], "right": right})[
        forced
    ]
    if wide.duplicated(["problem_id", "strategy"]).any():
        one = wide[wide.duplicated(["problem_id", "strategy"])].iloc[0]
        raise UserError(f"evaluation: problem {one.problem_id!r} has two attempts of {one.strategy}; one is expected")
    table = wide.pivot(index="problem_id", columns="strategy", values="right")
    if table.isna().any(axis=None):
        lacking = table.isna().stack()
        problem, name = lacking[lacking].index[0]
        raise UserError(
            f"evaluation: {int(lacking.sum())} attempts are missing, such as {name} on problem {problem!r}"
        )
    table = table.astype(bool)
    table["oracle"] = table.any(axis=1)
    if chosen.any():
        first = attempts["turn"] == 1
        table["first"] = right[first].set_axis(attempts.loc[first, "problem_id"]).reindex(table.index).astype(bool)
    return table.sort_index()


def choice_probabilities(attempts: pd.DataFrame) -> pd.DataFrame:
    """pi(strategy | problem): rows by problem id, one column per strategy, rows adding up to 1. Inverts the
    renormalisation over untried strategies that the attempts carry."""
    chosen = attempts[attempts["probability"].notna()].sort_values(["problem_id", "turn"])
    share = chosen["probability"].astype(float)
    left = (1 - share).groupby(chosen["problem_id"]).transform(lambda some: some.cumprod().shift(fill_value=1.0))
    return chosen.assign(pi=share * left).pivot(index="problem_id", columns="strategy", values="pi")


def _entropy(p: np.ndarray) -> np.ndarray:
    """Of distributions in the last axis, in nats."""
    p = np.asarray(p, dtype=float)
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


def _strategies(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in ("oracle", "first")]


def _accuracy(right: pd.Series) -> dict:
    return wilson(int(right.sum()), len(right))


def _singles(table: pd.DataFrame) -> dict:
    forced = {name: _accuracy(table[name]) for name in _strategies(table)}
    best = max(forced, key=lambda name: forced[name]["correct"])
    return {
        "problems": len(table),
        "best_single": {"strategy": best, **forced[best]},
        "forced": forced,
        "oracle": _accuracy(table["oracle"]),
    }


def few_shot_metrics(attempts: pd.DataFrame) -> dict:
    """Forced accuracy of each strategy, the best single one, oracle any-of-n, tokens per problem."""
    by_strategy = attempts.groupby("strategy")["completion_tokens"]
    return {**_singles(outcomes(attempts)), "tokens": {name: _mean(tokens) for name, tokens in by_strategy}}


def _mean(tokens: pd.Series) -> float | None:
    """None where a server didn't tell them all."""
    return None if tokens.isna().any() else float(tokens.mean())


def retries(attempts: pd.DataFrame, goes_on: Callable[[str], bool]) -> pd.DataFrame:
    """Episodes in policy order that go on to an untried strategy while `goes_on(verdict)`; rows by problem id with
    columns right (of the last attempt), attempts and tokens (completion)."""
    rows = {}
    ordered = attempts.assign(tokens=attempts["completion_tokens"].astype("Float64").to_numpy(float, na_value=np.nan))
    columns = ["problem_id", "strategy", "verdict", "tokens"]
    ordered = ordered.sort_values(["problem_id", "turn"])[columns].itertuples(index=False, name=None)
    tried: dict[str, set] = {}
    for problem_id, strategy, verdict, tokens in ordered:
        seen = tried.setdefault(problem_id, set())
        last = rows.get(problem_id)
        if strategy in seen or (last and not goes_on(last[0])):
            continue
        seen.add(strategy)
        rows[problem_id] = (verdict, (last[1] if last else 0) + 1, (last[2] if last else 0.0) + tokens)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["verdict", "attempts", "tokens"]).sort_index()
    return table.assign(right=table["verdict"] == "correct")


def policy_metrics(attempts: pd.DataFrame, seed: int = 0) -> dict:
    """First attempt, forced accuracies, oracle, selection gain, retries, choices, tokens of a model that chooses.

    Selection gain is the accuracy of the first attempt minus that of the best single strategy of the same weights.
    It and regret (oracle minus first attempt) have paired bootstrap intervals in which the best single strategy is
    chosen anew in every draw. Entropies are in nats (ln 3 = 1.099 is uniform over three).
    """
    table = outcomes(attempts)
    names = _strategies(table)
    columns = table[["first", "oracle", *names]].to_numpy()
    first = attempts[attempts["turn"] == 1]
    forced_tokens = attempts[attempts["probability"].notna()].groupby("strategy")["completion_tokens"]

    def summary(episodes: pd.DataFrame) -> dict:
        means = {name: _mean(episodes[name]) for name in ("attempts", "tokens")}
        return {**_accuracy(episodes["right"]), **means}

    return {
        **_singles(table),
        "first_attempt": _accuracy(table["first"]),
        "selection_gain": paired_bootstrap(columns, lambda m: m[:, 0] - m[:, 2:].max(axis=1), seed),
        "regret": paired_bootstrap(columns, lambda m: m[:, 1] - m[:, 0], seed),
        "retries": {
            "without_gold": summary(retries(attempts, lambda verdict: verdict == "unparsed")),
            "oracle_gated": summary(retries(attempts, lambda verdict: verdict != "correct")),
        },
        "choice": choice_metrics(first, choice_probabilities(attempts)),
        "tokens": {
            "first_attempt": _mean(first["completion_tokens"]),
            **{name: _mean(tokens) for name, tokens in forced_tokens},
        },
        "verdicts": {v: int((first["verdict"] == v).sum()) for v in ("correct", "wrong", "unparsed")},
    }


def choice_metrics(first: pd.DataFrame, pi: pd.DataFrame) -> dict:
    """What the first attempts chose (shares), what the model's distribution `pi` (see `choice_probabilities`) says,
    its entropy per problem and that of its mean in nats, the share of problems that needed a free completion."""
    return {
        "first": {name: float((first["strategy"] == name).mean()) for name in pi.columns}
        | {"none": float(first["strategy"].isna().mean())},
        "mean_probability": {name: float(pi[name].mean()) for name in pi.columns},
        "entropy_per_problem": float(_entropy(pi.to_numpy()).mean()),
        "entropy_of_mean": float(_entropy(pi.mean().to_numpy())),
        "free_completions": float(first["probability"].isna().mean()),
    }


def untaught_metrics(first: pd.DataFrame, pi: pd.DataFrame) -> dict:
    """What a model that wasn't tuned chooses, and how often its first attempt is right."""
    return {"first_attempt": _accuracy(first["verdict"] == "correct"), "choice": choice_metrics(first, pi)}


def breakdown(attempts: pd.DataFrame, problems: pd.DataFrame) -> list[dict]:
    """Accuracy by family and by level: {group, name, outcome, accuracy, low, high, correct, n}, where outcome is
    first, oracle or a strategy. Problems without a family or level are left out of that grouping."""
    table = outcomes(attempts)
    known = problems.set_index("id").reindex(table.index)
    rows = []
    for group in ("family", "level"):
        labels = known[group]
        for name in sorted(labels.dropna().unique()):
            some = table[labels == name]
            rows += [
                {"group": group, "name": str(name), "outcome": column, **_accuracy(some[column])}
                for column in table.columns
            ]
    return rows
