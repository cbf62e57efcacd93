"""Markov chain Monte Carlo for `scores.py`: joint draws of scores, rationalities, indifferences and their spreads.

    d_n = β_ag (s_g(a) − s_g(b)) + position · first_n,   s_g = μ + δ_g = φ · (w_0 + w_g)
    w_0 ~ N(0, σ²)   w_g ~ N(0, τ²)   β_ag ~ N(1, ω²)   indifference_ag ~ N(0, ψ²)     flat: τ, ω, ψ, ln σ

A sweep draws in turn, each exactly (what is not drawn from its law is accepted or refused by Metropolis' rule):

- w, position and ln ν by Hamiltonian steps whose masses are the Laplace curvature (Neal 2011): so the posterior is nearly round,
  whatever the number of items;
- β and indifference of every labeler, from the normal law that one Newton step proposes;
- τ, σ, ω, ψ from their conditionals on a grid, and τ once more with w_g / τ held (Yu and Meng 2011), or small ones would stick;
- a common factor c: a group's rationalities times c with its scores over c, and the same for everybody. No vote becomes more or
  less likely by it, and the steps above, which move scores and rationalities in turn, would find such changes slowly.

Shape suffixes: `R` votes once for each group their labeler may belong to, `J` couples (labeler, group), `F` features, `K` groups,
`D` = (1 + K) F + 1 weights, `S` draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from harken.labelers.groups.regression import SPREAD_RANGE, TIE_SD, Curvature, Floats, Ints, outcome_odds

TAU = np.geomspace(0.02, 4.0, 200)
SIGMA = np.geomspace(0.1, 10.0, 200)
OMEGA = np.geomspace(*SPREAD_RANGE["beta"], 60)
PSI = np.geomspace(*SPREAD_RANGE["indifference"], 60)
FACTOR_SD = 0.1
"""Spread of the logarithm of a proposed common factor."""
FACTOR_MOVES = 3
SMALLEST_STEP, LARGEST_STEP = 0.05, 1.5
"""Least and greatest size of a Hamiltonian step."""


def effective(draws: Floats) -> float:
    """How many independent draws a chain's draws [S] are worth: S over the sum of autocorrelations, by pairs while above 0
    (Geyer 1992)."""
    x, n = draws - draws.mean(), len(draws)
    power = np.fft.rfft(x, 2 * n)
    covariance = np.fft.irfft(power * power.conj())[:n]
    if n < 4 or covariance[0] <= 0:
        return float(n)
    pairs = (covariance[:n // 2 * 2] / covariance[0]).reshape(-1, 2).sum(1)
    ends = int(np.argmax(pairs < 0)) if (pairs < 0).any() else len(pairs)
    return n / max(2 * float(pairs[:ends].sum()) - 1, 1.0)


def credible(draws: Floats, level: float, worth: float) -> tuple[float, float]:
    """The ends between which a further draw lies with chance `level`, by draws [S] worth `worth` independent ones.

    Beyond quantile q of n draws lies on average not q but (1 + q (n − 1)) / (n + 1): 30 draws' 90 % hold 84.
    """
    out = (1 - level) / 2
    q = max((out * (worth + 1) - 1) / max(worth - 1, 1.0), 0.0)
    low, high = np.quantile(draws, [q, 1 - q])
    return float(low), float(high)


@dataclass(frozen=True)
class Evidence:
    """The votes as rows."""

    diff: sparse.csr_matrix
    """[R, (1 + K) F] features of a less those of b, under the shared weights and under the group's."""
    back: sparse.csr_matrix
    """Its transpose."""
    first: Floats
    won: Ints
    weight: Floats
    pair: Ints
    """[R] which couple (labeler, group)."""
    group: Ints
    """[J]"""
    groups: int

    @property
    def width(self) -> int:
        return int(self.diff.shape[1]) // (1 + self.groups if self.groups > 1 else 1)


@dataclass
class State:
    """The chain's present draw."""

    w: Floats
    """[D]"""
    log_nu: float
    beta: Floats
    """[J]"""
    indifference: Floats
    """[J] ln ν beyond everybody's."""
    tau: float
    sigma: float
    omega: float = 0.5
    psi: float = 0.5


