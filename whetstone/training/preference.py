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

from whetstone.training import loading, loop, reference
from whetstone.training.config import DpoConfig

# TRL names the file in which it caches the reference by a hash of all weights, which takes 70 s at 7B; we cache none
dpo_trainer.hash_module = lambda model: None

_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps")


def lengths(rows: dict[str, list]) -> list[int]:
    """Tokens of each pair's longer sequence, which is what the pair is padded to."""
    return [len(p) + max(len(c), len(r)) for p, c, r in zip(*(rows[name] for name in _COLUMNS[:3]), strict=True)]


def both_lengths(rows: dict[str, list]) -> list[int]:
    """Tokens of each pair's two sequences together, which is what they take without padding."""
    return [2 * len(p) + len(c) + len(r) for p, c, r in zip(*(rows[name] for name in _COLUMNS[:3]), strict=True)]


class PreferenceTrainer(loop.Loop, DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Adds the reference's log-probabilities (nats, summed over a completion)."""
        if _COLUMNS[3] in dataset.column_names:
            return dataset
        columns = dataset.to_dict()
        prompts, *both = ([tuple(ids) for ids in columns[column]] for column in _COLUMNS[:3])
        if self.ld_alpha == 0:  # the preference ends with the shorter completion, and the reference with it
            ends = [min(len(c), len(r)) for c, r in zip(*both, strict=True)]
            both = [[ids[:end] for ids, end in zip(one, ends, strict=True)] for one in both]
        chosen, rejected = (list(zip(prompts, one, strict=True)) for one in both)
        self.prepare_head()
        read = reference.log_probs(self, [*chosen, *rejected], 2 * batch_size)
        found = [[read[one] for one in side] for side in (chosen, rejected)]
        return loop.dataset(columns | dict(zip(_COLUMNS[3:], found, strict=True)))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The passes of one step, and how many chosen tokens the mean one has: TRL's mean of the passes' means would
        let a token of a short pass weigh more than one of a long pass, and not be that of one large batch."""
        passes, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if "sft" in self.loss_types:
            own = torch.tensor([sum(map(_chosen_tokens, passes)), len(passes)], device=device)
            tokens, number = self.accelerator.reduce(own).tolist()
            self.mean_tokens = tokens / max(number, 1)
        return passes, count

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        weights = self.loss_weights
        if self.model.training and "sft" in self.loss_types:
            self.loss_weights = [weights[0], weights[1] * _chosen_tokens(inputs) / self.mean_tokens]
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.loss_weights = weights

    def size(self, inputs: dict[str, torch.Tensor]) -> int:
        return len(inputs["input_ids"]) // 2


def _chosen_tokens(inputs: dict[str, torch.Tensor]) -> int:
    return int(inputs["completion_mask"].chunk(2)[0].sum())


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
        args=loop.arguments(
            Arguments,
            config,
            folder,
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
    model, tokenizer = loading.load(base, config), loading.load_tokenizer(base, config.template)
    first = {name: column[:1] for name, column in tables[0].items()}
    reader = trainer(model, tokenizer, first, config, folder)
    for table in tables:
        filled = reader._precompute_ref_logps(loop.dataset(table), "reference", config.batch_size)
        table |= {name: filled[name][:] for name in _COLUMNS[3:]}
