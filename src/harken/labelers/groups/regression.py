"""Davidson regression: votes explained by linear scores under Gaussian priors, with the posterior's spread.

    d_n = x_n · w          P(a preferred, tie, b preferred) ∝ e^{d/2}, ν, e^{-d/2}          (Davidson 1970)

`w` may be one number per item, a few weights on features, or both with offsets per group: the columns of X decide.
With w ~ N(0, 1/precision) the log posterior is concave, so Newton finds its maximum; the Laplace approximation
there gives intervals (`draws`) and the log evidence by which priors are compared.

Shape suffixes: `N` votes, `D` weights, `S` draws, `A` labelers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Place = tuple[Floats, float]
"""Weights [D] and ln ν: where a search starts, and what is kept of a fit that is not needed whole."""
VARIANCE_DRAWS = 32
"""Draws from which variances are taken."""
TIE_SD = 3.0
"""Prior of ln ν: N(0, 3²), which says next to nothing."""


@dataclass(frozen=True)
class Davidson:
    """The maximum of the posterior and its curvature."""

    weights: Floats
    """[D]"""
    log_nu: float
    """ln ν; -inf where no vote is a tie."""
    log_likelihood: float
    log_evidence: float
    """Laplace: log ∫ P(votes | w, ν) p(w) p(ν)."""
    curve: Curvature
    """At the maximum."""

    @property
    def place(self) -> Place:
        return self.weights, self.log_nu

    def draws(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Samples of the Laplace posterior about its mean: weights [S, D] and ln ν [S].

        The mode lies nearer to 0 than the mean; the first-order term between them (Tierney and Kadane 1986) is added, or
        variances of offsets come out 15 % too small at 15 votes an item.
        """
        step, tie = self.curve.sample(max(count, VARIANCE_DRAWS), rng)
        return self.weights + self.curve.skew(step) + step[:count], self.log_nu + tie[:count]


def outcome_logps(d: Floats, log_nu: float | Floats) -> Floats:
    """log P of b preferred, a tie, a preferred: [..., 3]; index it with `won + 1`."""
    half = np.asarray(d, dtype=np.float64) / 2
    table = np.stack([-half, np.broadcast_to(log_nu, half.shape), half], -1)
    top = table.max(-1, keepdims=True)
    normal: Floats = table - top - np.log(np.exp(table - top).sum(-1, keepdims=True))
    return normal


def vote_logps(d: Floats, won: Ints, log_nu: float | Floats) -> Floats:
    """log P of what was voted, [N]."""
    return np.take_along_axis(outcome_logps(d, log_nu), (won + 1)[:, None], -1)[:, 0]


def outcome_odds(d: Floats, nu: Floats | float) -> tuple[Floats, Floats, Floats]:
    """[N] each: 1 + e^{-|d|} + ν e^{-|d|/2}, P(a) − P(b), P(tie): `outcome_logps` by one exponential. `nu` is ν."""
    root = np.exp(-np.abs(d) / 2)
    less, tie = root * root, nu * root
    whole = 1 + less + tie
    return whole, np.copysign(1 - less, d) / whole, tie / whole