@dataclass
class Chain:
    """One chain. `free_tau` is off where there is to be no difference between groups; `noise` off holds rationalities."""

    data: Evidence
    state: State
    curve: Curvature
    rng: np.random.Generator
    noise: bool = True
    free_tau: bool = True
    step: float = 0.5
    accepted: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tied = (self.data.won == 0).astype(np.float64)
        self.ties = bool(self.tied.any())
        self.size = self.data.diff.shape[1]
        counts = np.bincount(self.data.group, minlength=self.data.groups)
        self.members = [np.flatnonzero(self.data.group == g) for g in range(len(counts))]

    # --- the likelihood ---

    def _odds(self, d: Floats, log_nu: Floats) -> tuple[Floats, Floats, Floats]:
        """`outcome_odds` of every vote; `log_nu` [J]."""
        return outcome_odds(d, np.exp(log_nu)[self.data.pair] if self.ties else 0.0)

    def _logp(self, d: Floats, log_nu: Floats, z: Floats) -> Floats:
        """[R] log P of what was voted."""
        logp: Floats = (self.data.won * d - np.abs(d)) / 2 - np.log(z)
        return logp + self.tied * log_nu[self.data.pair] if self.ties else logp

    def _d(self, w: Floats, beta: Floats) -> tuple[Floats, Floats]:
        """[R] what rationality multiplies, and the log-odds."""
        base = np.asarray(self.data.diff @ w[:-1])
        return base, beta[self.data.pair] * base + w[-1] * self.data.first

    def _precision(self, tau: float, sigma: float) -> Floats:
        return np.concatenate([np.full(self.data.width, sigma**-2), np.full(self.size - self.data.width, tau**-2), np.ones(1)])

    # --- the sweep ---

    def sweep(self) -> None:
        self._weights()
        if self.noise:
            self._traits()
            for _ in range(FACTOR_MOVES):
                self._common_factors()
        self._spreads()

    def _gradient(self, w: Floats, log_nu: float, precision: Floats, *, valued: bool = True) -> tuple[float, Floats, float]:
        """Log posterior of w and ln ν (0 unless `valued`), and its slopes."""
        s, e = self.state, self.data
        d, value = self._d(w, s.beta)[1], 0.0
        z, mean, tie = self._odds(d, log_nu + s.indifference)
        pull = e.weight * (e.won - mean) / 2
        slope = np.append(e.back @ (s.beta[e.pair] * pull), pull @ e.first) - precision * w
        if valued:
            value = float(e.weight @ self._logp(d, log_nu + s.indifference, z)) - float(precision @ w**2) / 2
            value -= (log_nu / TIE_SD) ** 2 / 2 if self.ties else 0.0
        pull_tie = float(e.weight @ (self.tied - tie)) - log_nu / TIE_SD**2 if self.ties else 0.0
        return value, slope, pull_tie

    def _weights(self) -> None:
        s, precision = self.state, self._precision(self.state.tau, self.state.sigma)
        size = self.step * self.rng.uniform(0.8, 1.2)
        count = max(2, round(np.pi / 2 / size))
        w, nu = s.w, s.log_nu
        value, slope, tie = self._gradient(w, nu, precision)
        kick, kick_tie = self.curve.kicks(1, self.rng)
        p, p_tie = kick[:, 0], float(kick_tie[0])
        v, v_tie = self.curve.solve(p, p_tie)
        start = value - float(p @ v + p_tie * v_tie) / 2
        for left in reversed(range(count)):
            p, p_tie = p + size / 2 * slope, p_tie + size / 2 * tie
            v, v_tie = self.curve.solve(p, p_tie)
            w, nu = w + size * v, nu + size * float(v_tie)
            value, slope, tie = self._gradient(w, nu, precision, valued=left == 0)
            p, p_tie = p + size / 2 * slope, p_tie + size / 2 * tie
        v, v_tie = self.curve.solve(p, p_tie)
        chance = float(np.exp(min(0.0, value - float(p @ v + p_tie * v_tie) / 2 - start)))
        self.accepted.append(chance)
        if self.rng.random() < chance:
            s.w, s.log_nu = w, nu

    def _newton(self, base: Floats, beta: Floats, indifference: Floats) -> tuple[Floats, Floats, Floats]:
        """[J] log posterior of each couple's traits, the [J, 2] place one Newton step leads to, its [3, J] curvature."""
        s, e, n = self.state, self.data, len(beta)
        d = beta[e.pair] * base + s.w[-1] * e.first
        z, mean, tie = self._odds(d, s.log_nu + indifference)
        prior = ((beta - 1) / s.omega) ** 2 / 2 + (indifference / s.psi) ** 2 / 2
        value = np.bincount(e.pair, self._logp(d, s.log_nu + indifference, z), n) - prior
        slope = np.bincount(e.pair, base * (e.won - mean) / 2, n) - (beta - 1) / s.omega**2
        stiff = np.bincount(e.pair, base**2 * (1 - tie - mean**2) / 4, n) + s.omega**-2
        if not self.ties:
            return value, np.stack([beta + slope / stiff, np.zeros(n)], 1), np.stack([stiff, np.zeros(n), np.ones(n)])
        slope_tie = np.bincount(e.pair, self.tied - tie, n) - indifference / s.psi**2
        stiff_tie = np.bincount(e.pair, tie * (1 - tie), n) + s.psi**-2
        cross = -np.bincount(e.pair, base * mean * tie, n) / 2
        det = stiff * stiff_tie - cross**2
        one, two = (stiff_tie * slope - cross * slope_tie) / det, (stiff * slope_tie - cross * slope) / det
        return value, np.stack([beta + one, indifference + two], 1), np.stack([stiff, cross, stiff_tie])

    def _traits(self) -> None:
        s = self.state
        base = np.asarray(self.data.diff @ s.w[:-1])

        def density(x: Floats, place: Floats, h: Floats) -> Floats:
            one, two = (x - place).T
            return np.asarray(np.log(h[0] * h[2] - h[1]**2) / 2 - (h[0] * one**2 + 2 * h[1] * one * two + h[2] * two**2) / 2)

        old = np.stack([s.beta, s.indifference], 1)
        value, place, h = self._newton(base, s.beta, s.indifference)
        z = self.rng.standard_normal((2, len(s.beta)))
        one = z[0] / np.sqrt(h[0] - h[1]**2 / h[2])  # its marginal; the other given it
        two = z[1] / np.sqrt(h[2]) - h[1] / h[2] * one if self.ties else np.zeros_like(one)
        new = place + np.stack([one, two], 1)
        value_new, place_new, h_new = self._newton(base, new[:, 0], new[:, 1])
        ratio = value_new - value + density(old, place_new, h_new) - density(new, place, h)
        keep = np.log(self.rng.random(len(ratio))) < ratio
        s.beta, s.indifference = np.where(keep, new[:, 0], s.beta), np.where(keep, new[:, 1], s.indifference)

    def _common_factors(self) -> None:
        """A group's rationalities times c and its scores over c; then everybody's, with σ and τ.

        No vote becomes more or less likely.
        """
        s, f, k = self.state, self.data.width, self.data.groups
        for g in range(k if k > 1 and self.free_tau else 0):
            at, part = self.members[g], slice((1 + g) * f, (2 + g) * f)
            log_c = FACTOR_SD * self.rng.standard_normal()
            c, w = np.exp(log_c), s.w[part]
            moved = (s.w[:f] + w) / c - s.w[:f]
            gain = ((s.beta[at] - 1)**2 - (c * s.beta[at] - 1)**2).sum() / 2 / s.omega**2 + (w @ w - moved @ moved) / 2 / s.tau**2
            if np.log(self.rng.random()) < gain + (len(at) - f) * log_c:
                s.beta[at] *= c
                s.w[part] = moved
        log_c = FACTOR_SD * self.rng.standard_normal()
        c = np.exp(log_c)
        gain = ((s.beta - 1)**2 - (c * s.beta - 1)**2).sum() / 2 / s.omega**2
        tau = s.tau / c if self.free_tau else s.tau
        if not (SIGMA[0] < s.sigma / c < SIGMA[-1] and (not self.free_tau or TAU[0] < tau < TAU[-1])):
            return
        # w / σ keeps its density, dw's factor cancels σ's and τ's; ln σ is flat, τ is: 1 / c
        if not self.free_tau and k > 1:
            rest = s.w[f:-1]
            gain += float(rest @ rest) * (1 - c**-2) / 2 / s.tau**2 - len(rest) * log_c
        if np.log(self.rng.random()) < gain + (len(s.beta) - (1 if self.free_tau and k > 1 else 0)) * log_c:
            s.beta, s.sigma, s.tau = s.beta * c, s.sigma / c, tau
            s.w = np.append(s.w[:-1] / c, s.w[-1])

    def _spreads(self) -> None:
        s, f = self.state, self.data.width
        s.sigma = self._spread(SIGMA, float(s.w[:f] @ s.w[:f]), f, flat=False)
        if self.noise:
            s.omega = self._spread(OMEGA, float(((s.beta - 1) ** 2).sum()), len(s.beta))
            s.psi = self._spread(PSI, float((s.indifference**2).sum()), len(s.indifference))
        if not self.free_tau or self.data.groups < 2:
            return
        rest = s.w[f:-1]
        s.tau = self._spread(TAU, float(rest @ rest), len(rest))
        now = self._likelihood(s.w)
        for _ in range(2):
            tau = s.tau * np.exp(self.rng.normal(0, 0.15))
            if not TAU[0] < tau < TAU[-1]:
                continue
            w = np.concatenate([s.w[:f], s.w[f:-1] * tau / s.tau, s.w[-1:]])
            then = self._likelihood(w)
            if np.log(self.rng.random()) < then - now + np.log(tau / s.tau):
                s.w, s.tau, now = w, float(tau), then

    def _likelihood(self, w: Floats) -> float:
        s, e = self.state, self.data
        d, log_nu = self._d(w, s.beta)[1], s.log_nu + s.indifference
        return float(e.weight @ self._logp(d, log_nu, self._odds(d, log_nu)[0]))

    def _spread(self, grid: Floats, squares: float, count: int, *, flat: bool = True) -> float:
        """A draw of a standard deviation given the sum of `count` squares; flat in it, or in its logarithm."""
        logp = -count * np.log(grid) - squares / 2 / grid**2 + (np.log(grid) if flat else 0.0)  # the grid is geometric
        p = np.exp(logp - logp.max()).cumsum()
        step = np.log(grid[1] / grid[0])
        at = min(int(np.searchsorted(p, self.rng.random() * p[-1])), len(grid) - 1)
        return float(np.clip(grid[at] * np.exp(step * self.rng.uniform(-0.5, 0.5)), grid[0], grid[-1]))

    def warm(self, sweeps: int) -> None:
        """Sweeps that are thrown away, in which the step comes to accept four in five."""
        for _ in range(sweeps):
            self.sweep()
            self.step = float(np.clip(self.step * np.exp(0.3 * (self.accepted[-1] - 0.8)), SMALLEST_STEP, LARGEST_STEP))
