"""Losses that learn a policy from preferences without a reward model: DPO and its kin.

Every completion's log-prob is a sum over its tokens, end of turn included; h is the policy's log-ratio of the better to
the worse completion less the reference's,

    h = (log π(y_w) - log π(y_l)) - (log π_ref(y_w) - log π_ref(y_l))

Shape suffixes: N completion tokens, C completions, E pairs. Losses are sums over pairs with weights fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = ("dpo", "cdpo", "robust", "ipo", "hinge", "simpo", "orpo", "kto")
REFERENCE_FREE = ("simpo", "orpo")


def sequence_logps(logps_N: Tensor, lengths: Sequence[int]) -> Tensor:
    """Σ_t log p of every completion, [C]."""
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=logps_N.device),
                                    torch.tensor(lengths, device=logps_N.device), output_size=logps_N.shape[0])
    return logps_N.new_zeros(len(lengths)).index_add(0, owner, logps_N)


def pairwise(better_E: Tensor, worse_E: Tensor, ref_better_E: Tensor, ref_worse_E: Tensor, weights_E: Tensor, *,
             loss: str = "dpo", beta: float = 0.1, smoothing: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ_e w_e ℓ(h_e), from sequence log-probs of the better and the worse completions.

    - dpo: -log σ(β h) (2305.18290, eq. 7)
    - cdpo: (1 - ε) ℓ(h) + ε ℓ(-h), ℓ DPO's: labels are wrong with chance ε = `smoothing` (Mitchell 2023)
    - robust: [(1 - ε) ℓ(h) - ε ℓ(-h)] / (1 - 2 ε): its expectation under such labels is DPO's on clean ones (2403.00409, eq. 3)
    - ipo: (h - 1 / (2 β))², a bounded margin; β is its τ (2310.12036, eq. 17; sums, not means over tokens)
    - hinge: max(0, 1 - β h) (SLiC, 2305.10425, with a reference)

    Metrics are weighted sums: both log-probs apart, since both may fall while the margin grows (P27), `margin` = β h and
    `correct`, where h > 0. Raises ValueError on an unknown loss or a smoothing outside [0, 0.5).
    """
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing {smoothing} is not in [0, 0.5)")
    h = (better_E - worse_E) - (ref_better_E - ref_worse_E)
    z = beta * h
    if loss == "dpo":
        each = -F.logsigmoid(z)
    elif loss == "cdpo":
        each = -(1 - smoothing) * F.logsigmoid(z) - smoothing * F.logsigmoid(-z)
    elif loss == "robust":
        each = (-(1 - smoothing) * F.logsigmoid(z) + smoothing * F.logsigmoid(-z)) / (1 - 2 * smoothing)
    elif loss == "ipo":
        each = (h - 1 / (2 * beta)) ** 2
    elif loss == "hinge":
        each = F.relu(1 - z)
    else:
        raise ValueError(f"loss {loss!r} is not one of dpo, cdpo, robust, ipo, hinge")
    return (weights_E * each).sum(), _metrics(better_E, worse_E, z, weights_E)


def simpo(better_E: Tensor, worse_E: Tensor, better_lengths_E: Tensor, worse_lengths_E: Tensor, weights_E: Tensor, *,
          beta: float = 2.0, gamma: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """-Σ w log σ(β log π(y_w) / |y_w| - β log π(y_l) / |y_l| - γ): no reference (2405.14734, eq. 6)."""
    z = beta * (better_E / better_lengths_E - worse_E / worse_lengths_E)
    return -(weights_E * F.logsigmoid(z - gamma)).sum(), _metrics(better_E, worse_E, z, weights_E)


def orpo(better_E: Tensor, worse_E: Tensor, better_lengths_E: Tensor, worse_lengths_E: Tensor, weights_E: Tensor, *,
         beta: float = 0.1) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ w [-log π(y_w) / |y_w| - β log σ(log odds(y_w) - log odds(y_l))], odds = p / (1 - p) with p the geometric
    mean probability of a token (2403.07691, eq. 6 and 7). Demonstration and preference in one; no reference."""
    a, b = better_E / better_lengths_E, worse_E / worse_lengths_E
    z = (a - _log1mexp(a)) - (b - _log1mexp(b))
    return (weights_E * (-a - beta * F.logsigmoid(z))).sum(), _metrics(better_E, worse_E, z, weights_E)


def kto(logps_C: Tensor, ref_C: Tensor, desirable_C: Tensor, weights_C: Tensor, zero: Tensor | float, *,
        beta: float = 0.1) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ w (1 - v): v = σ(β r - β z_0) of a desirable, σ(β z_0 - β r) of an undesirable completion, r = log π - log π_ref
    (2402.01306, eq. 8; the λ of each kind is in its weights).

    `zero` is z_0, an estimate of KL(π ‖ π_ref) from mismatched prompts and completions, at least 0, without gradient.
    """
    r = logps_C - ref_C
    sign = torch.where(desirable_C > 0, 1.0, -1.0)
    value = torch.sigmoid(beta * sign * (r - zero))
    good, bad = weights_C * (desirable_C > 0), weights_C * (desirable_C <= 0)
    return (weights_C * (1 - value)).sum(), {
        "better_logp": (good * logps_C).sum().detach(), "worse_logp": (bad * logps_C).sum().detach(),
        "margin": beta * ((good - bad) * r).sum().detach(), "correct": (weights_C * (sign * (r - zero) > 0)).sum().detach()}


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, exact at both ends (Mächler 2012). Capped at x = -1e-6, where p is all but 1."""
    x = x.clamp(max=-1e-6)
    return torch.where(x > -0.6931, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def _metrics(better_E: Tensor, worse_E: Tensor, margin_E: Tensor, weights_E: Tensor) -> dict[str, Tensor]:
    correct = torch.where(margin_E == 0, 0.5, (margin_E > 0).to(margin_E.dtype))
    return {name: (weights_E * value).sum().detach() for name, value in (
        ("better_logp", better_E), ("worse_logp", worse_E), ("margin", margin_E), ("correct", correct))}
