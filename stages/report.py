"""What came out, from the outs alone: a page, a viewer of all attempts, Markdown tables, the summary, plots' data."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pandas as pd
from ruamel.yaml import YAML

from stages import common, output
from whetstone import records
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.report.run import Run

OUT, SUMMARY = Path("report"), "metrics/summary.json"
TABLES = {"sft": records.EXAMPLE, "dpo": records.PAIR}  # what each trainer reads
# Sections of params.yaml that decide the result; dvc.yaml declares the same
DECIDE = ("epochs", "strategies", "infer_parts", "sample_parts", "datasets", "model", "engine", "problems", "infer",
          "preprocess", "sft", "sample", "dpo", "evaluate")  # fmt: skip


def read_json(path: str) -> dict:
    """Metrics that an earlier stage wrote. Raises UserError where there are none."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such metrics; run the stage that makes them (`dvc repro` does)") from None


def folder(path: str, schema: Any) -> dict[str, pd.DataFrame]:
    """The tables of a folder and its subfolders, by path."""
    return {str(file): records.read(file, schema) for file in sorted(Path(path).glob("**/*.parquet"))}


def parameters() -> str:
    """What decided the result, as YAML."""
    text, params = StringIO(), common.read_params()
    YAML().dump({name: params[name] for name in DECIDE if name in params}, text)
    return text.getvalue()


def read(shape: common.Structure) -> Run:
    """Everything that the stages before this one left."""
    from whetstone.report.run import Epoch, Run

    labels = ["base", "base_zero_shot", *shape.epochs.evaluate]
    datasets = {
        dataset: {
            label: records.read(f"data/evaluation/{label}-{dataset}.parquet", records.ATTEMPT) for label in labels
        }
        for dataset in shape.datasets
    }
    epochs = {
        name: Epoch(
            attempts=own.attempts,
            trainer=own.trainer,
            rows=records.read(f"data/training/{name}/{own.trainer}.parquet", TABLES[own.trainer]),
            statistics=read_json(f"metrics/preprocess/{name}.json"),
            trained=read_json(f"metrics/train/{name}.json"),
            curve=pd.read_csv(f"plots/train/{name}.csv"),
        )
        for name, own in shape.epochs.train.items()
    }
    return Run(
        problems=folder("data/problems", records.PROBLEM),
        sampled=folder("data/attempts", records.ATTEMPT),
        evaluated={
            f"data/evaluation/{label}-{dataset}.parquet": own
            for dataset, some in datasets.items()
            for label, own in some.items()
        },
        datasets=datasets,
        untaught={name: read_json(f"metrics/evaluation/base-{name}.json")["zero_shot"] for name in shape.datasets},
        epochs=epochs,
        parameters=parameters(),
    )


@click.command(cls=common.Stage)
def main() -> None:
    """Writes report/, metrics/summary.json, plots/accuracy.csv and plots/families.csv."""
    shape = common.structure()
    needed = (("datasets", shape.datasets, "test"), ("epochs.evaluate", shape.epochs.evaluate, "epoch1"))
    for name, given, example in needed:
        if not given:
            raise UserError(f"{common.PARAMS}: `{name}` is empty; name at least one, such as {example}")
    run = read(shape)
    from whetstone.report.run import results, write

    found = results(run)
    attempts = write(run, found, OUT)
    output.count(attempts, attempts)
    headline = shape.datasets[0]
    others = {dataset: summary for dataset, summary in found.summaries.items() if dataset != headline}
    records.write_json(SUMMARY, {"dataset": headline, **found.summaries[headline], "others": others})
    Path("plots").mkdir(exist_ok=True)
    pd.DataFrame(found.accuracies).round(6).to_csv("plots/accuracy.csv", index=False)
    pd.DataFrame(found.groups).round(6).to_csv("plots/families.csv", index=False)
    output.finish(
        "report",
        evaluation_sets=list(found.summaries),
        checkpoints=shape.epochs.evaluate,
        summary=SUMMARY,
        path=OUT / "index.html",
    )


if __name__ == "__main__":
    main()
