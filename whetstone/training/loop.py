"""What every trainer adds to TRL's: batches of like length, checkpoints that are complete or ignored, selection on
dev, resumption, and a result that appears at once or not at all.

Imports torch; the entry points (`sft`, `dpo`) import it after a user's input has been checked.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback, TrainerState
from transformers.trainer_utils import rotate_checkpoints

from whetstone.errors import UserError
from whetstone.training import checkpoints, fused, loading, preflight
from whetstone.training.config import TrainingConfig
from whetstone.training.head import use_own_logits

Dev = Callable[[Any, Any, int], float]  # (model, tokenizer, step) -> value
Report = Callable[[str], None]

# Batches are as long as a multiple of this, so that there are fewer shapes: on a CPU each new one costs a kernel and
# memory that is kept (76 steps of the tiny model's adapter: 1.8 GiB without, 1.5 with it, in a tenth less time).
PAD_TO = 8

# Columns of the loss curve, by the trainer's names. Rewards: beta x log-ratio to the reference.
CURVE = {
    "step": "step",
    "epoch": "epoch",
    "num_tokens": "tokens",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "logps/chosen": "logprob_chosen",
    "logps/rejected": "logprob_rejected",
}


class LikeLengths(torch.utils.data.Sampler):
    """Rows in random order, such that the rows of one optimiser step have like lengths (little padding), and the steps
    come in random order. Depends on seed and epoch alone, so that a resumed epoch goes on in the same order.

    Pools of `pool` steps are drawn at random, sorted by length and cut into steps. A last step that isn't full is
    drawn at random too. Each of `devices`, which take turns by `batch_size` rows, gets rows from a whole step's range
    of lengths: none waits for another.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, *, passes: int = 1, devices: int = 1, pool: int = 16
    ) -> None:
        self.lengths, self.seed, self.pool = np.asarray(lengths), seed, pool
        self.turns = (passes, batch_size, devices)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        rows_per_step = math.prod(self.turns)
        full = len(order) - len(order) % rows_per_step
        steps: list[np.ndarray] = []
        for start in range(0, full, rows_per_step * self.pool):
            rows = order[start : min(start + rows_per_step * self.pool, full)]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            steps += np.split(rows, len(rows) // rows_per_step)
        for i in random.permutation(len(steps)):
            yield from steps[i].reshape(self.turns).transpose(0, 2, 1).ravel().tolist()
        yield from order[full:].tolist()


class Loop:
    """Mixed into a TRL trainer, before it in the bases. `follow` is called between construction and `train`."""

    def follow(self, config: TrainingConfig, lengths: Sequence[int], dev: Dev | None, report: Report | None) -> None:
        self.config, self.lengths, self.dev, self.report = config, lengths, dev, report
        self.paused = 0.0  # seconds spent on dev and on saving
        self.seconds_dev = 0.0
        self.before = 0.0  # seconds of optimisation before a resumption
        self.reported = time.monotonic()
        self.remove_callback(PrinterCallback)
        self.prepare_head()
        if config.adapter == "qlora":  # TRL rounds the adapter to bfloat16, in which small steps are lost
            for parameter in self.model.parameters():
                parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data

    def prepare_head(self) -> None:
        """The fastest way to a completion's log-probabilities here. Also called before `follow`, where the reference's
        are computed."""
        model = self.plain_model
        if self.args.device.type == "cpu":
            use_own_logits(model)
        elif self.args.bf16 and not self.packs and torch.cuda.is_available():
            from whetstone.training import packed

            self.packs = packed.fault(model) is None
            if self.packs:
                packed.pack(model)
                self.switch(True)

    packs = False  # whether the model is given the batches' tokens without padding

    @property
    def plain_model(self) -> Any:
        """The model inside of the adapter, or itself."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def switch(self, training: bool) -> None:
        """To the attention, adapted layers and norms that only training knows, or back to those that sample."""
        if self.packs:
            self.plain_model.config._attn_implementation = "packed" if training else "sdpa"
            (fused.fuse if training else fused.unfuse)(self.model)

    def go(self, folder: Path) -> None:
        """Trains, from the last complete checkpoint in `folder` on where there is one."""
        with self.args.main_process_first(local=False):
            checkpoint = checkpoints.last_checkpoint(folder)
        self.switch(True)
        if checkpoint is not None:
            done = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
            if done.global_step >= done.max_steps:  # killed between the last step and the result
                self.state = done
                return
            last = next(row for row in reversed(done.log_history) if "loss" in row)
            self._total_train_tokens, self.before = last["num_tokens"], last["seconds"]
        self.started = time.monotonic()
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    # What the trainer's author measures, draws or sends home isn't ours to pay for.
    def _send_telemetry(self) -> None: ...

    def create_model_card(self, *args: Any, **kwargs: Any) -> None: ...

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> LikeLengths:
        config = self.config
        turns = {"passes": config.gradient_accumulation, "devices": config.devices}
        return LikeLengths(self.lengths, config.batch_size, config.seed, **turns)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["seconds"] = self.before + time.monotonic() - self.started - self.paused
            if not math.isfinite(logs["loss"]):
                raise UserError(
                    f"the loss is {logs['loss']} at step {self.state.global_step}: training diverged; lower "
                    f"learning_rate ({self.config.learning_rate}) or use dtype float32 (now {self.config.dtype})"
                )
        super().log(logs, start_time)
        if self.report and "loss" in logs and time.monotonic() - self.reported > 10:
            self.reported = time.monotonic()
            self.report(
                f"step {self.state.global_step} of {self.state.max_steps}  loss {logs['loss']:.4f}  "
                f"{logs['num_tokens'] / max(logs['seconds'], 1e-9):,.0f} tokens/s"
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        start = time.monotonic()
        step = self.state.global_step
        if self.dev is not None or self.eval_dataset is not None:
            value = self._value(step)
            best, sign = self.state.best_metric, -1 if self.config.select == "dev_loss" else 1
            if best is None or sign * value > sign * best:
                self.state.best_metric, self.state.best_global_step = value, step
            self.state.log_history.append({"step": step, "dev": value})
            if self.report:
                self.report(f"step {step} of {self.state.max_steps}  {self.config.select} {value:.4f}")
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            folder = Path(self.args.output_dir)
            checkpoints.seal(folder / f"checkpoint-{step}")
            best = folder / f"checkpoint-{self.state.best_global_step or step}"
            rotate_checkpoints(str(folder), 1, str(best))
        self.paused += time.monotonic() - start

    def _value(self, step: int) -> float:
        """What selects the checkpoint: the loss on rows held out, or `dev`'s value; the same in all processes."""
        start = time.monotonic()
        self.model.eval()
        with torch.random.fork_rng(), torch.no_grad():
            values = [self.held_out_loss() if self.eval_dataset is not None else self._dev_value(step)]
        broadcast_object_list(values)
        self.model.train()
        self.seconds_dev += time.monotonic() - start
        if not math.isfinite(values[0]):
            raise UserError(
                f"the dev value at step {step} is {values[0]}; it selects the checkpoint and must be a number"
            )
        return values[0]

    def _dev_value(self, step: int) -> float:
        if not self.is_world_process_zero():
            return 0.0
        self.switch(False)
        try:
            with loading.added(self.model):
                return float(self.dev(self.model, self.processing_class, step))
        finally:
            self.switch(True)

    def held_out_loss(self) -> float:
        """The training's own loss on the rows that are held out: mean over completion tokens, or over pairs."""
        rows = [self.eval_dataset[i] for i in range(len(self.eval_dataset))]
        rows.sort(key=lambda row: sum(len(ids) for name, ids in row.items() if name.endswith("_ids")))
        total = count = 0.0
        for start in range(0, len(rows), self.config.batch_size):
            inputs = self._prepare_inputs(self.data_collator(rows[start : start + self.config.batch_size]))
            size = self.size(inputs)
            with self.compute_loss_context_manager():
                total += float(self.compute_loss(self.model, inputs)) * size
            count += size
        self._metrics["eval"].clear()
        return total / count


def dataset(columns: dict[str, list]) -> Any:
    """Columns as the trainers want them. Named here: the library would name a data set by pickling it whole, which is
    slow, and on some machines fails on what pyarrow can't pickle."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable.from_pydict(columns), fingerprint="rows")


def arguments(kind: type[Any], config: TrainingConfig, folder: Path, **own: Any) -> Any:
    """A trainer's arguments, of `kind`: what both trainers share, and `own`."""
    schedule = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    shared = {
        "output_dir": str(folder),
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": config.warmup,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "num_train_epochs": config.epochs or 1,
        "max_steps": config.max_steps or -1,
        **gradient_checkpointing(config),
        "bf16": config.dtype == "bfloat16",
        "optim": "adamw_torch_fused",
        "seed": config.seed,
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "steps",
        "save_steps": 1 / config.checkpoints if config.checkpoints > 1 else 10**9,
        "save_total_limit": None,
        "eval_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "ddp_find_unused_parameters": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "max_length": None,
        "push_to_hub": False,
    }
    made = kind(**shared, **own)
    made._n_gpu = min(made.n_gpu, 1)  # one process would be spread over all GPUs that it sees; `devices` decides that
    return made


def gradient_checkpointing(config: TrainingConfig) -> dict[str, Any]:
    """The part that recomputes activations and divides the model; the two go together under FSDP."""
    if not config.sharded:
        return {"gradient_checkpointing": config.gradient_checkpointing}
    return {
        "gradient_checkpointing": False,
        "fsdp": "full_shard",
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "FULL_STATE_DICT",
            "activation_checkpointing": config.gradient_checkpointing,
        },
    }


