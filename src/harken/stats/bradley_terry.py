"""Bradley–Terry scores from comparisons: P(i beats j) = sigma(theta_i - theta_j), mean theta 0.

Ties are two half-wins, or an outcome of their own (Davidson 1970):
P(tie) = nu sqrt(pi_i pi_j) / (pi_i + pi_j + nu sqrt(pi_i pi_j)) with pi = e^theta.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]
LARGEST_GAP = 40.0  # a score gap that no data supports: the likelihood has no maximum


@dataclass(frozen=True)
class BradleyTerry:
    """`scores` [N] in natural-log odds, mean 0 (times 400/ln 10 for Elo points); `tie` is Davidson's nu."""

    scores: Floats
    tie: float
    log_likelihood: float

    def probability(self, i: int, j: int) -> float:
        """P(i beats j), ties apart."""
        a, b = np.exp([(self.scores[i] - self.scores[j]) / 2, (self.scores[j] - self.scores[i]) / 2])
        return float(a / (a + b + self.tie))


def count_wins(pairs: Iterable[tuple[int, int]], n: int) -> Floats:
    """Matrix [N, N] of how often i beat j, from (winner, loser) index pairs."""
    wins = np.zeros((n, n))
    for winner, loser in pairs:
        wins[winner, loser] += 1
    return wins


def _named(members: NDArray[np.intp], names: Sequence[str] | None) -> str:
    shown = [str(names[i]) if names else str(i) for i in members[:5]]
    return ", ".join(shown) + (f" and {len(members) - 5} more" if len(members) > 5 else "")


def check_connected(wins: Floats, names: Sequence[str] | None = None) -> None:
    """Raises ValueError when no finite scores exist, naming the items (Ford 1957).

    Either no comparison links two groups of items, or one group won every comparison with the rest.
    """
    count, label = connected_components(wins > 0, directed=True, connection="weak")
    if count > 1:
        groups = "; ".join(f"[{_named(np.flatnonzero(label == g), names)}]" for g in range(min(count, 4)))
        raise ValueError(f"the comparisons fall into {count} groups with none between them: {groups}"
                         f"{' …' if count > 4 else ''}. Compare items across groups, or fit each group alone")
    count, label = connected_components(wins > 0, directed=True, connection="strong")
    for group in range(count):
        members = label == group
        won, lost = wins[members][:, ~members].sum(), wins[~members][:, members].sum()
        if count > 1 and (won == 0 or lost == 0):
            word = "lost" if won == 0 else "won"
            raise ValueError(f"[{_named(np.flatnonzero(members), names)}] {word} every comparison with the rest, "
                             "so its score is infinite. Add comparisons, or pass prior=0.1")


def bradley_terry(wins: Floats, ties: Floats | None = None, *, tie_model: Literal["half", "davidson"] = "half",
                  method: Literal["mm", "newton"] = "newton", prior: float = 0.0, tolerance: float = 1e-10,
                  max_steps: int = 10_000, names: Sequence[str] | None = None) -> BradleyTerry:
    """Maximum-likelihood scores. `wins[i, j]` counts how often i beat j; `ties` [N, N] is symmetric.

    `prior` adds that many wins each way to every compared pair (a finite answer from lopsided data).
    "mm" is Hunter's (2004) minorise-maximise iteration, plain Bradley–Terry only; "newton" does both models.
    Raises ValueError when the comparison graph is disconnected or the likelihood has no maximum.
    """
    w = np.array(wins, dtype=np.float64)
    t = np.zeros_like(w) if ties is None else np.array(ties, dtype=np.float64)
    if w.ndim != 2 or w.shape[0] != w.shape[1] or t.shape != w.shape:
        raise ValueError(f"wins and ties must be square and of one size, found {w.shape} and {t.shape}")
    if not (np.isfinite(w).all() and np.isfinite(t).all() and (w >= 0).all() and (t >= 0).all()):
        raise ValueError("wins and ties must be finite counts, 0 or more")
    if np.diag(w).any() or np.diag(t).any() or not np.array_equal(t, t.T):
        raise ValueError("an item is compared with itself, or ties[i, j] differs from ties[j, i]")
    w += prior * ((w + w.T + t) > 0)
    if tie_model == "half":
        w, t = w + t / 2, np.zeros_like(t)
    check_connected(w + t, names)
    if len(w) == 1:
        return BradleyTerry(np.zeros(1), 0.0, 0.0)
    if method == "mm":
        if t.any():
            raise ValueError('method "mm" has no Davidson ties; use method="newton"')
        return _mm(w, tolerance, max_steps)
    return _newton(w, t, tolerance)


