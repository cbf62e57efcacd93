"""Gradient routing: bad segments teach a block of neurons and nothing else, good ones everything else.

    metrics = routed(learner, data, objective, 32)

After Cloud et al. 2410.04332, as in safety-research/selective-gradient-masking: the bad tokens' gradient reaches the block's
parameters alone; good tokens are computed without the block, so that the rest learns what a model without one would learn and
loses nothing when the block goes; tokens that nobody scored are computed with it and teach everything. A pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from harken.core.protocols import Datum, Learner, Objective
from harken.engines.routed import block, writer

PARTS = ("bad", "unscored", "good")


def routed(learner: Learner, data: Sequence[Datum], objective: Callable[[str], Objective], count: int) -> dict[str, float]:
    """Adds the gradient of a step's windows, where gradients must be clear; `objective(part)` is the loss of the tokens whose
    input of that name is 1, for each of `PARTS`. `count` neurons a layer are the block. Returns the summed metrics."""
    found: dict[str, dict[str, float]] = {}
    own: dict[str, Tensor] = {}
    for part in PARTS:
        chosen = [d for d in data if any(d.inputs[part])]
        if not chosen and part != "good":
            continue
        if part == "good":
            own = {n: g.clone() for n, g in blocks(learner.parts, count, gradient=True).items()}
            with without(learner.parts, count):
                found[part] = learner.forward_backward(chosen or data, objective(part))
            for name, gradient in blocks(learner.parts, count, gradient=True).items():
                gradient.copy_(own[name]) if name in own else gradient.zero_()
        else:
            found[part] = learner.forward_backward(chosen, objective(part))
        if part == "bad":
            for name, parameter in learner.parts.items():
                _clear_rest(name, parameter.grad, count)
    names = dict.fromkeys(n for metrics in found.values() for n in metrics)
    return {n: sum(metrics.get(n, 0.0) for metrics in found.values()) for n in names}


def blocks(parts: Mapping[str, Tensor], count: int, gradient: bool = False) -> dict[str, Tensor]:
    """The block's part of every parameter that has one, or of its gradient: views."""
    tensors = {n: p.grad if gradient else p.detach() for n, p in parts.items()}
    return {n: own for n, t in tensors.items() if t is not None and (own := block(n, t, count)) is not None}


@contextmanager
def without(parts: Mapping[str, Tensor], count: int) -> Iterator[None]:
    """The model without its block: what the block writes is 0 inside."""
    written = {n: (own, own.clone()) for n, own in blocks(parts, count).items() if writer(n)}
    for own, _ in written.values():
        own.zero_()
    try:
        yield
    finally:
        for own, kept in written.values():
            own.copy_(kept)


def _clear_rest(name: str, gradient: Tensor | None, count: int) -> None:
    if gradient is None:
        return
    own = block(name, gradient, count)
    kept = torch.zeros(0) if own is None else own.clone()
    gradient.zero_()
    if own is not None:
        own.copy_(kept)
