"""TRL's SFTTrainer with a weight per example. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig as Arguments
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from whetstone.training import loop
from whetstone.training.config import SftConfig


class Collator(DataCollatorForLanguageModeling):
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return {**super().torch_call(examples), "weight": torch.tensor([example["weight"] for example in examples])}


class WeightedTrainer(loop.Loop, SFTTrainer):
    """`inputs["weight"]` (batch,) multiplies the negative log-likelihood of a row's tokens, and
    `config.first_token_weight` that of its first one. The sum is divided by the number of tokens, whatever they weigh.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        weight = inputs.pop("weight")
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        tokens = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        first = outputs.log_probs.gather(1, outputs.label_mask.int().argmax(dim=1, keepdim=True)).squeeze(1)
        row = outputs.log_probs.sum(dim=1) + (self.config.first_token_weight - 1) * first
        loss = -(row * weight).sum() / tokens
        self._total_train_tokens += int(self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages the gradients over the processes
        return (loss, outputs) if return_outputs else loss


def trainer(model: Any, tokenizer: Any, rows: dict[str, list], config: SftConfig, folder: Path) -> WeightedTrainer:
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return WeightedTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=loop.dataset(rows),
        args=Arguments(**loop.arguments(config, folder), dataset_kwargs={"skip_prepare_dataset": True}),
        data_collator=Collator(pad_token_id=tokenizer.pad_token_id, pad_to_multiple_of=loop.PAD_TO),
        peft_config=loop.adapter_config(config),
    )
