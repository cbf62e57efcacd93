"""Losses on demonstrations. Shape suffix: N completion tokens."""

from __future__ import annotations

from torch import Tensor


def nll(logps_N: Tensor, weights_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative log-likelihood: loss = -Σ_n w_n log p_n.

    With w_n = 1 / (completion tokens of the optimiser step) it is the mean over tokens; the caller
    fixes the weights before the first micro-batch, so the sum over micro-batches is exact (P7).
    """
    loss = -(weights_N * logps_N).sum()
    return loss, {"nll": loss.detach()}
