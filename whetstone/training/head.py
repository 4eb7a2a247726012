"""Log-probabilities of completions on a CPU, behind the interface by which TRL's trainers ask. Imports torch."""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from trl.trainer.utils import FusedCausalLMOutput


def use_own_logits(model: Any) -> None:
    """Answers `model(..., labels=..., fused_lm_head=True)` from the model's own logits, beginning where the batch's
    first completion does.

    TRL projects every position and measures the entropy of each, in a kernel made for GPUs; on a CPU that is a quarter
    of a small model's step. `log_probs` (batch, tokens - 1) is what it would be; entropy, mean logit and top-1, which
    TRL only logs, are left at 0.
    """
    if getattr(model, "_own_logits", False):
        return
    model._own_logits, before = True, model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return before(*args, **kwargs) if labels is None else before(*args, labels=labels, **kwargs)
        targets = labels[:, 1:]
        mask = targets != -100
        first = int(mask.any(dim=0).to(torch.int8).argmax())
        logits = before(*args, logits_to_keep=labels.size(1) - first, **kwargs).logits[:, :-1]
        picked = -torch.nn.functional.cross_entropy(logits[mask[:, first:]].float(), targets[mask], reduction="none")
        log_probs = picked.new_zeros(mask.shape).masked_scatter(mask, picked)
        nothing = torch.zeros_like(log_probs, requires_grad=False)
        return FusedCausalLMOutput(
            log_probs=log_probs, label_mask=mask, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )

    model.forward = types.MethodType(forward, model)
