"""What a sampler and a trainer disagree on of the same tokens and weights, and the weight that corrects it.

A server's numerics are not the trainer's: with tokens drawn from μ (the sampler) and learnt from as if from π_old (the trainer),
a policy gradient is off-policy. The importance ratio corrects it, and truncation bounds its variance at the price of a bias
(Ionides 2008, "Truncated importance sampling"; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
training", eq. of TIS):

    w_n = min(exp(log π_old(n) - log μ(n)), C)               of each token, or with the sum over a completion of all its tokens

Shape suffixes: N completion tokens, C completions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harken.core.config import CORRECTIONS
from harken.objectives.kl import k3


def correction(trainer_N: Tensor, sampler_N: Tensor, lengths: Sequence[int], kind: str = "token_truncate", cap: float = 2.0
               ) -> Tensor:
    """The weight [N] of each token, without gradient: `lengths` are the completions' [C]. Where both log-probs are the same it is
    exactly 1. Raises ValueError for an unknown kind and a cap that is not above 1, which would change tokens that agree."""
    if kind not in CORRECTIONS or cap <= 1:
        raise ValueError(f"a correction is one of {', '.join(CORRECTIONS)}, with a cap above 1; found {kind}, {cap}")
    log_ratio = (trainer_N - sampler_N).detach()
    if kind == "none":
        return torch.ones_like(log_ratio)
    if kind.startswith("sequence"):
        log_ratio = torch.cat([part.sum().expand_as(part) for part in torch.split(log_ratio, list(lengths))])
    ratio = log_ratio.exp()
    return ratio.clamp(max=cap) if kind.endswith("truncate") else torch.where(ratio > cap, 0.0, ratio)


def mismatch(trainer_N: Tensor, sampler_N: Tensor, weights_N: Tensor, cap: float = 2.0) -> dict[str, float]:
    """How far they are apart: mean and largest |log π_old - log μ| of a token, KL(μ ‖ π_old) by k3, the mean weight, the share of
    tokens whose weight the cap changed, and the effective share of the sample, (Σ w)² / (N Σ w²)."""
    gap_N = (trainer_N - sampler_N).abs()
    squares = float(weights_N.square().sum())
    return {"mismatch": float(gap_N.mean()), "mismatch_max": float(gap_N.max()),
            "mismatch_kl": float(k3(sampler_N, trainer_N).mean()), "correction": float(weights_N.mean()),
            "correction_cut": float(((weights_N == cap) | (weights_N == 0)).float().mean()),
            "correction_ess": float(weights_N.sum()) ** 2 / (len(weights_N) * squares) if squares else 0.0}
