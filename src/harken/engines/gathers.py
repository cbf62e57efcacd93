"""Weights that are split over the processes, put together for as long as they are needed; frozen ones a piece at a time.

    whole(weight)                       # a weight itself, or gathered where it is split
    product(hidden, weight, bias)       # float32, of a frozen table of which no process ever holds the whole
    one_at_a_time(module)               # a frozen linear layer whose matrix is there only while it multiplies

Gathering takes all processes: each must make the same calls in the same order, whatever its data are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from harken.core import processes
from harken.engines import emulate
from harken.engines.form import blocks

HELD = "_harken_whole"
FLOAT32: ContextVar[bool] = ContextVar("float32", default=False)
"""Whether split weights compute in float32, as in the check at load (selfcheck.py)."""


def is_split(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """What this process keeps of a parameter: the same memory; a parameter that is not split, as it is."""
    return cast(DTensor, tensor.detach()).to_local() if isinstance(tensor, DTensor) else tensor


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards, the sum of their gradients, of which each takes its own rows."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, rows: int) -> Tensor:
        group = processes.group()
        size = group.size
        share = -(-rows // size)
        ctx.own = len(part)
        if part.device.type == "cpu":  # gloo gathers into a buffer of its own, and sends in place
            table = part.new_empty(rows, *part.shape[1:])
            for owner, place in enumerate(table.split(share)):
                if owner == group.rank:
                    place.copy_(part)
                dist.broadcast(place.view(torch.uint8), src=owner)
            return table
        padded = part if len(part) == share else torch.cat((part, part.new_zeros(share - len(part), *part.shape[1:])))
        table = part.new_empty(share * size, *part.shape[1:])
        dist.all_gather_single(table.view(torch.uint8), padded.contiguous().view(torch.uint8))  # any precision
        return table[:rows]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        size = processes.group().size
        share = -(-len(gradient) // size)
        padded = gradient.new_zeros(share * size, *gradient.shape[1:])
        padded[:len(gradient)] = gradient
        own = gradient.new_empty(share, *gradient.shape[1:])
        dist.reduce_scatter_single(own, padded)
        return own[:ctx.own].contiguous(), None


def whole(weight: Tensor) -> Tensor:
    """A weight itself, or gathered where it is split. Differentiable."""
    if not isinstance(weight, DTensor):
        return weight
    held: Tensor | None = getattr(weight, HELD, None)
    if held is not None:
        return held
    gather: Any = _Gather.apply
    table: Tensor = gather(weight.to_local(), weight.shape[0])
    return table


@torch.no_grad()
def pieces(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """A frozen matrix by blocks of rows, in order; of a split one each process sends its own in turn. A piece is gone with the
    next."""
    held = getattr(weight, HELD, None)
    if held is not None or not isinstance(weight, DTensor):
        table = weight if held is None else held
        yield from ((part, table[part]) for part in blocks(table))
        return
    own, rows, group = own_part(weight), weight.shape[0], processes.group()
    share, step = -(-rows // group.size), blocks(weight)[0].stop
    buffer = own.new_empty(min(step, share), *weight.shape[1:])
    for owner in range(group.size):
        start, end = share * owner, min(rows, share * (owner + 1))
        for i in range(start, end, step):
            part = slice(i, min(end, i + step))
            piece = own[i - start:part.stop - start] if owner == group.rank else buffer[:part.stop - i]
            dist.broadcast(piece.view(torch.uint8), src=owner)
            yield part, piece


def rows_of(weight: Tensor, ids: Tensor) -> Tensor:
    """Rows `ids` [...] of a frozen table: [..., D]."""
    found = own_part(weight).new_empty(*ids.shape, weight.shape[1])
    for part, piece in pieces(weight):
        here = (ids >= part.start) & (ids < part.stop)
        found[here] = piece[ids[here] - part.start]
    return found


@torch.no_grad()
def product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden [..., D] times a frozen table [V, D] transposed, and the bias, in float32."""
    with torch.autocast(hidden.device.type, enabled=False):
        hidden = hidden.float()
        logits = hidden.new_empty(*hidden.shape[:-1], len(weight))
        for part, piece in pieces(weight):
            logits[..., part] = F.linear(hidden, piece.float())
        return logits if bias is None else logits.add_(bias.float())


class _Product(torch.autograd.Function):
    """x Wᵀ + b with W gathered for the product and again for the gradient of x: it has none of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any) -> Tensor:
        ctx.module, ctx.dtype = module, x.dtype
        weight = whole(module.weight)
        ctx.emulated = emulate.needed(x)
        if FLOAT32.get():
            bias = None if module.bias is None else module.bias.float()
            return F.linear(x, weight.float(), bias)
        return emulate.product(x, weight, module.bias) if ctx.emulated else F.linear(x, weight, module.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weight = whole(ctx.module.weight)
        if ctx.emulated:
            wide = gradient.bfloat16().float().flatten(0, -2)
            return emulate.back(wide, weight).to(ctx.dtype).view(*gradient.shape[:-1], -1), None
        return (gradient @ weight.to(gradient.dtype)).to(ctx.dtype), None


def one_at_a_time(module: nn.Linear) -> None:
    """From now on the layer's matrix, frozen and split, is whole only while it multiplies."""
    apply: Any = _Product.apply
    setattr(module, emulate.MARK, True)  # it sees to that itself
    module.forward = lambda x: apply(x, module)  # type: ignore[assignment, method-assign]
