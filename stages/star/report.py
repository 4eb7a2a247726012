"""All iterations side by side: tables in Markdown, the summary, the plot's data."""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from stages import common, output
from stages.star import common as star
from whetstone import records
from whetstone.errors import UserError

OUT = Path("report")


@click.command(cls=common.Stage)
def main() -> None:
    """Writes report/report.md, metrics/summary.json and plots/accuracy.csv."""
    import json

    from whetstone.report import star as tables

    spec = star.iterations().train
    found = {name: star.evaluation(name) for name in ("base", *spec)}
    chains = tables.arms({name: one.after for name, one in spec.items()})
    stopped = [name for name in spec if "test" not in found[name]]
    found = {name: one for name, one in found.items() if name not in stopped}
    best = {end: star.evaluation(end)["best"] for end in chains}
    tests = {name: records.read(f"data/evaluation/{name}/test.parquet", records.ATTEMPT) for name in found}
    pairs = [(name, "base") for name in found if name != "base"]
    pairs += [(a, b) for i, a in enumerate(best.values()) for b in list(best.values())[:i] if a != b]
    compared = tables.comparisons(tests, star.problems("test"), list(dict.fromkeys(pairs)))
    if not compared:
        raise UserError("report: no iteration was evaluated; `dvc repro` evaluates them")
    statistics = {name: json.loads(Path(f"metrics/curate/{name}.json").read_text()) for name in spec}
    trained_on_test = json.loads(Path("metrics/problems.json").read_text())["loaded"]["trains_on_test_rows"]
    chosen = [f"- {' → '.join(['base', *chain])}: best on dev is **{best[end]}**" for end, chain in chains.items()]
    parts = [
        *([f"**{star.BANNER.format(rows=trained_on_test)}**"] if trained_on_test else []),
        tables.accuracy(found),
        "\n".join(chosen),
        tables.comparison_table(compared),
        tables.gaps(found),
        tables.format_health(found),
        tables.curation(statistics),
    ]
    OUT.mkdir(exist_ok=True)
    (OUT / "report.md").write_text("\n\n".join(parts) + "\n")
    (OUT / "headline.md").write_text("\n\n".join(parts[: 2 + bool(trained_on_test)]) + "\n")
    rows = [
        {"model": model, "language": name, "split": split, **one[split][name]["accuracy"]}
        for model, one in found.items()
        for split in ("test", "train")
        for name in tables.languages(found)
        if name in one[split]
    ]
    Path("plots").mkdir(exist_ok=True)
    pd.DataFrame(rows).round(6).to_csv("plots/accuracy.csv", index=False)
    test = {model: {name: one["test"][name]["accuracy"] for name in one["test"]} for model, one in found.items()}
    records.write_json(
        "metrics/summary.json",
        {"test": test, "gap": {m: one["gap"] for m, one in found.items()}, "best": best, "comparisons": compared},
    )
    output.finish("report", models=list(found), best=best, path=OUT / "report.md")


if __name__ == "__main__":
    main()
