"""Adapted layers and norms in fewer operations have the outputs and gradients that they have in more."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from whetstone.training import fused


def adapted(base, **fields):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=10, target_modules="all-linear", **fields))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # begins at zero, where A has no gradient
            torch.nn.init.normal_(parameter, std=0.1)
    return model


IDS = torch.arange(3, 43).view(2, 20)


def gradients(model):
    output = model(IDS).logits
    output.float().pow(2).mean().backward()
    return output, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_outputs_and_gradients_are_pefts(base, checkpointing):
    plain, ours = adapted(base).train(), adapted(base).train()
    if checkpointing:
        ours.gradient_checkpointing_enable()
    fused.fuse(ours)
    (expected, theirs), (got, found) = gradients(plain), gradients(ours)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert found.keys() == theirs.keys() and all("lora" in name for name in found)
    for name in found:
        torch.testing.assert_close(found[name], theirs[name], rtol=1e-3, atol=1e-6)


def test_with_the_adapter_off_it_is_the_base(base):
    model = adapted(base)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    fused.fuse(model)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(model(IDS).logits, plain(IDS).logits, rtol=0, atol=0)


def test_under_autocast_it_computes_in_the_layers_precision(base):
    model = adapted(base)
    for name, parameter in model.named_parameters():
        if "lora" not in name:
            parameter.data = parameter.data.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(model)
        model.zero_grad()
        fused.fuse(model)
        got = gradients(model)
    assert got[0].dtype == torch.bfloat16
    torch.testing.assert_close(got[0], expected[0], rtol=0.1, atol=0.1)
    for name, gradient in got[1].items():
        assert gradient.dtype == torch.float32
        assert (gradient - expected[1][name]).norm() < 0.05 * expected[1][name].norm()


def test_dropout_and_undoing_leave_pefts_own(base):
    def changed(model):
        return sorted(type(m).__name__ for m in model.modules() if "forward" in m.__dict__)

    norms = ["LlamaRMSNorm"] * 5
    model = adapted(base, lora_dropout=0.1)
    fused.fuse(model)
    assert changed(model) == norms
    model = adapted(base)
    fused.fuse(model)
    assert changed(model) == ["Linear"] * 14 + norms or changed(model) == norms + ["Linear"] * 14
    fused.unfuse(model)
    assert changed(model) == []


def test_a_norm_that_computes_something_else_stays():
    """Gemma's multiplies by 1 + weight; a norm that is trained is left to autograd."""
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    trained, gemma, llama = LlamaRMSNorm(16), GemmaRMSNorm(16), LlamaRMSNorm(16)
    for norm in (gemma, llama):
        norm.requires_grad_(False)
        norm.weight.copy_(torch.linspace(0.5, 1.5, 16))
    gemma.variance_epsilon = 1e-6
    fused.fuse(torch.nn.ModuleList([trained, gemma, llama]))
    assert [("forward" in norm.__dict__) for norm in (trained, gemma, llama)] == [False, False, True]
