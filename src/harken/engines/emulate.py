"""bfloat16 products on a processor that has none: factors rounded to bfloat16, multiplied and summed in float32, rounded once.

    emulate(model)          # its linear layers, as often as adapters are added

It is what bfloat16 instructions compute, up to the order of sums. torch's own way there multiplies backwards without blocks (0.3
GFLOP/s on one thread of an AVX2 processor, where float32 does 70). Of a weight one block (form.py) is float32 at a time.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harken.engines.form import blocks, body_of
from harken.engines.precision import multiplies_bfloat16

MARK = "_harken_emulated"


class _Product(torch.autograd.Function):
    """x [..., D], weight [V, D] -> bfloat16 [..., V]; the weight's gradient in its own precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        low = x.bfloat16()
        ctx.save_for_backward(low, weight)
        ctx.dtype, ctx.biased = x.dtype, bias is not None
        wide, y = low.float(), low.new_empty(*x.shape[:-1], len(weight))
        for part in blocks(weight):
            shift = None if bias is None else bias[part].bfloat16().float()
            y[..., part] = F.linear(wide, weight[part].bfloat16().float(), shift)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        low, weight = ctx.saved_tensors
        wide = gradient.bfloat16().float().flatten(0, -2)
        above = below = None
        if ctx.needs_input_grad[0]:
            above = back(wide, weight).to(ctx.dtype).view(low.shape)
        if ctx.needs_input_grad[1]:
            below = (wide.T @ low.flatten(0, -2).float()).to(weight.dtype)
        return above, below, wide.sum(0) if ctx.biased and ctx.needs_input_grad[2] else None


def back(wide: Tensor, weight: Tensor) -> Tensor:
    """A gradient [N, V], rounded to bfloat16, times the rounded weight: float32 [N, D]."""
    total = wide.new_zeros(len(wide), weight.shape[1])
    for part in blocks(weight):
        total.addmm_(wide[:, part], weight[part].bfloat16().float())
    return total


def needed(x: Tensor) -> bool:
    """Whether products of x take this way where it stands: under autocast, on a processor without bfloat16 instructions."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not multiplies_bfloat16()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b as bfloat16 instructions compute it. Differentiable in all three."""
    with torch.autocast(x.device.type, enabled=False):
        apply: Any = _Product.apply
        y: Tensor = apply(x, weight, bias)
    return y


def _forward(module: nn.Linear, x: Tensor) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):
        return product(x, module.weight, module.bias)
    return F.linear(x, module.weight, module.bias)


def emulate(model: Any) -> None:
    """From now on linear layers before the last one take this way under autocast, where the processor has no other."""
    device = next(model.parameters()).device
    if device.type != "cpu" or multiplies_bfloat16():
        return
    for module in body_of(model).modules():
        if type(module) is nn.Linear and not hasattr(module, MARK):
            setattr(module, MARK, True)
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
