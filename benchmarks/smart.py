"""SMART's results with their controls, over several seeds: every number of the README's table comes from here.

    make results            # or: python -m benchmarks.smart --seeds 0,1,2

Each run is a clone of this commit in .scratch/smart with a few parameters changed and `dvc repro` in it; all clones
share this project's DVC cache, so what two runs have in common is made once. Test outcomes of all runs are read at the
end; nothing is chosen by them.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from scipy.stats import permutation_test

from benchmarks import loops
from benchmarks.loops import ROOT
from whetstone import records
from whetstone.evaluation.intervals import compare, paired_bootstrap, wilson
from whetstone.evaluation.smart import outcomes

RESULTS, README = ROOT / "benchmarks/results/smart.json", ROOT / "README.md"
SEEDED = ("infer", "preprocess", "sft", "sample", "dpo")
PARTS = [1, 2, 3, 4, 5]
# Controls: epoch 1 trained on with its own data for as many steps as epoch 2, by either trainer
CONTROLS = {"epoch1_dpo": "dpo", "epoch1_sft": "sft"}


def variants(params: dict) -> dict[str, dict[str, Any]]:
    """Name to the parameters that differ from params.yaml, dotted."""
    train = params["epochs"]["train"]
    own = train["epoch1"]["attempts"]
    controls = {name: {"start": "epoch1", "attempts": own, "trainer": trainer} for name, trainer in CONTROLS.items()}
    literal = {"epoch1": train["epoch1"], "epoch2": {"start": "base", "attempts": "epoch1", "trainer": "sft"}}
    runs: dict[str, dict[str, Any]] = {
        "main": {"epochs.train": {**train, **controls}, "epochs.evaluate": ["epoch1", *controls, "epoch2"]},
        "literal": {
            "epochs.train": literal,
            "infer_parts": PARTS,
            "sample_parts": PARTS,
            "infer.k": 1,
            "sample.k": 1,
            "sample.explore": "until_solved",
        },
    }
    for name in params["strategies"]:
        runs[f"only_{name}"] = {
            "epochs.train": {"epoch1": train["epoch1"]},
            "epochs.sample": [],
            "epochs.evaluate": ["epoch1"],
            "preprocess.first": name,
            "preprocess.max_attempts": 1,
        }
    return runs


def clone(name: str, changes: dict[str, Any], seed: int) -> Path:
    """A clone of HEAD with its own parameters, on this project's DVC cache."""
    folder = ROOT / ".scratch/smart" / f"{name}-{seed}"
    loops.clone(folder)
    subprocess.run(["dvc", "cache", "dir", "--local", str(ROOT / ".dvc/cache")], cwd=folder, check=True)
    seeds = {f"{section}.seed": seed for section in SEEDED}
    loops.set_parameters(folder / "params.yaml", {**changes, "datasets": ["test"], **seeds})
    return folder


def first_attempts(folder: Path) -> dict[str, pd.DataFrame]:
    """Checkpoint to `outcomes` of its test attempts; rows by problem, columns first, oracle and the strategies."""
    found = {}
    for file in sorted((folder / "data/evaluation").glob("*-test.parquet")):
        label = file.stem.removesuffix("-test")
        if label != "base_zero_shot":
            found[label] = outcomes(records.read(file, records.ATTEMPT))
    return found


def pooled(tables: list[pd.DataFrame], column: str) -> dict:
    """Accuracy over all seeds' outcomes, with the seeds' own accuracies."""
    right = np.concatenate([table[column].to_numpy() for table in tables])
    return {**wilson(int(right.sum()), len(right)), "seeds": [float(table[column].mean()) for table in tables]}


def compared(new: list[np.ndarray], old: list[np.ndarray]) -> dict:
    """Paired comparison for each seed, and of all seeds' outcomes together.

    The interval over all resamples problems, not outcomes, and the p-value (two-sided) is of sign flips of problems'
    mean differences: a problem's outcomes under the seeds go together.
    """
    means = np.mean(new, axis=0), np.mean(old, axis=0)
    together = paired_bootstrap(np.stack(means, axis=1), lambda pairs: pairs[:, 0] - pairs[:, 1])
    flips = permutation_test(
        means, lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", n_resamples=99_999, rng=0
    )
    return {
        "all": {**together, "p_value": float(flips.pvalue)},
        "seeds": [compare(a, b) for a, b in zip(new, old, strict=True)],
    }


