"""Supervised fine-tuning of an epoch's model on its examples."""

from __future__ import annotations

import click

from stages import common, training
from whetstone import records
from whetstone.training.config import SftConfig
from whetstone.training.sft import train_sft


@click.command(cls=common.Stage)
@click.option("--epoch", required=True, help="which epoch of params.yaml, such as epoch1")
def main(epoch: str) -> None:
    """Writes models/EPOCH/adapter, metrics/train/EPOCH.json and plots/train/EPOCH.csv."""
    training.train(epoch, "sft", common.section("sft", SftConfig), records.EXAMPLE, train_sft)


if __name__ == "__main__":
    main()
