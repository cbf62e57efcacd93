"""Losses of pretraining with human feedback (Korbak et al. 2302.08582, section 2).

A document x is cut into segments x^i, each with a reward R(x^i), higher better; a token's reward is its segment's. MLE,
filtering and conditional training have one loss, on other tokens: all, those of good documents, those with a control token
before each segment. `weights_N` are 1 / (tokens of the optimiser step), fixed before the first micro-batch (P7).
Shape suffix: N predicted tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_PROBABILITY = 1e-20
"""Below it 1 - p counts as this, as the authors have it: the loss of a bad token that is certain stays finite."""
MOST_WEIGHT = 1000.0
"""AWR's weights are cut here (authors' `clip_weight_max`)."""

Loss = tuple[Tensor, dict[str, Tensor]]


def log_one_minus(logps_N: Tensor) -> Tensor:
    """log(1 - p) of log p, exact where p is near 0 or 1, and at least log 1e-20."""
    return torch.log((-torch.expm1(logps_N)).clamp_min(LEAST_PROBABILITY))


def unlikelihood(logps_N: Tensor, good_N: Tensor, weights_N: Tensor, alpha: float) -> Loss:
    """Welleck et al. 1908.04319 by segments: Σ_good -w log p + α Σ_bad -w log(1 - p). `good_N` is 1 or 0.

    The authors' code takes a threshold of 0 for none and then learns by soft weights 1 - score, nearly MLE; here whoever
    calls says which tokens are good.
    """
    nll = -(weights_N * good_N * logps_N).sum()
    ul = -(weights_N * (1 - good_N) * log_one_minus(logps_N)).sum()
    loss = nll + alpha * ul
    return loss, {"nll_good": nll.detach(), "unlikelihood": ul.detach(), "good": (weights_N * good_N).sum().detach()}


def masked(logps_N: Tensor, good_N: Tensor, weights_N: Tensor) -> Loss:
    """Σ_good -w log p: bad segments are read and not learnt. The divisor stays all tokens."""
    nll = -(weights_N * good_N * logps_N).sum()
    return nll, {"nll_good": nll.detach(), "good": (weights_N * good_N).sum().detach()}


def reward_weights(rewards_N: Tensor, beta: float) -> Tensor:
    """exp(R / β), cut at 1000."""
    return torch.exp(rewards_N / beta).clamp(max=MOST_WEIGHT)


def rwr(logps_N: Tensor, rewards_N: Tensor, weights_N: Tensor, beta: float) -> Loss:
    """Reward-weighted regression: Σ -w exp(R / β) log p."""
    scale = reward_weights(rewards_N, beta)
    loss = -(weights_N * scale * logps_N).sum()
    return loss, {"weighted_nll": loss.detach(), "weight_mean": (weights_N * scale).sum().detach()}


def values_of(head_N: Tensor) -> Tensor:
    """V = -sigmoid(head), in [-1, 0]: what rewards of [-1, 0] allow."""
    return -torch.sigmoid(head_N)


def awr(logps_N: Tensor, rewards_N: Tensor, head_N: Tensor, weights_N: Tensor, alpha: float, beta: float) -> Loss:
    """Advantage-weighted regression by tokens: α Σ -w exp(A / β) log p + (1 - α) Σ w (R - V)², A = R - V without gradient.

    V = -sigmoid(head) is the value before the token; its gradient reaches the model below the head. At α = 1 with V = 0 it
    is RWR.
    """
    values_N = values_of(head_N)
    scale = reward_weights(rewards_N - values_N.detach(), beta)
    weighted = -(weights_N * scale * logps_N).sum()
    error = (weights_N * (rewards_N - values_N) ** 2).sum()
    loss = alpha * weighted + (1 - alpha) * error
    return loss, {"weighted_nll": weighted.detach(), "value_loss": error.detach(),
                  "weight_mean": (weights_N * scale).sum().detach(), "value_mean": (weights_N * values_N).sum().detach()}
