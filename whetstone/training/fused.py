"""Pieces of a layer that take fewer passes over the memory than as PEFT and transformers write them. Imports torch.

An adapted layer is base(x) + B(A(x)) x scale. PEFT computes it in four operations, of which two read and write an
output as wide as the layer's for nothing but a sum, and autograd adds a fifth where the two gradients of x meet. Here
the sums are part of the matrix products. A norm is seven operations in float32, here one. The same numbers up to
rounding.

Not under torch.compile: torch 2.11 loses the gradients of `Adapted` there, without a word.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.nn.functional import linear, rms_norm


class Adapted(torch.autograd.Function):
    """x (tokens, in), weight (out, in), bias (out) or None, A (rank, in), B (out, rank) to (tokens, out). Gradients
    of x, A and B; the layer is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> torch.Tensor:
        low = (x @ a.to(x.dtype).T).mul_(scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        return linear(x, weight, bias).addmm_(low, b.to(x.dtype).T)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        back = (gradient @ b.to(x.dtype)).mul_(ctx.scale)
        of_x = (gradient @ weight).addmm_(back, a.to(x.dtype)) if ctx.needs_input_grad[0] else None
        return of_x, None, None, (back.T @ x).to(a.dtype), (gradient.T @ low).to(b.dtype), None


def fuse(model: Any) -> None:
    """Computes every adapted layer and norm of `model` that it can in this way; others (quantised layers, dropout,
    norms that compute something else) stay."""
    for module in model.modules():
        if type(module) is Linear and type(module.get_base_layer()) is torch.nn.Linear and not module.lora_variant:
            if all(isinstance(one, torch.nn.Identity) for one in module.lora_dropout.values()):
                module.forward = types.MethodType(_adapted, module)
        elif type(module).__name__.endswith("RMSNorm") and _is_plain(module):
            module.forward = types.MethodType(_norm, module)


def unfuse(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, Linear) or type(module).__name__.endswith("RMSNorm"):
            module.__dict__.pop("forward", None)


def _adapted(self: Linear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
        return Linear.forward(self, x, *args, **kwargs)
    (name,), layer = self.active_adapters, self.get_base_layer()
    with torch.autocast(x.device.type, enabled=False):
        flat = x.to(layer.weight.dtype).reshape(-1, x.size(-1))
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        return Adapted.apply(flat, layer.weight, layer.bias, a, b, self.scaling[name]).view(*x.shape[:-1], -1)


def _norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, (x.size(-1),), self.weight, self.variance_epsilon)


@torch.no_grad()
def _is_plain(module: Any) -> bool:
    """Whether this norm is weight x x / sqrt(mean(x^2) + epsilon), with a frozen weight: found out by asking it."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.requires_grad or not hasattr(module, "variance_epsilon"):
        return False
    x = torch.linspace(-2, 3, weight.numel(), device=weight.device, dtype=weight.dtype)[None]
    return torch.allclose(module(x).float(), _norm(module, x).float(), rtol=2e-2, atol=1e-3)
