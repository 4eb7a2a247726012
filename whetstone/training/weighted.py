"""TRL's SFTTrainer with a weight per example, or per turn. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig as Arguments
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from whetstone.training import loading, loop
from whetstone.training.config import SftConfig


class Collator(DataCollatorForLanguageModeling):
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {**super().torch_call(examples), "weight": torch.tensor([example["weight"] for example in examples])}
        if "token_weight" in examples[0]:
            weights = torch.zeros(batch["input_ids"].shape)
            for row, example in enumerate(examples):
                weights[row, : len(example["token_weight"])] = torch.tensor(example["token_weight"])
            batch["token_weight"] = weights
        return batch


class WeightedTrainer(loop.Loop, SFTTrainer):
    """`inputs["weight"]` (batch,) multiplies the negative log-likelihood of a row's tokens, `inputs["token_weight"]`
    (batch, tokens), where it is there, each token's own, and `config.first_token_weight` that of the first one. The
    sum is divided by the number of tokens, whatever they weigh.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        weight, token_weight = inputs.pop("weight"), inputs.pop("token_weight", None)
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        log_probs = outputs.log_probs if token_weight is None else outputs.log_probs * token_weight[:, 1:]
        tokens = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        first = log_probs.gather(1, outputs.label_mask.int().argmax(dim=1, keepdim=True)).squeeze(1)
        row = log_probs.sum(dim=1) + (self.config.first_token_weight - 1) * first
        loss = -(row * weight).sum() / tokens
        if self.model.training:
            self._total_train_tokens += int(self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum())
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages the gradients over the processes
        return (loss, outputs) if return_outputs else loss

    def size(self, inputs: dict[str, torch.Tensor]) -> int:
        return int((inputs["labels"] != -100).sum())


def trainer(
    model: Any,
    tokenizer: Any,
    rows: dict[str, list],
    config: SftConfig,
    folder: Path,
    held_out: dict[str, list] | None = None,
) -> WeightedTrainer:
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return WeightedTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=loop.dataset(rows),
        eval_dataset=None if held_out is None else loop.dataset(held_out),
        args=loop.arguments(Arguments, config, folder, dataset_kwargs={"skip_prepare_dataset": True}),
        data_collator=Collator(pad_token_id=tokenizer.pad_token_id, pad_to_multiple_of=loop.PAD_TO),
        peft_config=loading.adapter_config(config),
    )
