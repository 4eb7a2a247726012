"""What the reference makes of completions: each is read once, however many pairs it is in. Imports torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from whetstone.training import loop

Ids = tuple[tuple[int, ...], tuple[int, ...]]  # of a prompt, and of its completion


@torch.no_grad()
def log_probs(trainer: Any, sequences: Iterable[Ids], rows: int) -> dict[Ids, float]:
    """Log-probability (nats, summed over the completion) of each sequence by `trainer`'s model without its adapter,
    `rows` side by side; the processes share them out. After a prompt all completions of one token are read at once.
    """
    sequences = sorted(set(sequences), key=lambda one: (len(one[0]) + len(one[1]), one))
    single = all(len(completion) == 1 for _, completion in sequences)
    order = range(len(sequences))
    alike = [list(same) for _, same in groupby(order, lambda i: len(sequences[i][0]))] if single else [list(order)]
    batches = [same[at : at + rows] for same in alike for at in range(0, len(same), rows)]
    values = torch.zeros(len(sequences), device=trainer.args.device)
    model = trainer.model.eval()
    trainer.switch(not single)  # what packs gives no logits
    with model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext():
        for batch in batches[trainer.args.process_index :: trainer.args.world_size]:
            with trainer.accelerator.autocast():
                read = _next_tokens if single else _completions
                values[batch] = read(trainer, [sequences[i] for i in batch])
    trainer.switch(True)
    return dict(zip(sequences, trainer.accelerator.reduce(values).tolist(), strict=True))


def _next_tokens(trainer: Any, sequences: list[Ids]) -> torch.Tensor:
    """Of completions of one token, after prompts of one length."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in sequences))
    ids = torch.tensor(prompts, device=trainer.args.device)
    logits = trainer.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].float().log_softmax(-1)
    at = {prompt: row for row, prompt in enumerate(prompts)}
    return logits[[at[prompt] for prompt, _ in sequences], [token for _, (token,) in sequences]]


def _completions(trainer: Any, sequences: list[Ids]) -> torch.Tensor:
    """Of whole completions, padded at their end."""
    pad = DataCollatorForLanguageModeling(trainer.data_collator.pad_token_id, pad_to_multiple_of=loop.PAD_TO)
    rows = [{"input_ids": p + c, "labels": (-100,) * len(p) + c} for p, c in sequences]
    inputs = {name: one.to(trainer.args.device) for name, one in pad(rows).items()}
    return trainer.model(**inputs, use_cache=False, fused_lm_head=True).log_probs.sum(dim=1)
