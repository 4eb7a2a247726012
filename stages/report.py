"""What came out, from the evaluations' attempts: a page, a Markdown table, the summary and the plots' data."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pandas as pd

from stages import common, output
from whetstone import records
from whetstone.errors import UserError

OUT, SUMMARY = Path("report"), "metrics/summary.json"


def read_json(path: str) -> dict:
    """Metrics that an earlier stage wrote. Raises UserError where there are none."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such metrics; run the stage that makes them (`dvc repro` does)") from None


def summaries(shape: common.Structure) -> tuple[dict[str, dict], list[dict]]:
    """Each evaluation set's summary, and the rows of the breakdown by family and level."""
    from whetstone.report.summary import BASE, breakdown_rows, summarise

    found, rows = {}, []
    for dataset in shape.datasets:
        labels = [BASE, *shape.epochs.evaluate]
        attempts = {
            label: records.read(f"data/evaluation/{label}-{dataset}.parquet", records.ATTEMPT) for label in labels
        }
        problems = records.read(f"data/problems/{dataset}.parquet", records.PROBLEM)
        found[dataset] = summarise(attempts, read_json(f"metrics/evaluation/base-{dataset}.json")["zero_shot"])
        rows += breakdown_rows(attempts, problems, dataset)
    return found, rows


@click.command(cls=common.Stage)
def main() -> None:
    """Writes report/, metrics/summary.json, plots/accuracy.csv and plots/families.csv."""
    from whetstone.report import page
    from whetstone.report.summary import accuracy_rows

    shape = common.structure()
    if not shape.datasets:
        raise UserError(f"{common.PARAMS}: `datasets` is empty; name an evaluation set, such as test")
    found, rows = summaries(shape)
    tuned, first = shape.epochs.evaluate, shape.datasets[0]
    tables = []
    for dataset, summary in found.items():
        tables += [page.headline(summary, dataset, tuned), page.comparisons(summary, dataset)]
        tables += [page.strategies(summary, dataset, tuned), page.retries(summary, dataset, tuned)]
    statistics = {epoch: read_json(f"metrics/preprocess/{epoch}.json") for epoch in shape.epochs.train}
    tables += [page.training(statistics)]
    groups = dict.fromkeys(row["group"] for row in rows if row["dataset"] == first)
    tables += [page.by_group(rows, first, group, tuned) for group in groups]
    OUT.mkdir(exist_ok=True)
    (OUT / "index.html").write_text(page.html(tables))
    (OUT / "report.md").write_text(page.markdown(tables))
    (OUT / "headline.md").write_text(page.markdown(tables[:2]))
    others = {dataset: summary for dataset, summary in found.items() if dataset != first}
    output.write_json(SUMMARY, {"dataset": first, **found[first], "others": others})
    Path("plots").mkdir(exist_ok=True)
    bars = [row for dataset, summary in found.items() for row in accuracy_rows(summary, dataset, tuned)]
    pd.DataFrame(bars).round(6).to_csv("plots/accuracy.csv", index=False)
    pd.DataFrame(rows).round(6).to_csv("plots/families.csv", index=False)
    output.finish("report", evaluation_sets=list(found), checkpoints=tuned, summary=SUMMARY, path=OUT / "index.html")


if __name__ == "__main__":
    main()
