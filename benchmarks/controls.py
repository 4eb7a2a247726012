"""What SMART is compared with beside its own epochs: other training tables, votes of the base model, a router.

    python -m benchmarks.controls limited --epoch epoch1 --rows 394 --seed 0
    python -m benchmarks.controls shuffled --epoch epoch1 --seed 0
    python -m benchmarks.controls first --checkpoint epoch1 --dataset test
    python -m benchmarks.controls votes --dataset test --seed 0

The first two write the epoch's training table anew, after the stage `preprocess`; the third is an `evaluate` that asks
for the first attempt alone. `benchmarks.smart` puts them into the dvc.yaml of its clones.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from stages import common, output, serving
from stages.infer import Infer, prompt_of
from stages.preprocess import attempts_of
from stages.run import Command, journal
from whetstone import records, strategies
from whetstone.engines.base import Sampling
from whetstone.errors import UserError
from whetstone.evaluation.intervals import wilson
from whetstone.records import fingerprint, seed_of

VOTES = 3  # samples of each strategy


def limited(examples: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """`rows` of the examples, drawn by hash. Raises UserError where there are fewer."""
    if len(examples) < rows:
        raise UserError(f"{len(examples)} examples, {rows} asked for; sample another part of the problems")
    order = sorted(examples["id"], key=lambda one: fingerprint(seed, one))
    return examples[examples["id"].isin(order[:rows])]


def shuffled(examples: pd.DataFrame, attempts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same problems, as many rows, the same shares of strategies, but which problem has which strategy is drawn:
    the strategies are permuted over the rows, and each problem's solution is the model's own first attempt in the
    strategy that it got, right or wrong. With right solutions alone the strategies couldn't be random, since which of
    them are right is all that there is to learn about the choice.
    """
    names = list(examples["strategy"])
    random.Random(seed_of(seed, "shuffled")).shuffle(names)
    made = attempts[attempts["sample"] == 0].set_index(["problem_id", "strategy"])
    prompts, rows = dict(zip(examples["problem_id"], examples["prompt"], strict=True)), []
    for problem, name in zip(examples["problem_id"], names, strict=True):
        one = made.loc[problem, name]
        rows.append(
            {
                "id": f"{problem}:{name}:{fingerprint(one['text'].strip())}",
                "problem_id": problem,
                "strategy": name,
                "prompt": prompts[problem],
                "completion": strategies.trained_completion(name, one["text"]),
                "weight": 1.0,
                "attempt_ids": [one["id"]],
            }
        )
    return pd.DataFrame(rows)


def majority(attempts: pd.DataFrame) -> pd.Series:
    """Whether the most frequent answer is right, by problem; of answers that tie one is drawn. What couldn't be read
    doesn't vote; a problem without a vote is wrong."""
    found = {}
    for problem, group in attempts.groupby("problem_id"):
        votes = Counter(group["answer"].dropna())
        won = sorted(answer for answer, count in votes.items() if count == max(votes.values()))
        right = set(group.loc[group["verdict"] == "correct", "answer"])
        found[problem] = bool(won) and won[seed_of("tie", problem) % len(won)] in right
    return pd.Series(found, dtype=bool).sort_index()


class Router:
    """Which strategy is most likely to be right, told from the question alone: for each strategy a logistic regression
    (L2) on TF-IDF of words and pairs of words, a number being its count of digits."""

    PENALTY = 0.1  # the best of 0.001 to 10 in five-fold cross-validation on training problems of world 0

    def __init__(self, questions: Sequence[str], right: pd.DataFrame):
        """right: (questions, strategies) booleans."""
        counts = Counter(term for question in questions for term in set(_terms(question)))
        self.column = {term: number for number, term in enumerate(sorted(t for t, n in counts.items() if n > 1))}
        self.idf = np.log((1 + len(questions)) / (1 + np.array([counts[term] for term in self.column]))) + 1
        matrix, self.names = self._matrix(questions), list(right.columns)
        fits = [_logistic(matrix, right[name].to_numpy(dtype=float), self.PENALTY) for name in self.names]
        self.weights = np.stack(fits, axis=1)

    def choose(self, questions: Sequence[str]) -> list[str]:
        return [self.names[number] for number in (self._matrix(questions) @ self.weights).argmax(axis=1)]

    def _matrix(self, questions: Sequence[str]) -> csr_array:
        """(questions, terms + 1): rows of length 1, and a constant."""
        rows = []
        for question in questions:
            counts = Counter(term for term in _terms(question) if term in self.column)
            columns = [self.column[term] for term in counts]
            values = np.array(list(counts.values())) * self.idf[columns]
            rows.append(([*columns, len(self.column)], [*values / (np.linalg.norm(values) or 1.0), 1.0]))
        ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
        columns, values = (np.concatenate([row[side] for row in rows]) for side in (0, 1))
        return csr_array((values, columns, ends), shape=(len(rows), len(self.column) + 1))