class Curvature:
    """The negative Hessian [[X'VX + P, X'c], [c'X, q]] over (w, ln ν), factorised; the border is one column."""

    def __init__(self, x: sparse.csr_matrix, precision: Floats, logps: Floats, weight: Floats, ties: bool,
                 back: sparse.csr_matrix) -> None:
        p = np.exp(logps)
        mean, tie = p[:, 2] - p[:, 0], p[:, 1]
        self.x, self.back, self.precision, self.ties = x, back, precision, ties
        self.v = weight * (p[:, 2] + p[:, 0] - mean**2) / 4       # Var(o / 2), o = won
        self.c = -weight * mean * tie / 2                         # Cov(o / 2, tied)
        self.q = weight * tie * (1 - tie)
        self.third = weight * (mean - 3 * mean * (1 - tie) + 2 * mean**3) / 8  # third cumulant of o / 2: dv / dd
        scaled = sparse.csr_matrix((x.data * np.repeat(self.v, np.diff(x.indptr)), x.indices, x.indptr), shape=x.shape)
        inner = (back @ scaled + sparse.diags(precision)).tocsc()
        self.lu = splu(inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        self.border = back @ self.c
        self.solved = self.lu.solve(self.border)
        self.corner = self.q.sum() + TIE_SD**-2 - self.border @ self.solved

    def solve(self, g: Floats, g_tie: Floats | float) -> tuple[Floats, Any]:
        """H^{-1} (g, g_tie) for g [D] or [D, S]."""
        inner = self.lu.solve(np.ascontiguousarray(g))
        if not self.ties:
            return inner, np.zeros_like(g_tie)
        tie = (g_tie - self.border @ inner) / self.corner
        return inner - np.multiply.outer(self.solved, tie), tie

    def log_det(self) -> float:
        inner = float(np.log(np.abs(self.lu.U.diagonal())).sum())
        return inner + (math.log(self.corner) if self.ties else 0.0)

    def skew(self, steps: Floats) -> Floats:
        """[D] posterior mean less mode: −½ H^{-1} Σ_n v'_n Var(d_n) x_n, the variances from draws [S, D]."""
        variance = np.mean([(self.x @ step) ** 2 for step in steps], axis=0)
        shift: Floats = self.solve(self.x.T @ (self.third * variance) / -2, 0.0)[0]
        return shift

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """N(0, H^{-1}) by perturbing the gradient: H^{-1} z has that law where z ~ N(0, H)."""
        steps, ties = np.empty((count, self.x.shape[1])), np.zeros(count)
        for at in range(0, count, 50):  # in blocks: [N, S] of a million votes would not fit
            size = min(50, count - at)
            step, tie = self.solve(*self.kicks(size, rng))
            steps[at:at + size], ties[at:at + size] = step.T, tie
        return steps, ties

    def kicks(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draws of N(0, H): [D, S], and [S] in ln ν."""
        n, d = self.x.shape
        root = np.sqrt(self.v)
        cross = np.divide(self.c, root, out=np.zeros(n), where=root > 0)
        rest = np.sqrt(np.maximum(self.q - cross**2, 0))
        one, two = rng.standard_normal((n, count)), rng.standard_normal((n, count))
        g = self.back @ (root[:, None] * one) + np.sqrt(self.precision)[:, None] * rng.standard_normal((d, count))
        return g, np.asarray(cross @ one + rest @ two + rng.standard_normal(count) / TIE_SD)


def fit_davidson(x: sparse.csr_matrix, won: Ints, precision: Floats, *, weight: Floats | None = None,
                 tie_shift: Floats | None = None, start: Place | None = None, tolerance: float = 1e-8) -> Davidson:
    """Maximum a posteriori weights. `x` [N, D] sparse, `won` [N] in {1, 0, -1}, `precision` [D] all above 0.

    `weight` [N] counts each vote so often (responsibilities of a mixture); `tie_shift` [N] is added to ln ν (people who
    tie more readily). Plain Bradley–Terry where nothing is tied.
    """
    n, size = x.shape
    weight = np.ones(n) if weight is None else weight
    shift = np.zeros(n) if tie_shift is None else tie_shift
    tied = float(weight[won == 0].sum())
    ties = tied > 0
    w, log_nu = (np.zeros(size), 0.0) if start is None else (start[0].copy(), start[1] if math.isfinite(start[1]) else 0.0)
    log_nu = log_nu if ties else -math.inf
    back = x.T.tocsr()

    def likelihood(logps: Floats) -> float:
        return float(weight @ np.take_along_axis(logps, (won + 1)[:, None], -1)[:, 0])

    def objective(w: Floats, log_nu: float) -> tuple[float, Floats]:
        logps = outcome_logps(x @ w, log_nu + shift)
        return likelihood(logps) - float(precision @ w**2) / 2 - ((log_nu / TIE_SD) ** 2 / 2 if ties else 0.0), logps

    value, logps = objective(w, log_nu)
    for _ in range(60):
        curve = Curvature(x, precision, logps, weight, ties, back)
        p = np.exp(logps)
        gradient = back @ (weight * (won - p[:, 2] + p[:, 0])) / 2 - precision * w
        tie_gradient = tied - float(weight @ p[:, 1]) - log_nu / TIE_SD**2 if ties else 0.0
        step, tie_step = curve.solve(gradient, tie_gradient)
        if max(np.abs(step).max(initial=0.0), abs(tie_step)) < tolerance:
            break
        scale = 1.0
        while True:
            new, new_logps = objective(w + scale * step, log_nu + scale * tie_step if ties else log_nu)
            if new >= value - 1e-12 * abs(value) or scale < 1e-6:
                break
            scale /= 2
        w, log_nu = w + scale * step, log_nu + scale * tie_step if ties else log_nu
        value, logps = new, new_logps
    evidence = value + float(np.log(precision).sum()) / 2 - curve.log_det() / 2 - (math.log(TIE_SD) if ties else 0.0)
    return Davidson(w, float(log_nu), likelihood(logps), evidence, curve)


SPREAD_RANGE = {"beta": (0.1, 1.5), "indifference": (0.05, 3.0)}
"""The least and the greatest spread that labelers are taken to have in each trait."""


@dataclass(frozen=True)
class LabelerTraits:
    """How each labeler votes, whatever the scores are."""

    beta: Floats
    """[A] rationality. 0: votes at random; negative: the scale upside down."""
    beta_sd: Floats
    """[A] its posterior standard deviation (Laplace)."""
    indifference: Floats
    """[A] how much more readily than others a labeler ties: ν_k = ν exp(indifference_k); 0 where nobody ties."""


def fit_labeler_traits(d: Floats, won: Ints, labeler: Ints, labelers: int, log_nu: float, offset: Floats) -> LabelerTraits:
    """Each labeler's traits in P(won | β d + offset, ln ν + indifference), maximum a posteriori, by Newton on all at once.

    `offset` [N] is what does not scale with β (a position bias). The priors are β ~ N(1, ω²), indifference ~ N(0, ψ²), with
    ω and ψ learnt from all labelers by EM: wide fixed ones take noise for differences between people, and make the
    intervals of the scores too narrow.
    """
    active = np.bincount(labeler, minlength=labelers) > 0
    beta: Floats = np.ones(labelers)
    indifference: Floats = np.zeros(labelers)
    bend: Floats = np.ones(labelers)
    omega, psi, ties = 0.75, 0.75, math.isfinite(log_nu)
    for _ in range(25):
        _, mean, tie = outcome_odds(beta[labeler] * d + offset, np.exp(log_nu + indifference)[labeler])
        slope = np.bincount(labeler, d * (won - mean) / 2, labelers) - (beta - 1) / omega**2
        bend = np.asarray(np.bincount(labeler, d**2 * (1 - tie - mean**2) / 4, labelers) + omega**-2, dtype=np.float64)
        beta = np.asarray(np.clip(beta + np.clip(slope / bend, -1, 1), -4, 5), dtype=np.float64)
        omega = _width(beta - 1, bend, active, *SPREAD_RANGE["beta"])
        if ties:
            slope = np.bincount(labeler, (won == 0) - tie, labelers) - indifference / psi**2
            stiff = np.asarray(np.bincount(labeler, tie * (1 - tie), labelers) + psi**-2, dtype=np.float64)
            indifference = np.asarray(np.clip(indifference + np.clip(slope / stiff, -1, 1), -6, 6), dtype=np.float64)
            psi = _width(indifference, stiff, active, *SPREAD_RANGE["indifference"])
    return LabelerTraits(beta, 1 / np.sqrt(bend), indifference)


def _width(deviation: Floats, bend: Floats, active: NDArray[np.bool_], least: float, most: float) -> float:
    """EM's update of a prior's standard deviation."""
    return min(max(float(np.sqrt(np.mean((deviation**2 + 1 / bend)[active]))), least), most)
