"""The part of `merge` that needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from whetstone.errors import UserError
from whetstone.prompts.rendering import prompt_ids, rendered
from whetstone.training import checkpoints, loading


def write(
    base: Path, adapter: Path, to: Path, origin: dict[str, str], prompts: list[str], tolerance: float, shard: str
) -> dict[str, float]:
    """Writes the merged model to `to`, loads it again and compares. Returns the two differences.

    Raises:
        UserError: the merged model differs from the adapter by more than `tolerance`, or not at all from the base.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, origin["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    texts = tokenizer([rendered(tokenizer, prompt) for prompt in prompts])["input_ids"]
    ids = [prompt_ids(text, tokenizer.bos_token_id, tokenizer.eos_token_id) for text in texts]

    def load(path: Path, **options: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            path, **{"dtype": dtype, "device_map": {"": device}, **options}
        ).eval()

    if origin["adapter"] == "none":
        before, after = logits(load(base), ids), None
        checkpoints.copy_weights(adapter, to)
        after = logits(load(adapter), ids)
    else:
        from peft import PeftModel

        options = {}
        if origin["adapter"] == "qlora":
            options["quantization_config"] = loading.quantised(origin["quantisation"])
        model = load(base, **options)
        model = model.dequantize() if options else model
        before = logits(model, ids)
        model = PeftModel.from_pretrained(model, adapter)
        after = logits(model, ids)
        # In float32 a model takes twice to four times the memory that it was trained in: the host has it
        merged = model.cpu().float().merge_and_unload(safe_merge=True).to(dtype)
        merged.save_pretrained(to, max_shard_size=shard)
        del model, merged
    checkpoints.copy_tokenizer(adapter, to)
    written = logits(load(to), ids)
    from_adapter, from_base = difference(written, after), difference(written, before)
    if not from_adapter <= tolerance:
        raise UserError(
            f"merge: the merged model's logits differ from the adapter's by {from_adapter:.3g} of the largest "
            f"on {len(ids)} prompts; rounding in {origin['dtype']} explains {tolerance:g}. Nothing was written"
        )
    if not from_base > 0:
        raise UserError(
            f"merge: the merged model is the base: no logit differs on {len(ids)} prompts. Training changed "
            "nothing (a learning rate of 0, or too small a one?). Nothing was written"
        )
    return {"difference_from_adapter": from_adapter, "difference_from_base": from_base}


def logits(model: Any, ids: list[list[int]]) -> list[torch.Tensor]:
    """Logits (tokens, vocabulary) at each position of each prompt, in float32."""
    return [model(torch.tensor([row], device=model.device)).logits[0].float().cpu() for row in ids]


def difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Largest difference of a logit, as a share of the largest absolute logit; NaN where one isn't a number."""
    gap = torch.stack([(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]).max()
    return (gap / torch.stack([b.abs().max() for b in theirs]).max()).item()
