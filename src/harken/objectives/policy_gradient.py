"""Policy-gradient losses. Shape suffixes: N completion tokens, P prompts, G completions a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AGGREGATIONS = ("sequence_sum", "sequence_mean", "token_mean", "constant")


def token_weights(lengths: Sequence[int], aggregation: str, max_tokens: int = 0,
                  keep: Sequence[bool] | None = None) -> list[float]:
    """What each completion token weighs in the loss, flat [N]: the aggregation is the algorithm (P8).

    B completions kept of lengths L_b, N tokens in all:

    - sequence_sum: 1 / B, a sum over tokens, a mean over completions (REINFORCE, RLOO)
    - sequence_mean: 1 / (B L_b), a mean of the completions' means (GRPO, 2402.03300 eq. 3)
    - token_mean: 1 / N (DAPO, 2503.14476 eq. 8)
    - constant: 1 / (B max_tokens), a constant whatever the lengths (Dr. GRPO, 2503.20783)

    A completion left out by `keep` weighs 0 and is in neither sum (P9).
    """
    mask = list(keep) if keep is not None else [True] * len(lengths)
    count = max(1, sum(mask))
    tokens = max(1, sum(n for n, k in zip(lengths, mask) if k))
    if aggregation == "constant" and max_tokens < 1:
        raise ValueError("the constant aggregation divides by max_tokens, which must be 1 or more")
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation {aggregation!r} is not one of {', '.join(AGGREGATIONS)}")

    def weight(length: int) -> float:
        return 1 / {"sequence_sum": count, "sequence_mean": count * max(1, length), "token_mean": tokens,
                    "constant": count * max_tokens}[aggregation]

    return [weight(n) if k else 0.0 for n, k in zip(lengths, mask) for _ in range(n)]


def leave_one_out(rewards_PG: Tensor) -> Tensor:
    """RLOO's advantage: each reward minus the mean of the others of its prompt (2402.14740, eq. 8).

    A_g = R_g - (Σ_{h≠g} R_h) / (G - 1). Equal rewards give exactly 0 (P25). Raises ValueError if G < 2.
    """
    G = rewards_PG.shape[1]
    if G < 2:
        raise ValueError("leave-one-out needs at least 2 completions a prompt")
    centred = rewards_PG - rewards_PG[:, :1]  # exact zeros for equal rewards
    return (centred - centred.mean(1, keepdim=True)) * (G / (G - 1))


def less_the_others(x_N: Tensor, lengths: Sequence[int]) -> Tensor:
    """Each token's value minus the mean over the tokens of all other completions; nothing is subtracted from a single one's.

    A baseline for values that differ by token: it does not depend on the completion that it is subtracted from, and so
    leaves a policy gradient's expectation as it is.
    """
    counts = torch.tensor(lengths)
    sums = torch.stack([part.sum() for part in torch.split(x_N, list(lengths))])
    return x_N - ((sums.sum() - sums) / (counts.sum() - counts).clamp(min=1)).repeat_interleave(counts)


def group_relative(rewards_PG: Tensor, scale: str = "group", eps: float = 1e-4) -> Tensor:
    """GRPO's advantage: the reward less its group's mean, over the standard deviation (2402.03300, section 4.1.2).

    `scale`: group divides by the group's standard deviation + ε (unbiased; TRL's ε); batch by that of all centred
    rewards of the step; none does not divide (Dr. GRPO, 2503.20783: dividing makes easy and hard prompts weigh more).
    Equal rewards give exactly 0 (P25). Raises ValueError if G < 2 or the scale is unknown.
    """
    G = rewards_PG.shape[1]
    if G < 2:
        raise ValueError("group-relative advantages need at least 2 completions a prompt")
    centred = leave_one_out(rewards_PG) * ((G - 1) / G)
    if scale == "none":
        return centred
    if scale == "group":
        return centred / (rewards_PG.std(1, keepdim=True) + eps)
    if scale == "batch":
        return centred / (centred.std() + eps)
    raise ValueError(f"scale {scale!r} is not one of group, batch, none")


def clipped(logps_N: Tensor, old_logps_N: Tensor, advantages_N: Tensor, weights_N: Tensor, clip: float,
            clip_high: float | None = None, sequences: Sequence[int] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Importance-weighted policy gradient, clipped as in PPO (1707.06347, eq. 7); clip 0 does not clip.

    loss = -Σ_n w_n min(ρ_n A_n, clip(ρ_n, 1 - ε, 1 + ε_high) A_n),  ρ_n = exp(log π(n) - log π_old(n)).
    At ρ = 1 its gradient is REINFORCE's, -Σ w A ∇log π. The weights say what it divides by (`token_weights`).
    `clip_high` is DAPO's wider upper bound (2503.14476, eq. 10); without it ε_high = ε.
    With `sequences`, the completions' lengths, ρ is GSPO's: exp of the mean log-ratio of the whole completion at each of
    its tokens, its gradient through all of them (2507.18071, eq. 7; P28).
    Metrics are weighted sums over tokens with the same weights: `clip_fraction` where the clip is active.
    """
    log_ratio = logps_N - old_logps_N
    if sequences is not None:
        log_ratio = torch.cat([part.mean().expand_as(part) for part in torch.split(log_ratio, list(sequences))])
    ratio = torch.exp(log_ratio)
    gain = ratio * advantages_N
    active = torch.zeros_like(gain)
    if clip > 0:
        bounded = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * advantages_N
        active = (bounded < gain).to(gain.dtype)
        gain = torch.minimum(gain, bounded)
    loss = -(weights_N * gain).sum()
    return loss, {"clip_fraction": (weights_N * active).sum().detach()}
