"""A random two-layer Llama with a tokenizer of its own, as small as one that is really trained."""

from __future__ import annotations

import pandas as pd
import pytest

QUESTIONS = [
    f"Question: Ann has {a} apples and buys {b}. How many?\nAnswer by"
    for a, b in zip(range(2, 26), range(30, 6, -1), strict=True)
]


def solution(number: int) -> str:
    a, b = 2 + number, 30 - number
    long = " She counts them again and finds the same." * (number % 3)
    if number % 2:
        return f" program:\na = {a}\nb = {b}\nanswer = a + b" + ("\nprint(answer)" if long else "")
    return f" steps: {a} + {b} = {a + b}.{long} The answer is {a + b}."


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The model is far too small for two."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Stored in bfloat16 with tied embeddings; the tokenizer puts a BOS before every text."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model") / "base"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = QUESTIONS + [solution(i) for i in range(24)]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<pad>", "<bos>", "<eos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(path)),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tokenizer(base):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


@pytest.fixture
def examples():
    return pd.DataFrame(
        [
            {
                "id": f"e{i:02d}",
                "problem_id": f"p{i}",
                "strategy": "cot",
                "prompt": QUESTIONS[i],
                "completion": solution(i),
                "weight": 1.0,
                "attempt_ids": [f"a{i}"],
            }
            for i in range(24)
        ]
    )


@pytest.fixture
def pairs():
    return pd.DataFrame(
        [
            {
                "id": f"d{i:02d}",
                "problem_id": f"p{i}",
                "prompt": QUESTIONS[i],
                "chosen": solution(i),
                "rejected": solution((i + 1) % 24),
                "chosen_strategy": "cot",
                "rejected_strategy": "pot",
                "attempt_ids": [f"a{i}", f"b{i}"],
            }
            for i in range(24)
        ]
    )
