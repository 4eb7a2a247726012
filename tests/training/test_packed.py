"""Without padding, a batch has the log-probabilities and gradients that it has with padding."""

from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from whetstone.training import packed, weighted
from whetstone.training.config import SftConfig
from whetstone.training.sft import tokenise


def attention(query, key, value, bounds, _, longest, __, *, scale, window_size, **___):
    """What the kernel computes, sequence by sequence; it runs on GPUs only."""
    assert window_size[1] == 0 and longest >= bounds.diff().max()
    outputs = []
    for start, end in pairwise(bounds.tolist()):
        q, k, v = (one[start:end].transpose(0, 1).float() for one in (query, key, value))
        k, v = (one.repeat_interleave(len(q) // len(one), 0) for one in (k, v))
        places = torch.arange(end - start)
        apart = places[:, None] - places[None]
        allowed = (apart >= 0) & (apart <= (window_size[0] if window_size[0] >= 0 else end))
        outputs.append(torch.nn.functional.scaled_dot_product_attention(q, k, v, allowed, scale=scale).transpose(0, 1))
    return torch.cat(outputs).to(query.dtype)


@pytest.fixture
def batch(tokenizer, examples):
    rows, _ = tokenise(examples, tokenizer, SftConfig(learning_rate=1, epochs=1), "examples")
    batch = weighted.Collator(0, pad_to_multiple_of=8)([{k: rows[k][i] for k in rows} for i in range(8)])
    batch.pop("weight")
    assert not batch["attention_mask"].all()
    return batch


@pytest.mark.parametrize("window", [None, 9])
def test_log_probabilities_and_gradients(base, batch, monkeypatch, window):
    from trl.trainer.utils import add_fused_lm_head

    monkeypatch.setattr(packed, "varlen_attn", attention)
    padded, ours = (AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) for _ in range(2))
    add_fused_lm_head(padded)
    assert packed.fault(ours) is None
    packed.pack(ours)
    ours.config._attn_implementation = packed.NAME
    if window:  # the model has none; its layers would hand one on like this
        real = packed.attention
        torch_mask = torch.ones(200, 200).tril().triu(1 - window).bool()
        monkeypatch.setitem(packed.AttentionInterface._global_mapping, packed.NAME,
                            lambda *a, **k: real(*a, **{**k, "sliding_window": window}))  # fmt: skip
        size = batch["input_ids"].size(1)
        mask = torch_mask[:size, :size] & batch["attention_mask"][:, None, None].bool()
        expected = padded(**{**batch, "attention_mask": mask}, fused_lm_head=True)
    else:
        expected = padded(**batch, fused_lm_head=True)
    got = ours(**batch, fused_lm_head=True)
    assert torch.equal(got.label_mask, expected.label_mask)
    torch.testing.assert_close(got.log_probs, expected.log_probs, rtol=2e-2, atol=2e-2)  # attention in bfloat16
    for output in (expected, got):
        output.log_probs.sum().backward()
    for p, q in zip(padded.parameters(), ours.parameters(), strict=True):
        assert (p.grad - q.grad).norm() <= 0.02 * p.grad.norm()


def test_what_comes_after_a_sequence_changes_nothing_in_it(base, batch, monkeypatch):
    monkeypatch.setattr(packed, "varlen_attn", attention)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    packed.pack(model)
    model.config._attn_implementation = packed.NAME
    with torch.no_grad():
        together = model(**batch, fused_lm_head=True).log_probs
        alone = model(**{name: tensor[3:4] for name, tensor in batch.items()}, fused_lm_head=True).log_probs
    torch.testing.assert_close(together[3:4], alone, rtol=1e-2, atol=1e-2)


def test_attention_that_it_lacks_is_named(base):
    config = Gemma2Config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, attn_logit_softcapping=50.0,
    )  # fmt: skip
    assert "caps its scores" in packed.fault(Gemma2ForCausalLM(config))
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.head_dim = 512
    assert "512 dimensions" in packed.fault(model)
