"""SMART's results with their controls, over several seeds: every number of the README's table comes from here.

    make results            # or: python -m benchmarks.smart --seeds 0,1,2 --jobs 8

Each run is a clone of this commit in .scratch/smart with a few parameters changed and `dvc repro` in it; all clones
share this project's DVC cache, so what two runs have in common is made once. The problems are of the headline's world:
nothing was tuned on it (docs/decisions.md, "Which worlds were looked at"), and nothing is chosen by its test outcomes,
which are read when all runs have ended.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks import controls, loops
from benchmarks.loops import ROOT
from whetstone import records
from whetstone.evaluation.intervals import compare, grouped, told
from whetstone.evaluation.smart import outcomes
from whetstone.problems.world import generate

RESULTS, README = ROOT / "benchmarks/results/smart.json", ROOT / "README.md"
SEEDED = ("infer", "preprocess", "sft", "sample", "dpo")
PARTS = [1, 2, 3, 4, 5]
LOOKED_AT = (0, 11)  # worlds whose test problems were seen before: defaults were found on 0, 11 was a check of them
TEST, HARD = "test", "test_hard"


def variants(params: dict, literal: bool) -> dict[str, dict[str, Any]]:
    """Name to the parameters that differ from params.yaml, dotted. Each evaluates what its `epochs.evaluate` says."""
    train = params["epochs"]["train"]
    one, own = {"epoch1": train["epoch1"]}, train["epoch1"]["attempts"]
    runs: dict[str, dict[str, Any]] = {
        "epoch1": {"epochs": {"train": one, "sample": [], "evaluate": ["epoch1"]}, "datasets": [TEST, HARD]},
        "epoch2": {"epochs": {**params["epochs"], "evaluate": ["epoch2"]}, "datasets": [TEST, HARD]},
        "shuffled": {"epochs": {"train": one, "sample": [], "evaluate": ["epoch1"]}},
    }
    if literal:
        runs["literal"] = {
            "epochs.train": {**one, "epoch2": {"start": "base", "attempts": "epoch1", "trainer": "sft"}},
            "infer_parts": PARTS,
            "sample_parts": PARTS,
            "infer.k": 1,
            "sample.k": 1,
            "sample.explore": "until_solved",
        }
    for trainer in ("dpo", "sft"):  # epoch 1 trained on with its own data for as many steps as epoch 2 has, or more
        more = {"start": "epoch1", "attempts": own, "trainer": trainer}
        runs[f"continued_{trainer}"] = {
            "epochs": {"train": {**one, "continued": more}, "sample": [], "evaluate": ["continued"]}
        }
    for name in params["strategies"]:
        runs[f"only_{name}"] = {
            "epochs": {"train": one, "sample": [], "evaluate": ["epoch1"]},
            "infer_parts": [1, 2],  # one part has too few problems that one strategy solves
            "strategies": [name],
        }
    return runs


def at(name: str, seed: int) -> Path:
    return ROOT / ".scratch/smart" / f"{name}-{seed}"


def clone(name: str, changes: dict[str, Any], seed: int) -> Path:
    """A clone of HEAD with its own parameters, on this project's DVC cache."""
    folder = at(name, seed)
    loops.clone(folder)
    subprocess.run(["dvc", "cache", "dir", "--local", str(ROOT / ".dvc/cache")], cwd=folder, check=True)
    seeds = {f"{section}.seed": seed for section in SEEDED}
    loops.set_parameters(folder / "params.yaml", {"datasets": [TEST], **changes, **seeds})
    return folder


