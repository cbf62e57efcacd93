"""Bradley–Terry with given weights, and how far leaving out some of its votes can move any answer's score.

    fit = Weighted(votes, phi=None, sigma=1.0)
    x = fit.solve(weight)                     # mode of sum w log P(vote) - |x|^2 / (2 sigma^2); Davidson's ties, nu held
    fit.moves(x, weight, members)             # [U] at least the largest change of a score without each unit's votes

The bound is proven, no estimate. Let g be the gradient of the votes of unit u at the mode x, and y the mode without them. Then
x - y = K g with K the inverse of the mean curvature between x and y without u.

- Free scores: K's inverse is 1 / sigma^2 plus a Laplacian, an M-matrix: K has no entry below 0 and rows that sum to sigma^2. So
  no score moves by more than sigma^2 max |g|.
- Features: log P has |f'''| <= f'' in the log-odds (a third cumulant of a value of range 1), so that the curvature falls by at
  most e^-r over a move of r log-odds (Bach 2010, self-concordance). With a = |g| and b = the largest |x_a - x_b| of a vote, in
  the norm of the inverse curvature at x without u, and q = a b < 1: a score phi x moves by at most |phi| a (-ln(1 - q) / q).
  For q >= 1 the prior's curvature alone bounds it: |phi| a sigma^2 in the plain norm.

Shape suffixes: `N` votes, `I` items, `A` labelers, `D` columns, `U` units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from harken.labelers.models.likelihood import Floats, Ints, davidson, davidson_table
from harken.labelers.votes import Votes

STEPS, PRECISION = 100, 1e-10


class Weighted:
    """One model of all votes. With `phi` [I, D] scores are phi x (its mean over items taken out), else free. `sigma` is the prior
    standard deviation of a score. `place` adds the crowd's pull towards what was shown first."""

    def __init__(self, votes: Votes, phi: Floats | None = None, sigma: float = 1.0, place: bool = False) -> None:
        self.votes, self.free, self.sigma = votes, phi is None, sigma
        n, items = len(votes), len(votes.items)
        self.phi: Any = sparse.eye_array(items, format="csr") if phi is None else phi - phi.mean(0)
        self.design: Any = self.phi[votes.a] - self.phi[votes.b]
        size = 1.0 if phi is None else max(float(np.sqrt((self.design**2).sum(1).mean() / 2)), 1e-9)
        self.columns = int(self.design.shape[1])
        self.precision = np.full(self.columns, (size / sigma) ** 2)
        if place:
            first = votes.first.astype(np.float64)[:, None]
            self.design = sparse.csr_array(sparse.hstack([self.design, first])) if self.free else np.hstack([self.design, first])
            self.precision = np.append(self.precision, 1.0)
        self.log_nu = -np.inf
        if (ties := float((votes.won == 0).mean())) > 0:
            self.log_nu = float(np.log(2 * ties / max(1 - ties, 1 / n)))

    def odds(self, x: Floats) -> Floats:
        """[N] log-odds of a over b."""
        return np.asarray(self.design @ x)

    def terms(self, eta: Floats) -> tuple[Floats, Floats, Floats]:
        """log P, its first derivative by the log-odds and minus its second, [N] each."""
        logp, slope, _ = davidson(eta, self.log_nu, self.votes.won)
        p = davidson_table(eta, self.log_nu)
        return logp, slope, (p[:, 0] + p[:, 2] - (p[:, 0] - p[:, 2]) ** 2) / 4

    def solve(self, weight: Floats, start: Floats | None = None) -> Floats:
        """The mode under votes' weights [N], by Newton's method."""
        x = np.zeros(len(self.precision)) if start is None else start
        value, slope, curve = self._at(x, weight)
        for _ in range(STEPS):
            gradient = self.design.T @ (weight * slope) - self.precision * x
            step = self.solve_linear(self.curvature(weight * curve), gradient)
            gain = float(gradient @ step)
            if gain < PRECISION**2:
                break
            size = 1.0
            while True:
                trial = x + size * step
                found = self._at(trial, weight)
                if found[0] >= value + 1e-4 * size * gain or size < 1e-6:
                    break
                size /= 2
            x, (value, slope, curve) = trial, found
            if size * np.abs(step).max() < PRECISION:
                break
        return x

    def fit_ties(self, weight: Floats) -> Floats:
        """The mode, and nu such that as many ties are expected as were given; nu is held from then on."""
        x = self.solve(weight)
        for _ in range(8):
            if not np.isfinite(self.log_nu):
                break
            expected = float(weight @ davidson_table(self.odds(x), self.log_nu)[:, 1])
            seen = float(weight @ (self.votes.won == 0))
            step = float(np.log(max(seen, 1e-9) / max(expected, 1e-9)))
            self.log_nu = float(np.clip(self.log_nu + step, -20, 20))
            x = self.solve(weight, x)
            if abs(step) < 1e-4:
                break
        return x

    def scores(self, x: Floats) -> Floats:
        """[I]"""
        return np.asarray(self.phi @ x[:self.columns])

    def curvature(self, weight: Floats) -> Any:
        """[D, D]: the prior's precision and the votes' information of these weights [N]."""
        if self.free:
            table = self.design.T @ sparse.diags_array(weight) @ self.design + sparse.diags_array(self.precision)
            return sparse.csc_array(table)
        return (self.design.T * weight) @ self.design + np.diag(self.precision)

    def moves(self, x: Floats, weight: Floats, rows: Sequence[Ints]) -> Floats:
        """[U] no score moves further when the votes `rows` of the unit are left out: proven, see above."""
        _, slope, curve = self._at(x, weight)
        pull = weight * slope
        if self.free:
            return np.array([self._free_move(pull, own) for own in rows])
        whole = self.curvature(weight * curve)
        return np.array([self._feature_move(whole, pull, weight * curve, own) for own in rows])

    def _free_move(self, pull: Floats, own: Ints) -> float:
        both = np.concatenate([self.votes.a[own], self.votes.b[own]])
        items, index = np.unique(both, return_inverse=True)
        if not len(items):
            return 0.0
        gradient = np.bincount(index.ravel(), np.concatenate([pull[own], -pull[own]]), len(items))
        return float(np.abs(gradient).max() / self.precision[0])

    def _feature_move(self, whole: Floats, pull: Floats, curve: Floats, own: Ints) -> float:
        mine = self.design[own]
        gradient = mine.T @ pull[own]
        plain = float(np.linalg.norm(gradient) * np.linalg.norm(self.phi, axis=1).max() / self.precision[0])
        root = np.linalg.cholesky(whole - (mine.T * curve[own]) @ mine)
        a = float(np.linalg.norm(np.linalg.solve(root, gradient)))
        b = float(np.sqrt((np.linalg.solve(root, self.design.T) ** 2).sum(0).max()))
        far = float(np.sqrt((np.linalg.solve(root, self.phi.T) ** 2).sum(0).max()))
        q = a * b
        if q >= 1:
            return plain
        return min(plain, far * a * (-np.log1p(-q) / q if q > 1e-9 else 1.0))

    def _at(self, x: Floats, weight: Floats) -> tuple[float, Floats, Floats]:
        logp, slope, curve = self.terms(self.odds(x))
        return float(weight @ logp - 0.5 * self.precision @ x**2), slope, curve

    def solve_linear(self, table: Any, right: Floats) -> Floats:
        """[D] of a curvature [D, D] and a gradient."""
        return np.asarray(splu(table).solve(right) if self.free else np.linalg.solve(table, right))