def _terms(question: str) -> list[str]:
    words = [f"<{len(w)} digits>" if w.isdigit() else w for w in re.findall(r"\d+|[a-z]+|[^\w\s]", question.lower())]
    return [*words, *(f"{a} {b}" for a, b in pairwise(words))]


def _logistic(matrix: csr_array, label: np.ndarray, penalty: float) -> np.ndarray:
    """The weights (terms + 1,) of least log loss plus penalty / 2 x their squared length, the constant's left out."""
    free = np.append(np.full(matrix.shape[1] - 1, penalty), 0.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = matrix @ weights
        value = np.logaddexp(0, score).sum() - label @ score + free @ weights**2 / 2
        return value, matrix.T @ (expit(score) - label) + free * weights

    return minimize(loss, np.zeros(matrix.shape[1]), jac=True, method="L-BFGS-B").x


def _table(epoch: str) -> tuple[Path, pd.DataFrame]:
    path = Path("data/training") / epoch / "sft.parquet"
    return path, records.read(path, records.EXAMPLE)


@click.group()
def main() -> None:
    pass


@main.command("limited", cls=Command)
@click.option("--epoch", required=True)
@click.option("--rows", required=True, type=int)
@click.option("--seed", required=True, type=int)
def limited_(epoch: str, rows: int, seed: int) -> None:
    """So many of the epoch's examples."""
    path, examples = _table(epoch)
    records.write(limited(examples, rows, seed), records.EXAMPLE, path)


@main.command("shuffled", cls=Command)
@click.option("--epoch", required=True)
@click.option("--seed", required=True, type=int)
def shuffled_(epoch: str, seed: int) -> None:
    """Which problem has which strategy is drawn."""
    path, examples = _table(epoch)
    attempts = attempts_of(common.epoch_of(epoch).attempts)
    records.write(shuffled(examples, attempts, seed), records.EXAMPLE, path)


def votes_stage(dataset: str, seed: int) -> dict:
    """The stage of dvc.yaml that samples them."""
    prompts = "prompts/${infer.prompts}"
    code = [
        "benchmarks/controls.py",
        "stages/infer.py",
        "whetstone/engines",
        "whetstone/grading",
        "whetstone/rollouts.py",
    ]
    return {
        "cmd": f"python -m benchmarks.controls votes --dataset {dataset} --seed {seed}",
        "deps": [*code, "models/base", prompts, f"data/problems/{dataset}.parquet"],
        "params": ["infer", "strategies", "model", "engine"],
        "outs": [f"data/votes/{dataset}.parquet"],
    }


@main.command(cls=Command)
@click.option("--checkpoint", required=True)
@click.option("--dataset", required=True)
def first(checkpoint: str, dataset: str) -> None:
    """A tuned model's first attempt, greedily, as the stage `evaluate` makes it beside the others."""
    section = common.section("evaluate", common.Evaluate)
    problems = records.read(f"data/problems/{dataset}.parquet", records.PROBLEM)
    store, sampling = journal(f"first-{checkpoint}-{dataset}"), Sampling(section.max_tokens, stop=section.stop)
    with serving.open_engine(checkpoint) as engine:
        from whetstone import rollouts

        attempts = rollouts.greedy_policy(engine, problems, sampling, model=checkpoint, store=store, attempts=1)
    records.write(attempts, records.ATTEMPT, Path("data/evaluation") / f"{checkpoint}-{dataset}.parquet")
    right = {"first_attempt": wilson(int((attempts["verdict"] == "correct").sum()), len(attempts))}
    output.write_json(f"metrics/evaluation/{checkpoint}-{dataset}.json", right)


@main.command(cls=Command)
@click.option("--dataset", required=True)
@click.option("--seed", required=True, type=int)
def votes(dataset: str, seed: int) -> None:
    """The base model's few-shot samples, VOTES of each strategy, into data/votes/DATASET.parquet."""
    infer, made = common.section("infer", Infer), []
    problems, store = records.read(f"data/problems/{dataset}.parquet", records.PROBLEM), journal(f"votes-{dataset}")
    with serving.open_engine("base") as engine:
        from whetstone import rollouts

        for name in common.structure().strategies:
            prompt = prompt_of(infer, name)
            made.append(
                rollouts.few_shot(
                    engine,
                    problems,
                    prompt,
                    Sampling(infer.max_tokens, infer.temperature, infer.top_p, stop=tuple(prompt.stop)),
                    k=VOTES,
                    shots=infer.shots,
                    model="base",
                    seed=seed,
                    store=store,
                )
            )
    attempts = pd.concat(made, ignore_index=True)
    records.write(attempts, records.ATTEMPT, Path("data/votes") / f"{dataset}.parquet")


if __name__ == "__main__":
    main()
