"""Losses of reward models on rankings.

Shape suffixes: C completions (all trees of a micro-batch, one after another), P prompts (trees),
E pairs. All are sums: a ranking's weight is fixed beforehand (1 / rankings of the optimiser step).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

TIES = ("drop", "davidson", "rao_kupper")


def pair_indices(sizes: Sequence[int], device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """All C(K, 2) pairs i < j of every tree, as indices into C, and 1 / C(K, 2) of each pair's tree: [E] each."""
    pairs, share, at = [], [], 0
    for size in sizes:
        own = list(combinations(range(at, at + size), 2))
        pairs += own
        share += [1.0 / len(own)] * len(own) if own else []
        at += size
    first, second = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2).unbind(1)
    return first, second, torch.tensor(share, dtype=torch.float32, device=device)


def repeat(sizes: Sequence[int], rankings: Sequence[int]) -> tuple[list[int], list[int]]:
    """Indices into C that repeat each tree's completions once a ranking, and the sizes of the repeated trees."""
    index, at = [], 0
    for size, times in zip(sizes, rankings):
        index += list(range(at, at + size)) * times
        at += size
    return index, [size for size, times in zip(sizes, rankings) for _ in range(times)]


def k_wise(scores_C: Tensor, ranks_C: Tensor, weights_C: Tensor, sizes: Sequence[int], *, ties: str = "drop",
           tie: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """InstructGPT's reward-model loss (2203.02155, eq. 1), with ties as an option.

    loss = -Σ_rankings w Σ_pairs log P(outcome) / C(K, 2), every completion encoded once (P31). `weights_C`
    repeats each ranking's w over its completions. Outcomes, d = r_i - r_j:

    - drop: P(i > j) = σ(d); a tied pair adds nothing, the divisor stays C(K, 2) (App. C.2; P32)
    - davidson: P(i > j), P(tie), P(j > i) ∝ e^{d/2}, ν, e^{-d/2}, with `tie` = ln ν (Davidson 1970)
    - rao_kupper: P(i > j) = σ(d - ln θ), P(tie) = (θ² - 1) P(i > j) P(j > i), `tie` with
      ln θ = softplus(tie) (Rao and Kupper 1967)

    Metrics are sums: `correct` and `pairs` count untied pairs, equal scores half right.
    """
    i, j, share = pair_indices(sizes, scores_C.device)
    d = scores_C[i] - scores_C[j]
    won = (ranks_C[j] - ranks_C[i]).sign().to(d.dtype)  # 1: i better, -1: j better, 0: tied
    if ties == "drop":
        logp = torch.where(won == 0, torch.zeros_like(d), F.logsigmoid(won * d))
    elif ties == "davidson":
        assert tie is not None, "davidson needs the tie parameter"
        table = torch.stack([-d / 2, tie.expand_as(d), d / 2], -1).log_softmax(-1)
        logp = table.gather(-1, (won + 1).long()[:, None])[:, 0]
    elif ties == "rao_kupper":
        assert tie is not None, "rao_kupper needs the tie parameter"
        log_theta = F.softplus(tie)
        first, second = F.logsigmoid(d - log_theta), F.logsigmoid(-d - log_theta)
        both = torch.log(torch.expm1(2 * log_theta)) + first + second
        logp = torch.where(won == 0, both, torch.where(won > 0, first, second))
    else:
        raise ValueError(f"ties {ties!r} is not one of {', '.join(TIES)}")
    loss = -(weights_C[i] * share * logp).sum()
    right = torch.where(d == 0, 0.5, (d * won > 0).to(d.dtype))
    untied = won != 0
    return loss, {"correct": right[untied].sum().detach(), "pairs": untied.sum()}
