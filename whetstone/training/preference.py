"""TRL's DPOTrainer on rows that are tokenised already. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig as Arguments
from trl import DPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from whetstone.training import loading, loop
from whetstone.training.config import DpoConfig

# TRL names the file in which it caches the reference by a hash of all weights, which takes 70 s at 7B; we cache none
dpo_trainer.hash_module = lambda model: None

_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps")


def lengths(rows: dict[str, list]) -> list[int]:
    """Tokens of each pair's longer sequence, which is what the pair is padded to."""
    return [len(p) + max(len(c), len(r)) for p, c, r in zip(*(rows[name] for name in _COLUMNS[:3]), strict=True)]


class PreferenceTrainer(loop.Loop, DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Adds the reference's log-probabilities (nats, summed over a completion), by batches of like length, which
        the processes share out among themselves."""
        if _COLUMNS[3] in dataset.column_names:
            return dataset
        read = dataset.to_dict()
        if self.ld_alpha == 0:  # the preference ends with the shorter completion, and the reference with it
            ends = [min(map(len, both)) for both in zip(read["chosen_ids"], read["rejected_ids"], strict=True)]
            for name in _COLUMNS[1:3]:
                read[name] = [ids[:end] for ids, end in zip(read[name], ends, strict=True)]
        shown, size = loop.dataset(read), lengths(read)
        order = sorted(range(len(size)), key=size.__getitem__)
        columns = torch.zeros(2, len(size), device=self.args.device)
        self.prepare_head()
        self.model.eval()
        for start in range(batch_size * self.args.process_index, len(order), batch_size * self.args.world_size):
            rows = order[start : start + batch_size]
            batch = self._prepare_inputs(self.data_collator([shown[i] for i in rows]))
            columns[:, rows] = torch.stack(self.compute_ref_log_probs(self.model, batch)).float()
        columns = self.accelerator.reduce(columns)
        return loop.dataset(dataset.to_dict() | dict(zip(_COLUMNS[3:], columns.tolist(), strict=True)))

    def size(self, inputs: dict[str, torch.Tensor]) -> int:
        return len(inputs["input_ids"]) // 2


def trainer(
    model: Any,
    tokenizer: Any,
    rows: dict[str, list],
    config: DpoConfig,
    folder: Path,
    held_out: dict[str, list] | None = None,
) -> PreferenceTrainer:
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    losses = ["sigmoid_norm" if config.length_normalise and config.loss == "sigmoid" else config.loss]
    weights = [1.0]
    if config.nll_weight:
        losses, weights = [*losses, "sft"], [*weights, config.nll_weight]
    return PreferenceTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=loop.dataset(rows),
        eval_dataset=None if held_out is None else loop.dataset(held_out),
        args=Arguments(
            **loop.arguments(config, folder),
            beta=config.beta,
            loss_type=losses,
            loss_weights=weights,
            label_smoothing=config.label_smoothing,
            ld_alpha=0.0 if config.scope == "first_token" else None,
            precompute_ref_log_probs=config.precompute_reference,
        ),
        data_collator=DataCollatorForPreference(tokenizer.pad_token_id, pad_to_multiple_of=loop.PAD_TO),
        peft_config=loading.adapter_config(config),
    )


def add_reference(base: Path, tables: list[dict[str, list]], config: DpoConfig, folder: Path) -> None:
    """Adds to each table what the model in `base` makes of it, and forgets that model."""
    model, tokenizer = loading.load(base, config)
    first = {name: column[:1] for name, column in tables[0].items()}
    reader = trainer(model, tokenizer, first, config, folder)
    for table in tables:
        filled = reader._precompute_ref_logps(loop.dataset(table), "reference", config.batch_size)
        table |= {name: filled[name][:] for name in _COLUMNS[3:]}
