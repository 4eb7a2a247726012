"""Batches without padding: the trainer sees (batch, tokens), the model one row of the real tokens. Imports torch.

Sequences of one batch stand behind each other in a single row, and attention is told where each begins: FlashAttention
for sequences of varying length, which PyTorch brings along for CUDA. The same numbers as with padding, up to rounding.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

NAME = "packed"
_SHARED_HEADS = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence. query: (1, heads, tokens, head dimension); key and value may have fewer
    heads. Returns (1, tokens, heads, head dimension)."""
    bounds, longest = kwargs["cu_seq_lens_q"], kwargs["max_length_q"]
    # The kernel takes bfloat16; with norms in float32, as in full fine-tuning, rotated queries and keys are float32
    q, k, v = (one[0].transpose(0, 1).to(torch.bfloat16) for one in (query, key, value))
    window = kwargs.get("sliding_window")
    span = (-1 if window is None else window - 1, 0)
    options = {"scale": kwargs.get("scaling"), "window_size": span, **_SHARED_HEADS}
    return varlen_attn(q, k, v, bounds, bounds, longest, longest, **options)[None].to(query.dtype), None


AttentionInterface.register(NAME, attention)


def fault(model: Any) -> str | None:
    """Why this model's attention can't be packed, or None."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    dimension = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention caps its scores"
    if not kinds <= {"full_attention", "sliding_attention"} or not model._supports_attention_backend:
        return "it has layers of another kind than attention"
    if any(name.endswith("sinks") for name, _ in model.named_parameters()):
        return "its attention has sinks"
    if getattr(config, "attention_dropout", 0.0):
        return "its attention has dropout"
    return f"its heads have {dimension} dimensions, more than 256" if dimension > 256 else None


def pack(model: Any) -> None:
    """Answers `model(input_ids, attention_mask, labels=..., fused_lm_head=True)` and computes nothing for padding.

    Every sequence begins with a token that isn't trained. `log_probs` (batch, tokens - 1) is what TRL's head gives;
    entropy, mean logit and top-1, which TRL only logs, are left at 0.
    """
    add_fused_lm_head(model, outputs=("log_probs",))
    before = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return before(*args, **kwargs)
        ids, mask, labels = kwargs.pop("input_ids"), kwargs.pop("attention_mask").bool(), kwargs.pop("labels")
        counts = mask.sum(dim=1)
        places = mask.flatten().nonzero().squeeze(1)
        positions = (mask.cumsum(dim=1) - 1).flatten()[places]
        bounds = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
        row = before(
            input_ids=ids.flatten()[places][None],
            position_ids=positions[None],
            labels=labels.flatten()[places].masked_fill(positions == 0, -100)[None],
            cu_seq_lens_q=bounds,
            cu_seq_lens_k=bounds,
            max_length_q=ids.size(1),  # an upper bound, so that nothing waits for the GPU
            max_length_k=ids.size(1),
            fused_lm_head=True,
            **kwargs,
        )

        def unpacked(values: torch.Tensor) -> torch.Tensor:
            filled = values.new_zeros(ids.numel()).index_copy(0, places[:-1], values[0])
            return filled.view(ids.shape)[:, :-1]

        nothing = torch.zeros(ids.size(0), ids.size(1) - 1, device=ids.device)
        return FusedCausalLMOutput(
            log_probs=unpacked(row.log_probs),
            label_mask=labels[:, 1:] != -100,
            entropy=nothing,
            mean_logits=nothing,
            is_top1=nothing.bool(),
            aux_loss=row.aux_loss,
        )

    model.forward = types.MethodType(forward, model)
