"""Activations that the backward pass computes anew, a layer at a time (Chen et al. 2016, 1604.06174).

A layer keeps its input, [R, D], and nothing of its inside: about 1/20 of the memory of a long row, for a third more products.
What the layer read besides its input, the row it attends over, is set again for the second pass; dropout is off (P18), so both
passes are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from harken.core.errors import UserError
from harken.engines.attention import current_row, using

MARK = "_harken_recomputed"


def layers_of(model: Any, option: str) -> list[Any]:
    """The transformer's layers. Raises `UserError`, naming the option that needs them, where a model names none."""
    names = set(model._no_split_modules or ())
    # Of a split layer the class is one derived from its own.
    layers = [module for module in model.modules() if names & {cls.__name__ for cls in type(module).__mro__}]
    if not layers:
        raise UserError(f"{option} finds no layers in a model of the kind {model.config.model_type}.", f"Leave {option} out.")
    return layers


def recompute(model: Any) -> None:
    """From now on the layers keep only their inputs in passes that learn; others are as before. May be called again."""
    for layer in layers_of(model, "--checkpoint-activations"):
        if not hasattr(layer, MARK):
            setattr(layer, MARK, True)
            layer.forward = _recomputed(layer.forward)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        row = current_row()

        def again(*args: Any, **options: Any) -> Any:
            with using(row):
                return forward(*args, **options)
        return checkpoint(again, *args, use_reentrant=False, preserve_rng_state=False, **options)
    return run
