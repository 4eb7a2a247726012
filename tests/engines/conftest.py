"""Models of a few thousand random weights, and a tokenizer of bytes with one merged token, made in a second."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TINY = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 264}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
# name: (model type, configuration, whether its attention can share a prefix)
ARCHITECTURES = {
    "llama, grouped queries": ("llama", TINY | HEADS, True),
    "llama, one key head for three": (
        "llama",
        TINY | {"num_attention_heads": 3, "num_key_value_heads": 1, "max_position_embeddings": 512},
        True,
    ),
    "qwen2, biases": ("qwen2", TINY | HEADS, True),
    "qwen3, normalised queries": ("qwen3", TINY | HEADS | {"head_dim": 16}, True),
    "gpt2, learned positions": (
        "gpt2",
        {"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 264, "n_positions": 512},
        True,
    ),
    "granite, scaled logits": ("granite", TINY | HEADS | {"logits_scaling": 4.0}, True),
    "mistral, a window": ("mistral", TINY | HEADS | {"sliding_window": 32}, False),
    "gemma2, capped scores": ("gemma2", TINY | HEADS | {"head_dim": 16}, False),
    "mamba, recurrent": (
        "mamba",
        {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 264, "state_size": 8},
        False,
    ),
}


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {letter: 3 + i for i, letter in enumerate(letters)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.add_special_tokens(["<pad>", "<bos>", "<eos>"])
    raw.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


@pytest.fixture(scope="session")
def make_model():
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(kind: str = "llama, one key head for three", seed: int = 0, eos: int | None = 2):
        name, settings, _ = ARCHITECTURES[kind]
        torch.manual_seed(seed)
        config = AutoConfig.for_model(name, **settings, initializer_range=0.3, pad_token_id=0, bos_token_id=1)
        config.eos_token_id = eos
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():  # far from uniform, so that texts differ and probabilities matter
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
        model.generation_config.eos_token_id = eos
        return model

    return make


@pytest.fixture(scope="session")
def engine(make_model, tokenizer):
    from whetstone.engines.transformers import TransformersEngine

    return TransformersEngine.from_model(make_model(), tokenizer)
