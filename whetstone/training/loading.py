"""The model that is trained, in the precision that its parameters ask for. Imports torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from whetstone.errors import UserError
from whetstone.prompts.rendering import TEMPLATE
from whetstone.training.config import TrainingConfig


def load(model: Path, config: TrainingConfig) -> Any:
    """The model in the precision that `config` trains in."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": stored_dtype(config)}
    if config.adapter == "qlora":
        options["quantization_config"] = quantised(config.quantisation)
    if torch.cuda.is_available() and not config.sharded:  # what is sharded is loaded on the host and divided later
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))}
    return AutoModelForCausalLM.from_pretrained(model, **options)


def load_tokenizer(model: Path, template: str) -> Any:
    """Raises UserError where it has no end of sequence, or no chat template where it is asked for one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{model}: its tokenizer has no end-of-sequence token, so a completion could never end")
    if template == "chat" and not tokenizer.chat_template:
        raise UserError(f"{model}: template is `chat`, but its tokenizer has no chat template; set it to `plain`")
    if (marked := tokenizer.init_kwargs.get(TEMPLATE, template)) != template:
        raise UserError(f"{model}: trained with template `{marked}`, and template is `{template}`; make them the same")
    tokenizer.init_kwargs[TEMPLATE] = template
    return tokenizer


def stored_dtype(config: TrainingConfig) -> torch.dtype:
    """Of the weights: float32 where they are trained, and on a CPU; a frozen base on a GPU as `config` says."""
    return getattr(torch, config.dtype) if config.adapter != "none" and torch.cuda.is_available() else torch.float32


def quantised(kind: str) -> Any:
    """bitsandbytes' configuration of `nf4` or `int8`."""
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def adapter_config(config: TrainingConfig) -> Any:
    """PEFT's configuration of the adapter, or None for full fine-tuning."""
    if config.adapter == "none":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        bias="none",
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
    )


@contextlib.contextmanager
def added(model: Any) -> Iterator[None]:
    """For sampling: the adapter as a part of the weights, which halves the operations; afterwards the very same
    weights as before. Only linear layers in float32: a sum in fewer bits would be another model."""
    from peft.tuners.lora import Linear

    layers = [module for module in model.modules() if type(module) is Linear]
    layers = [layer for layer in layers if layer.get_base_layer().weight.dtype == torch.float32]
    kept = [layer.get_base_layer().weight.detach().clone() for layer in layers]
    for layer in layers:
        layer.merge()
    try:
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.merged_adapters.clear()
            layer.get_base_layer().weight.data = weight
