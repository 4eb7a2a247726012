"""An adapted layer in three products has PEFT's outputs and gradients."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from whetstone.training import lora


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
    plain, fused = adapted(base).train(), adapted(base).train()
    if checkpointing:
        fused.gradient_checkpointing_enable()
    lora.fuse(fused)
    (expected, theirs), (got, ours) = gradients(plain), gradients(fused)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert ours.keys() == theirs.keys() and all("lora" in name for name in ours)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-6)


def test_with_the_adapter_off_it_is_the_base(base):
    model = adapted(base)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora.fuse(model)
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
        lora.fuse(model)
        got = gradients(model)
    assert got[0].dtype == torch.bfloat16
    torch.testing.assert_close(got[0], expected[0], rtol=0.1, atol=0.1)
    for name, gradient in got[1].items():
        assert gradient.dtype == torch.float32
        assert (gradient - expected[1][name]).norm() < 0.05 * expected[1][name].norm()


def test_dropout_and_undoing_leave_pefts_own(base):
    model = adapted(base, lora_dropout=0.1)
    lora.fuse(model)
    assert not [m for m in model.modules() if "forward" in m.__dict__]
    model = adapted(base)
    lora.fuse(model)
    assert len([m for m in model.modules() if "forward" in m.__dict__]) == 14
    lora.unfuse(model)
    assert not [m for m in model.modules() if "forward" in m.__dict__]
