"""AdamW, its moments in float32 or in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from harken.core.errors import UserError

SETTINGS: dict[str, Any] = {"lr": 0.0, "betas": (0.9, 0.95), "eps": 1e-8}
"""Betas of InstructGPT."""


def make_optimizer(kind: str, parts: Iterable[Tensor], weight_decay: float, split: bool) -> torch.optim.Optimizer:
    """AdamW as PyTorch computes it, epsilon added after bias correction (P21). `adamw8bit` keeps both moments in 8 bits with a
    float32 scale for each 256 numbers (Dettmers et al. 2022, 2110.02861); tensors below 4,096 numbers keep float32 moments.

    Raises `UserError` where bitsandbytes is missing, or the parameters are `split` over processes.
    """
    if kind == "adamw":
        return torch.optim.AdamW(parts, weight_decay=weight_decay, fused=True, **SETTINGS)
    if split:
        raise UserError("--optimizer adamw8bit keeps moments by blocks of a whole tensor, and --shard splits tensors.",
                        "Leave one of them out.")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UserError("--optimizer adamw8bit needs bitsandbytes, which is not installed.",
                        "pip install bitsandbytes, or leave --optimizer out.") from None
    eight: torch.optim.Optimizer = AdamW8bit(parts, weight_decay=weight_decay, **SETTINGS)
    return eight