def _log_probabilities(theta: Floats, log_nu: float) -> tuple[Floats, Floats]:
    """log P(i beats j) and log P(i ties j), both [N, N]."""
    half = (theta[:, None] - theta[None, :]) / 2
    norm = np.logaddexp(np.logaddexp(half, -half), log_nu)
    return half - norm, log_nu - norm


def _mm(w: Floats, tolerance: float, max_steps: int) -> BradleyTerry:
    games, won = w + w.T, w.sum(1)
    theta = np.zeros(len(w))
    for _ in range(max_steps):
        pi = np.exp(theta)
        new = np.log(won / (games / (pi[:, None] + pi[None, :])).sum(1))
        new -= new.mean()
        moved, theta = float(np.abs(new - theta).max()), new
        if moved < tolerance:
            return BradleyTerry(theta, 0.0, float((w * _log_probabilities(theta, -np.inf)[0]).sum()))
    raise ValueError(f"no convergence in {max_steps} steps (still moving by {moved:.1e}); use method=\"newton\"")


def _newton(w: Floats, t: Floats, tolerance: float) -> BradleyTerry:
    """Newton on (theta, log nu): a log-linear model, so the log-likelihood is concave."""
    n, davidson = len(w), bool(t.any())
    games, tied = w + w.T + t, t.sum() / 2

    def loss(x: Floats) -> float:
        log_win, log_tie = _log_probabilities(x[:n], x[n] if davidson else -np.inf)
        return -float((w * log_win).sum()) - (float((t * log_tie).sum()) / 2 if davidson else 0.0)

    x = np.zeros(n + davidson)
    for _ in range(200):
        log_win, log_tie = _log_probabilities(x[:n], x[n] if davidson else -np.inf)
        p, q = np.exp(log_win), np.exp(log_tie)
        # The score of i in a comparison is +1/2 won, -1/2 lost, 0 tied; its variance weighs the Hessian.
        gradient = ((w - w.T) / 2 - games * (p - p.T) / 2).sum(1)
        spread = games * ((p + p.T) - (p - p.T) ** 2) / 4
        hessian = np.diag(spread.sum(1)) - spread
        if davidson:
            cross = -(games * q * (p - p.T) / 2).sum(1)
            corner = np.full((1, 1), (games * q * (1 - q)).sum() / 2)
            hessian = np.block([[hessian, cross[:, None]], [cross[None, :], corner]])
            gradient = np.append(gradient, tied - (games * q).sum() / 2)
        hessian[:n, :n] += hessian[:n, :n].trace() / n / n  # fixes the gauge: a common shift of theta is free
        curvature = np.linalg.eigvalsh(hessian)
        if curvature[0] < 1e-9 * curvature[-1]:  # flat: the maximum lies at infinity
            break
        step = np.linalg.solve(hessian, gradient)
        before, scale = loss(x), 1.0
        while loss(x + scale * step) > before + 1e-12 * abs(before) and scale > 1e-6:
            scale /= 2
        x = x + scale * step
        x[:n] -= x[:n].mean()
        if np.abs(x).max() > LARGEST_GAP:
            break
        if np.abs(scale * step).max() < tolerance:
            return BradleyTerry(x[:n], float(np.exp(x[n])) if davidson else 0.0, -loss(x))
    raise ValueError("the likelihood has no maximum: scores run away. Add comparisons, or pass prior=0.1")