def make(wanted: dict[str, dict[str, Any]], seeds: list[int], jobs: int) -> None:
    """All runs, `jobs` side by side, each in a clone of its own. They share the cores: the first ones, for which the
    others wait, among fewer."""
    early, late = (max(1, (os.cpu_count() or 1) // min(jobs, most)) for most in (len(seeds) + 2, 10**9))

    def base() -> None:
        loops.repro(clone("base", {"datasets": [TEST, HARD]}, seeds[0]), "baseline", threads=early)

    def votes() -> None:
        folder = clone("votes", {}, seeds[0])
        loops.add_stage(folder / "dvc.yaml", "votes", controls.votes_stage(TEST, seeds[0]))
        loops.repro(folder, "votes", threads=early)

    def run(name: str, seed: int, before: Future | None = None) -> None:
        if before:  # what both need is made once
            before.result()
        folder = clone(name, wanted[name], seed)
        command = partial(loops.set_command, folder / "dvc.yaml", code="benchmarks/controls.py")
        control = f"shuffled --seed {seed}" if name == "shuffled" else None
        if name.startswith("only_"):
            same = records.read(at("epoch1", seed) / "data/training/epoch1/sft.parquet", records.EXAMPLE)
            control = f"limited --rows {len(same)} --seed {seed}"
        if control:
            command("preprocess", f"{{own}} && python -m benchmarks.controls {control} --epoch ${{key}}")
        if name not in ("epoch1", "epoch2"):
            each = "--checkpoint ${item.checkpoint} --dataset ${item.dataset}"
            command("evaluate", f"python -m benchmarks.controls first {each}")
        loops.repro(folder, "evaluate", threads=late if before else early)

    def timed(name: str, work: Callable[..., None], *arguments: Any) -> None:
        start = time.monotonic()
        work(*arguments)
        click.echo(f"{name}: {time.monotonic() - start:.0f} s")

    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(timed, "base", base), pool.submit(timed, "votes", votes)]
        first = {seed: pool.submit(timed, f"epoch1-{seed}", run, "epoch1", seed) for seed in seeds}
        started += first.values()
        for name in list(wanted)[1:]:  # epoch 1 is the first
            for seed in seeds:
                started.append(pool.submit(timed, f"{name}-{seed}", run, name, seed, first[seed]))
        try:
            for one in started:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Results:
    """What the runs' folders say: `right` and `tokens` by data set and name. Right: (seeds, problems) booleans, one
    row where no seed changes anything. Tokens: of the completions that a problem took, on average."""

    def __init__(self, params: dict, seeds: list[int], literal: bool):
        self.seeds = seeds
        self.best: dict[str, str] = {}  # single strategy of the base model, chosen on the very problems
        self.right: dict[str, dict[str, np.ndarray]] = {TEST: {}, HARD: {}}
        self.tokens: dict[str, dict[str, float]] = {TEST: {}, HARD: {}}
        self.problems = {
            name: records.read(at("base", seeds[0]) / f"data/problems/{name}.parquet", records.PROBLEM)
            .set_index("id").sort_index()
            for name in (TEST, HARD)
        }  # fmt: skip
        self.groups = {name: list(one["group"]) for name, one in self.problems.items()}
        for dataset in (TEST, HARD):
            self._base(dataset)
            for name in ("epoch1", "epoch2"):
                self._first(name, name, name, dataset)
                self._forced(name, dataset)
        for trainer in ("sft", "dpo"):
            self._first(f"continued_{trainer}", f"continued_{trainer}", "continued", TEST)
        for epoch in ("epoch1", "epoch2") if literal else ():
            self._first(f"literal_{epoch}", "literal", epoch, TEST)
        for name in ("shuffled", *(f"only_{strategy}" for strategy in params["strategies"])):
            self._first(name, name, "epoch1", TEST)
        self._votes()
        self._routers()

    def _base(self, dataset: str) -> None:
        attempts = self._attempts("base", self.seeds[0], "base", dataset)
        table, tokens = outcomes(attempts), attempts.groupby("strategy")["completion_tokens"].mean()
        for name in tokens.index:
            self._add(dataset, f"base_{name}", table[name], tokens[name])
        best = max(tokens.index, key=lambda name: table[name].sum())
        self.best[dataset] = best
        self._add(dataset, "base_best", table[best], tokens[best])
        self._add(dataset, "base_oracle", table["oracle"], tokens.sum())
        self._add(dataset, "base_random", _drawn(table, list(tokens.index), 0), tokens.mean())
        untaught = self._attempts("base", self.seeds[0], "base_zero_shot", dataset)
        first = untaught[untaught["position"] == 1].set_index("problem_id").sort_index()
        self._add(dataset, "base_untaught", first["verdict"] == "correct", first["completion_tokens"].mean())
        self._add(dataset, "base_majority", controls.majority(attempts), tokens.sum())

    def _first(self, name: str, run: str, checkpoint: str, dataset: str) -> None:
        attempts = [self._attempts(run, seed, checkpoint, dataset) for seed in self.seeds]
        firsts = [one[one["position"] == 1].set_index("problem_id") for one in attempts]
        tokens = np.mean([one["completion_tokens"].mean() for one in firsts])
        self._add(dataset, name, [one["verdict"] == "correct" for one in firsts], tokens)

    def _forced(self, name: str, dataset: str) -> None:
        """Any of the three strategies, each of them, and one of them drawn at random."""
        attempts = [self._attempts(name, seed, name, dataset) for seed in self.seeds]
        tables = [outcomes(one) for one in attempts]
        forced = [one[one["probability"].notna()].groupby("strategy")["completion_tokens"].mean() for one in attempts]
        for strategy in (strategies := list(forced[0].index)):
            tokens = np.mean([one[strategy] for one in forced])
            self._add(dataset, f"{name}_{strategy}", [table[strategy] for table in tables], tokens)
        self._add(dataset, f"{name}_oracle", [one["oracle"] for one in tables], np.mean([one.sum() for one in forced]))
        drawn = [_drawn(table, strategies, seed) for table, seed in zip(tables, self.seeds, strict=True)]
        self._add(dataset, f"{name}_random", drawn, np.mean([one.mean() for one in forced]))

    def _votes(self) -> None:
        attempts = records.read(at("votes", self.seeds[0]) / f"data/votes/{TEST}.parquet", records.ATTEMPT)
        tokens = attempts.groupby("problem_id")["completion_tokens"].sum().mean()
        self._add(TEST, "base_votes", controls.majority(attempts), tokens)
        self.votes = int(attempts.groupby("problem_id").size().iloc[0])

    def _routers(self) -> None:
        """On the attempts that epoch 1 learns from, and on those of both epochs; the base model answers."""
        base = self._attempts("base", self.seeds[0], "base", TEST)
        table, tokens = outcomes(base), base.set_index(["problem_id", "strategy"])["completion_tokens"]
        for name, labels in (("router1", ["base"]), ("router2", ["base", "epoch1"])):
            chosen = [self._routed(seed, labels) for seed in self.seeds]
            used = [tokens.loc[list(zip(table.index, one, strict=True))].mean() for one in chosen]
            self._add(TEST, name, [_taken(table, one) for one in chosen], np.mean(used))

    def _routed(self, seed: int, labels: list[str]) -> list[str]:
        folder = at("epoch2", seed) / "data"
        files = [file for label in labels for file in sorted((folder / "attempts" / label).glob("*.parquet"))]
        right = outcomes(pd.concat([records.read(file, records.ATTEMPT).assign(probability=None) for file in files]))
        parts = sorted((folder / "problems").glob("part-*.parquet"))
        asked = pd.concat([records.read(part, records.PROBLEM) for part in parts]).set_index("id")["question"]
        router = controls.Router(list(asked[right.index]), right.drop(columns="oracle"))
        return router.choose(list(self.problems[TEST]["question"]))

    def sampled(self) -> float:
        """Tokens of the attempts that both epochs learn from, the mean of the seeds."""
        totals = []
        for seed in self.seeds:
            files = (at("epoch2", seed) / "data/attempts").glob("*/*.parquet")
            totals.append(sum(records.read(file, records.ATTEMPT)["completion_tokens"].sum() for file in files))
        return float(np.mean(totals))

    def _attempts(self, run: str, seed: int, checkpoint: str, dataset: str) -> pd.DataFrame:
        return records.read(at(run, seed) / f"data/evaluation/{checkpoint}-{dataset}.parquet", records.ATTEMPT)

    def _add(self, dataset: str, name: str, right: pd.Series | list[pd.Series], tokens: float) -> None:
        rows = right if isinstance(right, list) else [right]
        order = self.problems[dataset].index
        self.right[dataset][name] = np.stack([one.reindex(order).to_numpy(dtype=bool) for one in rows])
        self.tokens[dataset][name] = float(tokens)


def _taken(table: pd.DataFrame, names: list[str]) -> pd.Series:
    """Each row's column of that name."""
    return pd.Series([table.at[row, name] for row, name in zip(table.index, names, strict=True)], table.index)


def _drawn(table: pd.DataFrame, strategies: list[str], seed: int) -> pd.Series:
    """Each row's outcome of a strategy that is drawn at random."""
    return _taken(table, [strategies[records.seed_of("drawn", seed, one) % len(strategies)] for one in table.index])


def pairs(params: dict) -> list[tuple[str, str]]:
    """What is compared on the same problems: (new, old)."""
    return [
        ("epoch1", "base_best"),
        ("epoch2", "epoch1"),
        ("epoch2", "continued_dpo"),
        ("epoch2", "continued_sft"),
        ("continued_dpo", "epoch1"),
        ("continued_sft", "epoch1"),
        ("epoch2", "literal_epoch2"),
        ("literal_epoch2", "literal_epoch1"),
        *(("epoch1", f"only_{name}") for name in params["strategies"]),
        ("epoch1", "shuffled"),
        ("epoch1", "router1"),
        ("epoch2", "router2"),
        ("epoch1", "base_votes"),
        ("epoch2", "base_votes"),
        ("epoch2", "epoch2_random"),
    ]


def compared(results: Results, dataset: str, new: str, old: str) -> dict:
    """`compare` over all seeds, and the p-value of each."""
    both = np.broadcast_arrays(results.right[dataset][new], results.right[dataset][old])
    groups = results.groups[dataset]
    alone = [compare(a, b, groups)["p_value"] for a, b in zip(*both, strict=True)] if len(both[0]) > 1 else []
    return {**compare(*both, groups), "p_values": alone}


def accuracies(results: Results, dataset: str, some: np.ndarray) -> dict[str, dict]:
    """Of `some` of the problems, a mask."""
    groups = [group for group, use in zip(results.groups[dataset], some, strict=True) if use]
    return {
        name: {
            **grouped(right[:, some], groups),
            "seeds": [float(one[some].mean()) for one in right],
            "tokens": results.tokens[dataset][name],
        }
        for name, right in results.right[dataset].items()
    }


def summarise(results: Results, params: dict) -> dict:
    seed = params["problems"]["world"]["seed"]
    known = {row["group"] for world in LOOKED_AT for row in generate(TEST, 1000, world)}
    new = np.array([group not in known for group in results.groups[TEST]])
    everything = {name: np.ones(len(groups), dtype=bool) for name, groups in results.groups.items()}
    return {
        "seeds": results.seeds,
        "world": {"seed": seed, "looked_at": list(LOOKED_AT)},
        "problems": {name: len(groups) for name, groups in results.groups.items()},
        "base_best": results.best,
        "votes": results.votes,
        "sampled_tokens": results.sampled(),
        "accuracy": {name: accuracies(results, name, everything[name]) for name in (TEST, HARD)},
        "comparisons": {
            TEST: {
                f"{a} vs {b}": compared(results, TEST, a, b)
                for a, b in pairs(params)
                if {a, b} <= results.right[TEST].keys()
            },
            HARD: {
                f"{a} vs {b}": compared(results, HARD, a, b)
                for a, b in (("epoch1", "base_best"), ("epoch2", "base_best"), ("epoch2", "epoch1"))
            },
        },
        # Two worlds share what has few numbers to choose from; of the problems that no test before had:
        "unseen": {"problems": int(new.sum()), "accuracy": accuracies(results, TEST, new)},
    }


def table(summary: dict) -> str:
    """The README's tables."""
    best, votes = summary["base_best"], summary["votes"]
    single = {name: f"control: the same number of its own {name} solutions alone" for name in ("cot", "l2m", "pot")}
    rows = {
        "base_untaught": "base, its untaught choice",
        "base_random": "base, a strategy drawn at random, 8-shot",
        "base_best": f"base, best single strategy ({best[TEST]}), 8-shot",
        "base_majority": "base, majority of the three strategies, 8-shot",
        "base_votes": f"base, majority of {votes} samples, 8-shot",
        "router1": "base, a router that learnt from epoch 1's attempts",
        "router2": "base, a router that learnt from both epochs' attempts",
        **{f"only_{name}": text for name, text in single.items()},
        "shuffled": "control: strategies permuted among epoch 1's problems",
        "epoch1": "**epoch 1**",
        "continued_sft": "control: epoch 1, then `sft` on its own data for as many steps again",
        "continued_dpo": "control: epoch 1, then `dpo` on its own data, as many steps as epoch 2",
        "literal_epoch1": "literal reading, epoch 1: all problems, until solved",
        "literal_epoch2": "literal reading, epoch 2: restart from base on epoch 1's own attempts",
        "epoch2_random": "epoch 2, a strategy drawn at random",
        "epoch2": "**epoch 2**",
        "base_oracle": "base, any of three (oracle)",
        "epoch2_oracle": "epoch 2, any of three (oracle)",
    }
    found = summary["accuracy"][TEST]
    lines = ["| | right, test | by seed | tokens |", "| --- | --- | --- | --- |"]
    lines += [_row(text, found[name]) for name, text in rows.items() if name in found]
    lines += ["", "| `test_hard` | right | by seed | tokens |", "| --- | --- | --- | --- |"]
    rows["base_best"] = f"base, best single strategy ({best[HARD]}), 8-shot"
    hard = ("base_best", "epoch1", "epoch2", "base_oracle", "epoch2_oracle")
    lines += [_row(rows[name], summary["accuracy"][HARD][name]) for name in hard]
    lines += ["", "| paired, same problems | difference | p | p by seed |", "| --- | --- | --- | --- |"]
    for dataset, end in ((TEST, ""), (HARD, ", `test_hard`")):
        for name, one in summary["comparisons"][dataset].items():
            gain = f"{100 * one['difference']:+.1f} points ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
            alone = ", ".join(map(told, one["p_values"])) or "one result"
            lines.append(f"| {name}{end} | {gain} | {told(one['p_value'])} | {alone} |")
    return "\n".join(lines)


def _row(text: str, one: dict) -> str:
    interval = f"{100 * one['accuracy']:.1f} % ({100 * one['low']:.1f}-{100 * one['high']:.1f})"
    alone = ", ".join(f"{100 * value:.1f}" for value in one["seeds"]) if len(one["seeds"]) > 1 else "one result"
    return f"| {text} | {interval} | {alone} | {one['tokens']:.0f} |"


@click.command()
@click.option("--seeds", default="0,1,2,3,4", show_default=True)
@click.option("--jobs", default=1, show_default=True, help="runs side by side, which share the cores")
@click.option("--literal/--no-literal", default=True, help="the paper's literal reading too, a third of the time")
def main(seeds: str, jobs: int, literal: bool) -> None:
    os.chdir(ROOT)
    numbers, params = [int(seed) for seed in seeds.split(",")], YAML(typ="safe").load(ROOT / "params.yaml")
    make(variants(params, literal), numbers, jobs)
    summary = summarise(Results(params, numbers, literal), params)
    loops.publish(summary, RESULTS, table(summary), README)


if __name__ == "__main__":
    main()
