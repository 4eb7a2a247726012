"""What the training stages share: inputs by epoch, what chooses the checkpoint, several devices, and the outs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pandas as pd

from stages import common, output, run
from stages.run.terminal import plain
from whetstone import records
from whetstone.engines.base import Sampling
from whetstone.errors import UserError
from whetstone.locks import device_lock
from whetstone.training import checks, trackers
from whetstone.training.config import DpoConfig, SftConfig, TrainingConfig
from whetstone.training.dpo import train_dpo
from whetstone.training.sft import train_sft

CONFIGS: dict[str, type[TrainingConfig]] = {"sft": SftConfig, "dpo": DpoConfig}
DEV = Path("data/problems/dev.parquet")


def train(epoch: str, kind: str) -> None:
    """Trains an epoch's model; writes models/EPOCH/adapter, metrics/train/EPOCH.json and plots/train/EPOCH.csv."""
    spec, config = common.epoch_of(epoch), common.section(kind, CONFIGS[kind])
    if spec.trainer != kind:
        raise UserError(
            f"{common.PARAMS}: `epochs.train.{epoch}.trainer` is {spec.trainer}; run stages.{spec.trainer}"
        )
    with device_lock(*checks.gpus(config)):
        if config.devices == 1:
            summary = fit(epoch, kind)
        else:
            launch(epoch, kind, config.devices)
            summary = json.loads(metrics(epoch).read_text())
    unseen = summary.get("held_out", 0)
    output.count(summary["rows"] + unseen, summary["rows"], {"held out": unseen} if unseen else {},
                 training=summary["tokens"])  # fmt: skip


def fit(epoch: str, kind: str) -> dict[str, Any]:
    """The training itself, in one of `devices` processes; the first of them writes what isn't the model too."""
    spec, config = common.epoch_of(epoch), common.section(kind, CONFIGS[kind])
    first = os.environ.get("RANK", "0") == "0"
    start, table = common.model_path(spec.start), Path("data/training") / epoch / f"{kind}.parquet"
    for name in {spec.start, spec.attempts} - {"base"}:
        merged = Path("models") / name / "merged"
        if (merged / "config.json").is_file() and (asked := checks.template_of(merged)) != config.template:
            raise UserError(
                f"{common.PARAMS}: `{kind}.template` is {config.template}, but {name} was trained and sampled with "
                f"{asked}; make them the same"
            )
    rows = records.read(table, records.EXAMPLE if kind == "sft" else records.PAIR)
    if rows.empty:
        raise UserError(f"{table}: 0 rows to train {epoch} on; metrics/preprocess/{epoch}.json tells what was dropped")
    out, scratch = Path("models") / epoch / "adapter", common.scratch("train", epoch)
    report_to = common.runtime().report_to if first else "none"
    options: dict[str, Any] = {"tracker": trackers.tracker(report_to, epoch, common.scratch("dvclive"))}
    if config.select == "dev_accuracy":
        evaluate = common.section("evaluate", common.Evaluate)
        options["dev"] = dev_accuracy(records.read(DEV, records.PROBLEM), evaluate)
        # What chooses a checkpoint is part of what an unfinished training may go on from
        scratch = scratch / records.fingerprint(DEV.read_bytes().hex(), evaluate.model_dump_json())
    elif config.select == "dev_loss":
        rows, options["held_out"] = hold_out(rows, config.held_out, config.seed)
    if isinstance(config, DpoConfig):
        if config.reference == "base":
            options["base_path"] = common.model_path("base")
        summary, curve = train_dpo(
            start, rows, out, config, scratch=scratch, report=click.echo if first else None, **options
        )
    else:
        summary, curve = train_sft(
            start, rows, out, config, scratch=scratch, report=click.echo if first else None, **options
        )
    if "held_out" in options:
        summary["held_out"] = len(options["held_out"])
    if first:
        records.write_json(metrics(epoch), {name: one for name, one in summary.items() if "second" not in name})
        plot = Path("plots/train") / f"{epoch}.csv"
        plot.parent.mkdir(parents=True, exist_ok=True)
        curve.round(6).to_csv(plot, index=False)
        output.finish(f"{kind} {epoch}", start=start, **summary, path=out)
    return summary


def metrics(epoch: str) -> Path:
    return Path("metrics/train") / f"{epoch}.json"


def dev_accuracy(dev: pd.DataFrame, evaluate: common.Evaluate) -> Callable[[Any, Any, int], float]:
    """Accuracy of a checkpoint's free greedy first attempt on the dev problems."""

    def measure(model: Any, tokenizer: Any, step: int) -> float:
        from whetstone import policy
        from whetstone.engines.transformers import TransformersEngine

        engine = TransformersEngine.from_model(model, tokenizer, fingerprint=f"checkpoint:{step}")
        attempts = policy.first_attempts(engine, dev, Sampling(evaluate.max_tokens, stop=evaluate.stop))
        return float((attempts["verdict"] == "correct").mean())

    return measure


def hold_out(rows: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows to train on, rows held out): all rows of a share of the problems, chosen by hash.

    Raises:
        UserError: there is one problem only.
    """
    problems = sorted(set(rows["problem_id"]), key=lambda problem: records.fingerprint(seed, problem))
    if len(problems) < 2:
        raise UserError(f"select `dev_loss` holds out problems, and {len(rows)} rows are of {len(problems)} problem")
    unseen = rows["problem_id"].isin(problems[: max(1, min(round(share * len(problems)), len(problems) - 1))])
    return rows[~unseen].reset_index(drop=True), rows[unseen].reset_index(drop=True)


def launch(epoch: str, kind: str, devices: int) -> None:
    """Runs `fit` in as many processes, one for each GPU.

    Raises:
        UserError: one of the processes failed.
    """
    processes = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    found = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    threads = os.environ.get("OMP_NUM_THREADS", "1")  # what the launcher would set, and say at length
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, found)), "OMP_NUM_THREADS": threads}
    child = subprocess.Popen([sys.executable, *processes, "-m", "stages.training", epoch, kind], env=environment)
    try:
        code = child.wait()
    except BaseException:
        child.terminate()  # it ends its processes
        child.wait()
        raise
    if code:
        raise UserError(f"{kind} {epoch}: one of {devices} processes failed; its message is above")


def process(epoch: str, kind: str) -> None:
    """What each process does that `launch` starts."""
    run.prepare()
    try:
        fit(epoch, kind)
    except UserError as error:
        sys.exit(f"Error: {plain(str(error))}")
    from accelerate import PartialState

    PartialState().destroy_process_group()  # left to the exit, NCCL's thread may outlive what it calls, and abort


if __name__ == "__main__":
    process(*sys.argv[1:])