def finish(trainer: Loop, folder: Path, model: Path, out: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Writes the chosen checkpoint to `out`, in one rename, clears the scratch, and tells what happened.

    Returns:
        (summary, curve): the curve has one row per optimiser step.
    """
    config, state = trainer.config, trainer.state
    chosen = state.best_global_step if config.select != "last" else state.global_step
    steps = [row for row in state.log_history if "loss" in row]
    if trainer.is_world_process_zero():
        dtype = str(loading.stored_dtype(config)).removeprefix("torch.")
        checkpoints.publish(folder / f"checkpoint-{chosen}", model, config, dtype, Path(out))
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    summary = {
        "rows": len(trainer.lengths),
        "steps": state.global_step,
        "chosen_step": chosen,
        "tokens": int(steps[-1]["num_tokens"]),
        "seconds": round(steps[-1]["seconds"], 3),
        "seconds_dev": round(trainer.seconds_dev, 3),
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "select": config.select,
        "dev": {str(row["step"]): row["dev"] for row in state.log_history if "dev" in row},
    }
    curve = pd.DataFrame([{ours: row[trls] for trls, ours in CURVE.items() if trls in row} for row in steps])
    return summary, curve


@contextlib.contextmanager
def memory_errors(config: TrainingConfig, longest: int) -> Iterator[None]:
    """Turns a full GPU into a UserError that says what to turn. `longest` row in tokens."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"the GPU ran out of memory. {preflight.knobs(config, longest)}"
        ) from error
