"""What the training stages share: inputs by epoch, the dev accuracy that chooses the checkpoint, and the outs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pandas as pd

from stages import common, output
from whetstone import records
from whetstone.engines.base import Sampling
from whetstone.errors import UserError
from whetstone.training.config import TrainingConfig


def dev_accuracy(dev: pd.DataFrame, evaluate: common.Evaluate) -> Callable[[Any, Any, int], float]:
    """Accuracy of a checkpoint's free greedy first attempt on the dev problems."""

    def measure(model: Any, tokenizer: Any, step: int) -> float:
        from whetstone import rollouts
        from whetstone.engines.transformers import TransformersEngine

        engine = TransformersEngine.from_model(model, tokenizer)
        attempts = rollouts.first_attempts(engine, dev, Sampling(evaluate.max_tokens, stop=evaluate.stop))
        return float((attempts["verdict"] == "correct").mean())

    return measure


def train(epoch: str, kind: str, config: TrainingConfig, schema: Any, fit: Callable) -> None:
    """Trains an epoch's model; writes models/EPOCH/adapter, metrics/train/EPOCH.json and plots/train/EPOCH.csv."""
    spec, evaluate = common.epoch_of(epoch), common.section("evaluate", common.Evaluate)
    if spec.trainer != kind:
        raise UserError(
            f"{common.PARAMS}: `epochs.train.{epoch}.trainer` is {spec.trainer}; run stages.{spec.trainer}"
        )
    base, table = common.model_path(spec.start), Path("data/training") / epoch / f"{kind}.parquet"
    rows = records.read(table, schema)
    if rows.empty:
        raise UserError(f"{table}: 0 rows to train {epoch} on; metrics/preprocess/{epoch}.json tells what was dropped")
    out = Path("models") / epoch / "adapter"
    measure = None
    if config.select == "dev_accuracy":
        measure = dev_accuracy(records.read("data/problems/dev.parquet", records.PROBLEM), evaluate)
    summary, curve = fit(
        base, rows, out, config, scratch=common.scratch("train", epoch), dev=measure, report=click.echo
    )
    output.count(len(rows), summary["rows"], training=summary["tokens"])
    timeless = {name: value for name, value in summary.items() if "second" not in name}
    output.write_json(f"metrics/train/{epoch}.json", timeless)
    plot = Path("plots/train") / f"{epoch}.csv"
    plot.parent.mkdir(parents=True, exist_ok=True)
    curve.round(6).to_csv(plot, index=False)
    output.finish(f"{kind} {epoch}", start=base, **summary, path=out)
