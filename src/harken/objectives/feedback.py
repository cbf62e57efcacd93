"""The likelihood of feedback for networks: what `harken.labelers.models.likelihood` is in NumPy, term by term.

    u = felt(scores_C, beta_A[who_C], length_A[who_C], size_C)      # what labeler who felt for each completion
    loss, metrics = k_wise(u, ranks_C, weights_C, sizes, ties="davidson", tie=tie)

First a predictor (what a labeler feels), then an outcome family (what he says of it): `k_wise` for rankings in pairs
(harken.objectives.preference), and here, as log-probabilities to be weighed and summed, a ranking as a whole, grades,
choices, thumbs and use. Equations and sources stand with their NumPy twins; a test holds values and gradients equal.

Shape suffixes: C completions, A labelers, N judgments, K options of a ranking, M grades.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def felt(scores_C: Tensor, beta_C: Tensor, length_C: Tensor, size_C: Tensor) -> Tensor:
    """beta score + length size, [C]: `beta_C` and `length_C` are those of the labeler who was asked."""
    return beta_C * scores_C + length_C * size_C


def labeler_prior(beta_A: Tensor, length_A: Tensor, beta_sd: float, length_sd: float) -> Tensor:
    """Negative log of beta ~ N(1, beta_sd^2), length ~ N(0, length_sd^2), constants apart: a sum over labelers.

    The scores' scale is the network's, so the prior's mean of 1 is what fixes beta's.
    """
    return 0.5 * (((beta_A - 1) / beta_sd) ** 2 + (length_A / length_sd) ** 2).sum()


@cache
def _subsets(k: int, ties: bool) -> tuple[Tensor, Tensor]:
    """All non-empty sets of k options (alone, without ties): members [S, k] and sizes [S]."""
    inside = (torch.arange(1, 2**k)[:, None] >> torch.arange(k)) & 1 if ties else torch.eye(k, dtype=torch.long)
    return inside.bool(), inside.sum(1)


def plackett_luce(u_NK: Tensor, ranks_NK: Tensor, log_nu: Tensor | None = None) -> Tensor:
    """log P of each ranking, [N]: Plackett–Luce, or with `log_nu` Davidson–Luce (Firth et al. 2019), ties included.

    At each stage P(set T on top) is proportional to nu^(|T| - 1) exp(mean of u in T). Sums over 2^K sets: K to 12 with ties.
    """
    k = u_NK.shape[1]
    if log_nu is not None and k > 12:
        raise ValueError(f"a ranking of {k} with ties has 2^{k} sets to sum over; use k_wise")
    members, sizes = (x.to(u_NK.device) for x in _subsets(k, log_nu is not None))
    values = u_NK @ (members / sizes[:, None]).to(u_NK.dtype).T
    if log_nu is not None:
        values = values + log_nu * (sizes - 1)
    total = u_NK.new_zeros(len(u_NK))
    for rank in torch.unique(ranks_NK):
        top, left = ranks_NK == rank, ranks_NK >= rank
        live = top.any(1) & (left.sum(1) > 1)
        size = top[live].sum(1)
        if log_nu is None and bool((size > 1).any()):
            raise ValueError("a ranking has ties, and a Plackett–Luce without log_nu has none")
        gone = (~left[live]).to(u_NK.dtype) @ members.to(u_NK.dtype).T > 0  # sets of those still left only
        norm = values[live].masked_fill(gone, -torch.inf).logsumexp(1)
        linear = (u_NK[live] * top[live]).sum(1) / size + (0 if log_nu is None else log_nu * (size - 1))
        total = total.index_add(0, live.nonzero()[:, 0], linear - norm)
    return total


def ordinal(eta_N: Tensor, cuts: Tensor, grade_N: Tensor) -> Tensor:
    """log P(grade 0 … M-1), [N], of ratings or graded comparisons: P(grade <= m) = sigma(cuts[m] - eta). cuts [M-1] rise."""
    far = cuts.new_full((1,), torch.inf)
    edges = torch.cat([-far, cuts, far])
    low, high = edges[grade_N] - eta_N, edges[grade_N + 1] - eta_N
    inner = (grade_N > 0) & (grade_N < len(cuts))
    gap = torch.where(inner, low - high, -torch.ones_like(eta_N))  # no infinity reaches a gradient
    width = torch.where(inner, torch.log(-torch.expm1(gap)), torch.zeros_like(eta_N))
    below = torch.where(grade_N < len(cuts), F.logsigmoid(high.clamp(max=1e4)), torch.zeros_like(eta_N))
    above = torch.where(grade_N > 0, F.logsigmoid(-low.clamp(min=-1e4)), torch.zeros_like(eta_N))
    return below + above + width


def chosen(u_NK: Tensor, choice_N: Tensor) -> Tensor:
    """log P of choosing one of K, [N]: a demonstration or an edit over what could have stood there."""
    return u_NK.log_softmax(1).gather(1, choice_N[:, None])[:, 0]


def thumb(eta_N: Tensor, up_N: Tensor) -> Tensor:
    """log P of a thumb up (1) or down (0), [N]."""
    return F.logsigmoid((2 * up_N - 1) * eta_N)


def use(eta_N: Tensor, outside: Tensor, what_N: Tensor) -> Tensor:
    """log P of accepting (0), regenerating (1) or stopping (2), [N]; `outside` [2] is what the latter two are worth."""
    return chosen(torch.cat([eta_N[:, None], outside.expand(len(eta_N), 2)], 1), what_N)
