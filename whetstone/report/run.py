"""What a finished run left behind, as the report reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from whetstone.report import changes, flow, page, sections, tables, viewer
from whetstone.report.summary import BASE, accuracy_rows, breakdown_rows, summarise


@dataclass(frozen=True)
class Epoch:
    """One epoch: which attempts it learnt from and how, what it was trained on (records.EXAMPLE for sft, records.PAIR
    for dpo), what curation and trainer counted."""

    attempts: str
    trainer: str
    rows: pd.DataFrame
    statistics: Mapping
    trained: Mapping
    curve: pd.DataFrame


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        problems, sampled, evaluated: tables by path (records.PROBLEM, records.ATTEMPT).
        datasets: the evaluation sets, the headline first, as {checkpoint: attempts}: `base` (few-shot), then
            `base_zero_shot`, then each tuned checkpoint in order.
        untaught: metrics of `base_zero_shot` by evaluation set.
        epochs: by name, in order.
        parameters: what decided it, as YAML.
        root: the folder that the paths are in.
    """

    problems: Mapping[str, pd.DataFrame]
    sampled: Mapping[str, pd.DataFrame]
    evaluated: Mapping[str, pd.DataFrame]
    datasets: Mapping[str, Mapping[str, pd.DataFrame]]
    untaught: Mapping[str, Mapping]
    epochs: Mapping[str, Epoch]
    parameters: str
    root: Path = Path(".")

    def problems_of(self, dataset: str) -> pd.DataFrame:
        return next(own for path, own in self.problems.items() if Path(path).stem == dataset)

    def checkpoints(self, dataset: str) -> list[str]:
        """The tuned ones."""
        return [label for label in self.datasets[dataset] if label not in (BASE, changes.UNTAUGHT)]


@dataclass(frozen=True)
class Results:
    """Each evaluation set's summary, the accuracies behind the plots, and accuracies by family and level."""

    summaries: dict[str, dict]
    accuracies: list[dict]
    groups: list[dict]


def results(run: Run) -> Results:
    summaries, accuracies, groups = {}, [], []
    for dataset, own in run.datasets.items():
        tuned = run.checkpoints(dataset)
        known = {label: own[label] for label in (BASE, *tuned)}
        summaries[dataset] = summarise(known, run.untaught[dataset])
        accuracies += accuracy_rows(summaries[dataset], dataset, tuned)
        groups += breakdown_rows(known, run.problems_of(dataset), dataset)
    return Results(summaries, accuracies, groups)


def markdown_tables(run: Run, found: Results) -> list[tables.Table]:
    """All tables; the first two are the headline."""
    made = []
    for dataset, summary in found.summaries.items():
        tuned = run.checkpoints(dataset)
        made += [tables.headline(summary, dataset, tuned), tables.comparisons(summary, dataset)]
        made += [tables.strategies(summary, dataset, tuned), tables.retries(summary, dataset, tuned)]
    made += [tables.training({name: epoch.statistics for name, epoch in run.epochs.items()})]
    headline = next(iter(found.summaries))
    groups = dict.fromkeys(row["group"] for row in found.groups if row["dataset"] == headline)
    return made + [tables.by_group(found.groups, headline, group, run.checkpoints(headline)) for group in groups]


def training_tables(run: Run) -> dict[str, pd.DataFrame]:
    """What each epoch was trained on, by path."""
    return {f"data/training/{name}/{epoch.trainer}.parquet": epoch.rows for name, epoch in run.epochs.items()}


def html(run: Run, found: Results) -> str:
    """The report's page."""
    drawn = sections.Drawings()
    trained = {name: epoch.trained["tokens"] for name, epoch in run.epochs.items()}
    tokens = flow.token_rows({**run.sampled, **run.evaluated}, trained)
    return page.render(
        datasets=[
            sections.dataset_section(
                found.summaries[name], name, run.checkpoints(name), own, run.problems_of(name), found.groups, drawn
            )
            for name, own in run.datasets.items()
        ],
        training=[
            sections.training_section(name, epoch.trainer, epoch.curve, epoch.trained, drawn)
            for name, epoch in run.epochs.items()
        ],
        flows=[
            {
                "epoch": name,
                "attempts": epoch.attempts,
                "trainer": epoch.trainer,
                "steps": flow.data_flow(epoch.statistics, epoch.trained, epoch.trainer, epoch.rows),
            }
            for name, epoch in run.epochs.items()
        ],
        curation=tables.training({name: epoch.statistics for name, epoch in run.epochs.items()}),
        tokens=tokens,
        most_tokens=max(row["generated"] or row["trained"] or 1 for row in tokens),
        lineage=flow.lineage({**run.problems, **run.sampled, **training_tables(run), **run.evaluated}, run.root),
        parameters=run.parameters,
        charts=drawn,
    )


def marks(run: Run) -> dict[str, pd.Series]:
    """What the viewer can filter problems by beside the columns: flips and moved choices of each comparison."""
    found: dict[str, list[pd.Series]] = {}
    for dataset, own in run.datasets.items():
        first = {label: changes.firsts(attempts, label) for label, attempts in own.items()}
        for old, new in sections.comparisons(run.checkpoints(dataset)):
            found.setdefault(sections.flip_filter(old, new), []).append(changes.flips(first[old], first[new]))
        for old, new in sections.choosers(run.checkpoints(dataset)):
            found.setdefault(sections.move_filter(old, new), []).append(changes.moved(first[old], first[new]))
    return {name: pd.concat(some) for name, some in found.items()}


def write(run: Run, found: Results, folder: Path) -> int:
    """Writes the pages into the folder: index.html, attempts.html and attempts/; returns the number of attempts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(html(run, found))
    made = markdown_tables(run, found)
    (folder / "report.md").write_text(tables.markdown(made))
    (folder / "headline.md").write_text(tables.markdown(made[:2]))
    attempts = pd.concat([*run.sampled.values(), *run.evaluated.values()], ignore_index=True)
    viewer.write(
        folder,
        attempts,
        pd.concat(run.problems.values(), ignore_index=True),
        models=[BASE, changes.UNTAUGHT, *run.epochs],
        examples={name: epoch.rows for name, epoch in run.epochs.items() if epoch.trainer == "sft"},
        pairs={name: epoch.rows for name, epoch in run.epochs.items() if epoch.trainer == "dpo"},
        marks=marks(run),
    )
    return len(attempts)
