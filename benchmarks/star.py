"""STaR's arms side by side over seeds: every number of the tables in recipes/star/README.md comes from here.

    python -m benchmarks.star --seeds 0,1,2

Each run is a clone of this commit in .scratch/star with its seeds changed and `dvc repro` in recipes/star. Test
outcomes are read at the end; nothing is chosen by them.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click
import numpy as np
import pandas as pd

from benchmarks import loops
from benchmarks.loops import ROOT
from whetstone import records
from whetstone.evaluation.intervals import compare, grouped, told
from whetstone.evaluation.star import gap
from whetstone.report.star import outcomes

RECIPE = Path("recipes/star")
RESULTS, README = ROOT / "benchmarks/results/star.json", ROOT / RECIPE / "README.md"
SEEDED = ("sample", "curate", "sft", "dpo")
MODELS = ("base", "sft1", "sft2", "rationalized1", "rationalized2", "dpo1", "dpo2")
PAIRS = (("sft2", "base"), ("rationalized2", "base"), ("dpo2", "base"), ("rationalized2", "sft2"), ("dpo2", "sft2"))
HEALTH = ("answered", "accuracy_given_answered")
RATES = ("truncated", "repetitive", "in_language")


def clone(seed: int) -> Path:
    """A clone of HEAD with seeds of its own."""
    folder = ROOT / ".scratch/star" / f"seed-{seed}"
    loops.clone(folder)
    loops.set_parameters(folder / RECIPE / "params.yaml", {f"{section}.seed": seed for section in SEEDED})
    return folder / RECIPE


class Run:
    """What one run's folder says: outcomes on test and on training problems, metrics."""

    def __init__(self, folder: Path):
        tables = {name: pd.read_parquet(folder / f"data/problems/{name}.parquet") for name in ("train", "test")}
        self.language = {
            one: name or "all"
            for table in tables.values()
            for one, name in zip(table["id"], table["language"], strict=True)
        }
        self.group = {
            one: group for table in tables.values() for one, group in zip(table["id"], table["group"], strict=True)
        }
        self.right = {
            (model, split): outcomes(
                records.read(folder / f"data/evaluation/{model}/{split}.parquet", records.ATTEMPT)
            )
            for model in MODELS
            for split in ("test", "train")
        }
        self.metrics = {m: json.loads((folder / f"metrics/evaluation/{m}.json").read_text()) for m in MODELS}
        self.curation = {
            m: json.loads((folder / f"metrics/curate/{m}.json").read_text()) for m in MODELS if m != "base"
        }

    def of(self, model: str, language: str, split: str = "test") -> pd.Series:
        """Outcomes of the problems of a language, or of all."""
        right = self.right[model, split]
        return right[[language == "all" or self.language[problem] == language for problem in right.index]]


def summarise(seeds: list[int], runs: list[Run]) -> dict:
    """All runs ask the same problems, so a problem's outcomes in every language and under every seed are one group."""
    languages = ["all", *sorted(set(runs[0].language.values()) - {"all"})]

    def outcomes_of(model: str, language: str, split: str = "test") -> tuple[np.ndarray, list[str]]:
        """(seeds, problems) outcomes and the problems' groups."""
        right = [run.of(model, language, split) for run in runs]
        if not all(one.index.equals(right[0].index) for one in right):
            raise ValueError(f"{model}, {split}: the runs asked other problems")
        return np.stack(right), [runs[0].group[problem] for problem in right[0].index]

    def pooled(model: str, language: str, split: str = "test") -> dict:
        right, groups = outcomes_of(model, language, split)
        return {**grouped(right, groups), "seeds": right.mean(axis=1).tolist()}

    def compared(new: str, old: str, language: str) -> dict:
        right, groups = outcomes_of(new, language)
        return compare(right, outcomes_of(old, language)[0], groups)

    accuracy = {m: {name: pooled(m, name) for name in languages} for m in MODELS}
    gaps = {m: {n: gap(pooled(m, n, "train"), accuracy[m][n]) for n in languages} for m in MODELS}
    health = {
        model: {
            name: {
                **{key: _mean(run.metrics[model]["test"][name][key]["accuracy"] for run in runs) for key in HEALTH},
                **{key: _mean(run.metrics[model]["test"][name][key] for run in runs) for key in RATES},
                "letter_bias": _mean(run.metrics[model]["test"][name]["letters"]["bias"] for run in runs),
                "right_in_all_orders": _mean(
                    run.metrics[model]["test"][name]["consistency"]["right_each_time"]["accuracy"] for run in runs
                ),
            }
            for name in languages
        }
        for model in MODELS
    }
    comparisons = {f"{new} vs {old}": {name: compared(new, old, name) for name in languages} for new, old in PAIRS}
    return {
        "seeds": seeds,
        "problems": {name: len(runs[0].of("base", name)) for name in languages},
        "accuracy": accuracy,
        "gap": gaps,
        "health": health,
        "comparisons": comparisons,
        "learnt_from": {m: runs[0].curation[m] for m in MODELS if m != "base"},
    }


def _mean(values: object) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def tables(summary: dict) -> str:
    """The README's tables."""
    languages = list(summary["problems"])

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f}"

    head = f"| | {' | '.join(languages)} |\n| --- |{' --- |' * len(languages)}"
    groups, seeds = summary["accuracy"]["base"]["all"]["groups"], len(summary["seeds"])
    drawn = f"{groups} problems, each with its translations, and {seeds} seeds"
    lines = [f"Test accuracy, percent, with 95 % intervals over {drawn}; guessing gives 25.", "", head]
    for model, found in summary["accuracy"].items():
        cells = [
            f"{percent(one['accuracy'])} ({percent(one['low'])}–{percent(one['high'])})" for one in found.values()
        ]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    lines += ["", "Paired on the same test problems, points; p of sign flips of the problems.", "", head]
    for pair, found in summary["comparisons"].items():
        cells = []
        for name in languages:
            one = found[name]
            low, high = 100 * one["low"], 100 * one["high"]
            cells.append(f"{100 * one['difference']:+.1f} ({low:+.1f} to {high:+.1f}), p {told(one['p_value'])}")
        lines.append(f"| {pair} | {' | '.join(cells)} |")
    lines += ["", "Accuracy on training problems minus accuracy on test, points.", "", head]
    for model, found in summary["gap"].items():
        cells = [f"{100 * o['value']:+.1f} ({100 * o['low']:+.1f} to {100 * o['high']:+.1f})" for o in found.values()]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    lines += ["", "Swahili: is it the format or the knowledge? Percent.", ""]
    lines += [
        "| | answered | right where answered | repetitive | in Swahili | right in both orders |",
        f"|{' --- |' * 6}",
    ]
    for model, found in summary["health"].items():
        one = found["sw"]
        keys = ("answered", "accuracy_given_answered", "repetitive", "in_language", "right_in_all_orders")
        lines.append(f"| {model} | {' | '.join(percent(one[key]) for key in keys)} |")
    return "\n".join(lines)


@click.command()
@click.option("--seeds", default="0,1,2", show_default=True)
def main(seeds: str) -> None:
    os.chdir(ROOT)
    numbers, runs = [int(seed) for seed in seeds.split(",")], []
    for seed in numbers:
        start, folder = time.monotonic(), clone(seed)
        loops.repro(folder)
        runs.append(Run(folder))
        click.echo(f"seed {seed}: {time.monotonic() - start:.0f} s, load {os.getloadavg()[0]:.1f}")
    summary = summarise(numbers, runs)
    loops.publish(summary, RESULTS, tables(summary), README)


if __name__ == "__main__":
    main()
