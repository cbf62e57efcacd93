"""Estimators of KL(π ‖ π_ref) from tokens sampled by π, with l = log π - log π_ref (Schulman 2020).

All three estimate the value. As *gradients* they differ (P5): put k1 in the reward, or k2 in the loss.
k1 in the loss has expected gradient 0; k3 in the loss has the gradient of KL(π_ref ‖ π).
Shape suffix: N tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logps_N: Tensor, ref_logps_N: Tensor) -> Tensor:
    """l: unbiased, high variance; can be negative."""
    return logps_N - ref_logps_N


def k2(logps_N: Tensor, ref_logps_N: Tensor) -> Tensor:
    """l²/2: biased as a value; its on-policy gradient is that of KL(π ‖ π_ref), exactly."""
    return 0.5 * (logps_N - ref_logps_N) ** 2


def k3(logps_N: Tensor, ref_logps_N: Tensor) -> Tensor:
    """e^{-l} - 1 + l: unbiased, never negative."""
    log_ratio = ref_logps_N - logps_N
    return torch.expm1(log_ratio) - log_ratio
