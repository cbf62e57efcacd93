"""Advantages with a value function, and the loss that fits one.

Every completion is a sequence of its own tokens: nothing outside it exists here, so nothing masked can be read (P17).
Shape suffixes: N completion tokens of all completions, one after another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gae(rewards_N: Tensor, values_N: Tensor, lengths: Sequence[int], gamma: float = 1.0,
        lam: float = 0.95) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (1506.02438, eq. 16): (advantages [N], returns [N]).

    δ_t = r_t + γ V_{t+1} - V_t,  A_t = δ_t + γ λ A_{t+1},  R_t = A_t + V_t,  with V and A 0 after a completion's last token.
    `values_N[t]` is the value before token t is drawn. At γ = λ = 1, A_t is the sum of the rewards from t on less V_t.
    """
    rewards, values = rewards_N.tolist(), values_N.tolist()
    advantages = [0.0] * len(rewards)
    end = 0
    for length in lengths:
        end += length
        following = after = 0.0
        for t in range(end - 1, end - length - 1, -1):
            after = rewards[t] + gamma * following - values[t] + gamma * lam * after
            advantages[t], following = after, values[t]
    advantages_N = torch.tensor(advantages, dtype=values_N.dtype, device=values_N.device)
    return advantages_N, advantages_N + values_N


def whiten(x_N: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(variance + ε), variance unbiased; without `shift_mean` the mean is put back (rewards; N-details)."""
    if len(x_N) < 2:
        return x_N - x_N.mean() if shift_mean else x_N.clone()
    mean = x_N.mean()
    white = (x_N - mean) * torch.rsqrt(x_N.var() + eps)
    return white if shift_mean else white + mean


def value_loss(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, weights_N: Tensor,
               clip: float = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ w ½ max((V - R)², (clip(V, V_old ± ε) - R)²), PPO's clipped value loss (OpenAI baselines); clip 0 does not clip."""
    error = (values_N - returns_N) ** 2
    active = torch.zeros_like(error)
    if clip > 0:
        bounded = (old_values_N + (values_N - old_values_N).clamp(-clip, clip) - returns_N) ** 2
        active = (bounded > error).to(error.dtype)
        error = torch.maximum(error, bounded)
    loss = 0.5 * (weights_N * error).sum()
    return loss, {"value_loss": loss.detach(), "value_clip_fraction": (weights_N * active).sum().detach()}


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(R - V) / Var(R): 1 a perfect critic, 0 no better than a constant; 0 where the returns do not vary."""
    total = float(returns.var()) if len(returns) > 1 else 0.0
    return 1 - float((returns - values).var()) / total if total > 0 else 0.0
