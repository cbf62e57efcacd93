"""Policy-gradient losses. Shape suffixes: N completion tokens, P prompts, G completions a prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def leave_one_out(rewards_PG: Tensor) -> Tensor:
    """RLOO's advantage: each reward minus the mean of the others of its prompt (2402.14740, eq. 8).

    A_g = R_g - (Σ_{h≠g} R_h) / (G - 1). Equal rewards give exactly 0 (P25). Raises ValueError if G < 2.
    """
    G = rewards_PG.shape[1]
    if G < 2:
        raise ValueError("leave-one-out needs at least 2 completions a prompt")
    centred = rewards_PG - rewards_PG[:, :1]  # exact zeros for equal rewards
    return (centred - centred.mean(1, keepdim=True)) * (G / (G - 1))


def clipped(logps_N: Tensor, old_logps_N: Tensor, advantages_N: Tensor, weights_N: Tensor,
            clip: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Importance-weighted policy gradient, clipped as in PPO (1707.06347, eq. 7); clip 0 does not clip.

    loss = -Σ_n w_n min(ρ_n A_n, clip(ρ_n, 1 - ε, 1 + ε) A_n),  ρ_n = exp(log π(n) - log π_old(n)).
    At ρ = 1 its gradient is REINFORCE's, -Σ w A ∇log π. The weights say what it divides by (P8):
    1 / sequences for RLOO (a sum over tokens, a mean over sequences).
    Metrics are weighted sums over tokens with the same weights: `clip_fraction` where the clip is active.
    """
    ratio = torch.exp(logps_N - old_logps_N)
    gain = ratio * advantages_N
    active = torch.zeros_like(gain)
    if clip > 0:
        bounded = ratio.clamp(1 - clip, 1 + clip) * advantages_N
        active = (bounded < gain).to(gain.dtype)
        gain = torch.minimum(gain, bounded)
    loss = -(weights_N * gain).sum()
    return loss, {"clip_fraction": (weights_N * active).sum().detach()}
