"""An epoch's adapter into the model that it was trained against, checked on prompts of the dev problems."""

from __future__ import annotations

from pathlib import Path

import click

from stages import common, output
from whetstone import records
from whetstone.prompts import strategies

PROMPTS = 8


@click.command(cls=common.Stage)
@click.option("--epoch", required=True, help="which epoch of params.yaml, such as epoch1")
def main(epoch: str) -> None:
    """Writes models/EPOCH/merged."""
    from whetstone.training.merge import merge

    spec, folder = common.epoch_of(epoch), Path("models") / epoch
    dev = records.read("data/problems/dev.parquet", records.PROBLEM).head(PROMPTS)
    prompts = [strategies.trained_prompt(question) for question in dev["question"]]
    result = merge(common.model_path(spec.start), folder / "adapter", folder / "merged", prompts=prompts)
    output.finish(f"merge {epoch}", **result, path=folder / "merged")


if __name__ == "__main__":
    main()
