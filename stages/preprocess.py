"""Attempts into the training data of one epoch: examples, pairs, and the counts behind them."""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from stages import common, output
from whetstone import records
from whetstone.curation.smart import Curation, curate
from whetstone.errors import UserError


def attempts_of(label: str) -> pd.DataFrame:
    """A model's attempts at the parts that the parameters name. Its folder may hold tables of strategies or parts that
    were in them before: DVC leaves those where they are.

    Raises:
        UserError: there is none.
    """
    params, folder = common.read_params(), Path("data/attempts") / label
    if label == "base":
        names = [f"{name}-{part}" for name in params["strategies"] for part in params["infer_parts"]]
    else:
        names = [f"part-{part}" for part in params["sample_parts"]]
    here = sorted(file.stem for file in folder.glob("*.parquet"))
    if left_over := [name for name in here if name not in names]:
        click.echo(f"{folder}: {', '.join(left_over)} left out; {common.PARAMS} asks for {', '.join(names)}")
    if not {*here} & {*names}:
        raise UserError(f"{folder}: no such table; run the stages that make them (`dvc repro` does)")
    wanted = [folder / f"{name}.parquet" for name in here if name in names]
    return pd.concat([records.read(table, records.ATTEMPT) for table in wanted], ignore_index=True)


@click.command(cls=common.Stage)
@click.option("--epoch", required=True, help="which epoch of params.yaml, such as epoch1")
def main(epoch: str) -> None:
    """Writes data/training/EPOCH/sft.parquet and dpo.parquet, and metrics/preprocess/EPOCH.json."""
    spec, options = common.epoch_of(epoch), common.section("preprocess", Curation)
    folder = Path("data/attempts") / spec.attempts
    attempts = attempts_of(spec.attempts)
    parts = sorted(Path("data/problems").glob("part-*.parquet"))
    problems = pd.concat([records.read(part, records.PROBLEM) for part in parts], ignore_index=True)
    try:
        curated = curate(attempts, dict(zip(problems["id"], problems["question"], strict=True)), options)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    out = Path("data/training") / epoch
    if spec.trainer == "dpo" and not curated.pairs:
        raise UserError(
            f"{folder}: 0 pairs from {len(attempts)} attempts at {curated.statistics['problems']} problems "
            f"({curated.statistics['dropped']['pairs_to_balance']} dropped to balance them): {epoch} has nothing to "
            "prefer; raise `sample.k`, set `preprocess.balance: false`, or train this epoch with sft"
        )
    records.write(curated.examples, records.EXAMPLE, out / "sft.parquet")
    records.write(curated.pairs, records.PAIR, out / "dpo.parquet")
    dropped = curated.statistics["dropped"]
    formats = {f"right, but {fault}": n for fault, n in dropped["correct_but"].items()}
    reasons = {name: n for name, n in dropped.items() if name != "correct_but"} | formats
    output.count(len(attempts), len(curated.examples) + len(curated.pairs), reasons)
    records.write_json(f"metrics/preprocess/{epoch}.json", curated.statistics)
    output.finish(f"preprocess {epoch}", **curated.statistics, path=out)


if __name__ == "__main__":
    main()
