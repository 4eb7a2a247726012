"""Direct preference optimisation of an epoch's model on its pairs."""

from __future__ import annotations

import click

from stages import common, training
from whetstone import records
from whetstone.training.config import DpoConfig
from whetstone.training.dpo import train_dpo


@click.command(cls=common.Stage)
@click.option("--epoch", required=True, help="which epoch of params.yaml, such as epoch1")
def main(epoch: str) -> None:
    """Writes models/EPOCH/adapter, metrics/train/EPOCH.json and plots/train/EPOCH.csv."""
    training.train(epoch, "dpo", common.section("dpo", DpoConfig), records.PAIR, train_dpo)


if __name__ == "__main__":
    main()