def summarise(seeds: list[int], runs: dict[str, list[dict[str, pd.DataFrame]]]) -> dict:
    main = runs["main"]
    base = [run["base"] for run in main]
    singles = {name: pooled(base, name) for name in base[0].columns if name != "oracle"}
    best = max(singles, key=lambda name: singles[name]["accuracy"])
    accuracy = {"base_best_single": {"strategy": best, **singles[best]}, "base_oracle": pooled(base, "oracle")}
    for label in ("epoch1", *CONTROLS, "epoch2"):
        tables = [run[label] for run in main]
        accuracy[label] = pooled(tables, "first")
        accuracy[f"{label}_oracle"] = pooled(tables, "oracle")
        for name in singles:
            accuracy[f"{label}_{name}"] = pooled(tables, name)
    for name, tables in runs.items():
        if name != "main":
            for label in tables[0]:
                if label != "base":
                    accuracy[f"{name}_{label}"] = pooled([run[label] for run in tables], "first")

    def first(label: str) -> list[np.ndarray]:
        return [run[label]["first"].to_numpy() for run in main]

    comparisons = {
        "epoch1 vs base_best_single": compared(first("epoch1"), [table[best].to_numpy() for table in base]),
        "epoch2 vs epoch1": compared(first("epoch2"), first("epoch1")),
        **{f"epoch2 vs {name}": compared(first("epoch2"), first(name)) for name in CONTROLS},
        **{f"{name} vs epoch1": compared(first(name), first("epoch1")) for name in CONTROLS},
    }
    if "literal" in runs:
        literal = [run["epoch2"]["first"].to_numpy() for run in runs["literal"]]
        comparisons["epoch2 vs literal_epoch2"] = compared(first("epoch2"), literal)
    for name in runs:
        if name.startswith("only_"):
            other = [run["epoch1"]["first"].to_numpy() for run in runs[name]]
            comparisons[f"epoch1 vs {name}"] = compared(first("epoch1"), other)
    return {"seeds": seeds, "problems": len(base[0]), "accuracy": accuracy, "comparisons": comparisons}


def table(summary: dict) -> str:
    """The README's table."""
    best = summary["accuracy"]["base_best_single"]["strategy"]
    lines = ["| | first attempt, test | by seed |", "| --- | --- | --- |"]
    told = {
        "base_best_single": f"base, best single strategy ({best}), 8-shot",
        "epoch1": "epoch 1",
        "epoch1_sft": "control: epoch 1, then `sft` on its own data for another 120 steps",
        "epoch1_dpo": "control: epoch 1, then `dpo` on its own data, as many steps as epoch 2",
        "epoch2": "**epoch 2**",
        "literal_epoch1": "literal reading, epoch 1: all problems, until solved",
        "literal_epoch2": "literal reading, epoch 2: restart from base on epoch 1's own attempts",
        **{
            f"only_{name}_epoch1": f"control: trained on its own {name} solutions alone"
            for name in ("cot", "l2m", "pot")
        },
        "base_oracle": "base, any of three (oracle)",
        "epoch2_oracle": "epoch 2, any of three (oracle)",
    }
    for name, label in told.items():
        if name not in summary["accuracy"]:  # a variant that `--only` left out
            continue
        one = summary["accuracy"][name]
        interval = f"{100 * one['accuracy']:.1f} % ({100 * one['low']:.1f}-{100 * one['high']:.1f})"
        lines.append(f"| {label} | {interval} | {', '.join(f'{100 * s:.1f}' for s in one['seeds'])} |")
    lines += ["", "| paired, same problems | difference | p | p by seed |", "| --- | --- | --- | --- |"]
    for name, one in summary["comparisons"].items():
        gain = one["all"]
        told_gain = f"{100 * gain['value']:+.1f} points ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        by_seed = ", ".join(f"{seed['p_value']:.2g}" for seed in one["seeds"])
        lines.append(f"| {name} | {told_gain} | {gain['p_value']:.2g} | {by_seed} |")
    return "\n".join(lines)


@click.command()
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--only", default=None, help="some variants, by name and a comma: main,literal,only_cot ...")
def main(seeds: str, only: str | None) -> None:
    os.chdir(ROOT)
    numbers = [int(seed) for seed in seeds.split(",")]
    wanted = variants(YAML(typ="safe").load(ROOT / "params.yaml"))
    names = only.split(",") if only else list(wanted)
    runs: dict[str, list] = {name: [] for name in names}
    for name in names:
        for seed in numbers:
            start = time.monotonic()
            folder = clone(name, wanted[name], seed)
            loops.repro(folder, "report")
            runs[name].append(first_attempts(folder))
            click.echo(f"{name}, seed {seed}: {time.monotonic() - start:.0f} s")
    summary = summarise(numbers, runs)
    loops.publish(summary, RESULTS, table(summary), README)


if __name__ == "__main__":
    main()
