"""A frozen base in 4 bits (QLoRA: Dettmers et al. 2023, 2305.14314): NF4 by bitsandbytes, a block of 64 numbers with one scale.

    quantize(model)         # the linear layers that adapters stand on; biases and tables stay as they are
    rounded(model)          # the same numbers back in the model's own precision: what an adapter learnt on

A layer's weight is made whole for its product and let go after, in the backward pass again: nothing of it is kept between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from harken.core.errors import UserError
from harken.engines import emulate
from harken.engines.adapters import targets
from harken.engines.precision import multiplies_bfloat16

NF4 = "nf4"


def check(lora_rank: int, compute: torch.dtype, split: bool) -> None:
    """Raises `UserError` where a base cannot be held in 4 bits."""
    what = ("trains adapters alone: --lora-rank 0 changes the base" if not lora_rank else
            "computes in bfloat16" if compute is not torch.bfloat16 else "is not split: leave --shard out" if split else "")
    if what:
        raise UserError(f"--quantize nf4 {what}.", "Set --dtype bfloat16 and a --lora-rank, without --shard.")
    _library()


def _library() -> Any:
    try:
        import bitsandbytes.functional as library
    except ImportError:
        raise UserError("A base in 4 bits needs bitsandbytes, which is not installed.",
                        "pip install bitsandbytes, or leave --quantize out.") from None
    return library


def _pack(weight: Tensor) -> tuple[Tensor, Any]:
    """bfloat16 numbers as NF4, the scales in 8 bits (double quantization)."""
    packed, state = _library().quantize_4bit(weight.detach().bfloat16().contiguous(), blocksize=64, compress_statistics=True,
                                             quant_type=NF4)
    return packed, state


def _unpack(packed: Tensor, state: Any) -> Tensor:
    weight: Tensor = _library().dequantize_4bit(packed, state)
    return weight


class FourBit(nn.Linear):
    """A linear layer whose weight is packed. `weight` makes it whole, in bfloat16."""

    packed: Tensor
    state: Any

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return _unpack(self.packed, self.state)

    def forward(self, x: Tensor) -> Tensor:
        apply: Any = _Product.apply
        y: Tensor = apply(x, self)
        return y


class _Product(torch.autograd.Function):
    """x Wᵀ + b with the bfloat16 products of the machine; the weight is made again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FourBit) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return _product(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _product(gradient, ctx.layer.weight.T.contiguous(), None).to(ctx.dtype), None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.device.type == "cpu" and not multiplies_bfloat16():
        return emulate.product(x, weight, bias)
    with torch.autocast(x.device.type, enabled=False):
        return nn.functional.linear(x.to(weight.dtype), weight, None if bias is None else bias.to(weight.dtype))


def _plain(model: Any, layers: Iterable[Any]) -> list[nn.Linear]:
    """Those that are torch's own. Raises `UserError` where there is none."""
    if not (found := [layer for layer in layers if type(layer) is nn.Linear]):
        raise UserError(f"A model of the kind {model.config.model_type} has no linear layers to hold in 4 bits.",
                        "Leave --quantize out.")
    return found


@torch.no_grad()
def quantize(model: Any) -> None:
    """Packs the layers that adapters stand on, in place, one at a time."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    for layer in _plain(model, (m.get_base_layer() for m in model.modules() if isinstance(m, BaseTunerLayer))):
        packed, state = _pack(layer.weight)
        del layer._parameters["weight"]
        layer.__dict__.pop("forward", None)  # engines/emulate.py's
        layer.__class__ = FourBit
        layer.register_buffer("packed", packed, persistent=False)
        layer.state = state


@torch.no_grad()
def rounded(model: Any) -> None:
    """Gives each of these layers, of a model without adapters, the numbers that `quantize` would hold of it."""
    names = targets(model)
    last = model.get_output_embeddings()
    for layer in _plain(model, (m for n, m in model.named_modules() if m is not last and (isinstance(names, str) or n in names))):
        layer.weight.copy_(_unpack(*_pack(layer.weight)))
