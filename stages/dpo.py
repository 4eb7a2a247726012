"""Direct preference optimisation of an epoch's model on its pairs."""

from __future__ import annotations

import click

from stages import common, training


@click.command(cls=common.Stage)
@click.option("--epoch", required=True, help="which epoch of params.yaml, such as epoch1")
def main(epoch: str) -> None:
    """Writes models/EPOCH/adapter, metrics/train/EPOCH.json and plots/train/EPOCH.csv."""
    training.train(epoch, "dpo")


if __name__ == "__main__":
    main()
