"""A linear layer and its adapter in three matrix products, without a copy of the layer's output. Imports torch.

PEFT computes base(x) + B(A(x)) x scale as four operations, of which two read and write an output as wide as the
layer's for nothing but a sum; autograd adds a fifth where the two gradients of x meet. On a GPU these take as long as
a fifth of a step. Here the sums are part of the products. The same numbers up to rounding.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from peft.tuners.lora import Linear


class Adapted(torch.autograd.Function):
    """x (tokens, in), weight (out, in), bias (out) or None, A (rank, in), B (out, rank) to (tokens, out). Gradients
    of x, A and B; the layer is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> torch.Tensor:
        low = (x @ a.to(x.dtype).T).mul_(scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        return torch.nn.functional.linear(x, weight, bias).addmm_(low, b.to(x.dtype).T)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        back = (gradient @ b.to(x.dtype)).mul_(ctx.scale)
        of_x = (gradient @ weight).addmm_(back, a.to(x.dtype)) if ctx.needs_input_grad[0] else None
        return of_x, None, None, (back.T @ x).to(a.dtype), (gradient.T @ low).to(b.dtype), None


def fuse(model: Any) -> None:
    """Computes every adapted layer of `model` that it can in this way; others (quantised ones, with dropout) stay."""
    for module in model.modules():
        if type(module) is Linear and type(module.get_base_layer()) is torch.nn.Linear and not module.lora_variant:
            if all(isinstance(one, torch.nn.Identity) for one in module.lora_dropout.values()):
                module.forward = types.MethodType(_forward, module)


def unfuse(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, Linear):
            module.__dict__.pop("forward", None)


def _forward(self: Linear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
        return Linear.forward(self, x, *args, **kwargs)
    (name,), layer = self.active_adapters, self.get_base_layer()
    with torch.autocast(x.device.type, enabled=False):
        flat = x.to(layer.weight.dtype).reshape(-1, x.size(-1))
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        return Adapted.apply(flat, layer.weight, layer.bias, a, b, self.scaling[name]).view(*x.shape[:-1], -1)
