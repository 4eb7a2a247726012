"""Experiment trackers, off unless asked for: the trainer's own integrations, kept on this machine if they can be.

trackio writes to its local folder, mlflow to wherever MLFLOW_TRACKING_URI says (else ./mlflow.db), wandb to its own
account (WANDB_MODE=offline keeps it in ./wandb), dvclive to a folder, without the dvc.yaml that it would write there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from whetstone.errors import UserError

Tracker = Literal["none", "trackio", "wandb", "mlflow", "dvclive"]
PROJECT = "whetstone"


def tracker(kind: Tracker, name: str, folder: Path) -> Callable[[Any], None] | None:
    """What adds the tracker to a trainer; None where there is none.

    Args:
        name: of the run, such as the epoch.
        folder: where dvclive writes.

    Raises:
        UserError: the tracker isn't installed.
    """
    if kind == "none":
        return None
    if find_spec(kind) is None:
        raise UserError(
            f"`runtime.report_to` is {kind}, which isn't installed: `pip install {kind}`, or set it to none"
        )
    return lambda trainer: _add(trainer, kind, name, folder)


def _add(trainer: Any, kind: str, name: str, folder: Path) -> None:
    from transformers.integrations import DVCLiveCallback, get_reporting_integration_callbacks

    os.environ.setdefault("WANDB_PROJECT", PROJECT)
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", PROJECT)
    trainer.args.run_name, trainer.args.project = name, PROJECT
    trainer.args.trackio_static_space_id = False  # nothing is published at the end
    if kind == "dvclive":
        from dvclive import Live

        live = Live(str(folder / name), dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False)
        trainer.add_callback(DVCLiveCallback(live=live))
    else:
        trainer.add_callback(*get_reporting_integration_callbacks([kind]))
