"""Draws from a Laplace approximation N(mode, H^-1), H = J' W J + P, at any size.

H is the Fisher information of the votes (J [N, P] sparse: how each vote's log-odds move with each parameter; W [N]:
its variance) plus the priors' precision. Up to `MOST_DENSE` parameters a Cholesky factor draws exactly. Beyond, each draw
is what the mode would move by if data and priors were drawn again (Papandreou and Yuille 2010): it solves
H x = J' W^(1/2) e + P^(1/2) e', whose covariance is H^-1, by conjugate gradients.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

Floats = NDArray[np.float64]
MOST_DENSE = 3000
CHUNK = 32  # draws at a time: [N, 32] floats are what memory has to hold


def information(jacobian: sparse.csr_array, weights: Floats, precision: Floats) -> sparse.csc_array:
    """H [P, P]."""
    return sparse.csc_array(jacobian.T @ (jacobian * weights[:, None]) + sparse.diags_array(precision))


def draw(jacobian: sparse.csr_array, weights: Floats, precision: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """[draws, P] of N(0, H^-1). `precision` [P] must make H positive definite."""
    h = information(jacobian, weights, precision)
    if h.shape[0] <= MOST_DENSE:
        factor = linalg.cholesky(h.toarray(), lower=True)
        white = rng.standard_normal((h.shape[0], draws))
        return np.asarray(linalg.solve_triangular(factor, white, trans="T", lower=True).T)
    solved = []
    for start in range(0, draws, CHUNK):
        count = min(CHUNK, draws - start)
        noise = jacobian.T @ (np.sqrt(weights)[:, None] * rng.standard_normal((jacobian.shape[0], count)))
        noise = noise + np.sqrt(precision)[:, None] * rng.standard_normal((h.shape[0], count))
        solved.append(conjugate_gradients(sparse.csr_array(h), noise).T)
    return np.concatenate(solved)


def conjugate_gradients(h: sparse.csr_array, b: Floats, tolerance: float = 1e-4, most: int = 500) -> Floats:
    """Solves H x = b for all columns of b [P, R] at once, preconditioned by the diagonal, to `tolerance` of each ‖b‖."""
    scale = 1 / h.diagonal()[:, None]
    x = scale * b
    r = b - h @ x
    z = scale * r
    p, rho = z, (r * z).sum(0)
    goal = (tolerance**2) * (b * scale * b).sum(0)
    for _ in range(most):
        if (rho <= goal).all():
            break
        hp = h @ p
        step = rho / np.maximum((p * hp).sum(0), 1e-300)
        x = x + step * p
        r = r - step * hp
        z = scale * r
        new = (r * z).sum(0)
        p, rho = z + new / np.maximum(rho, 1e-300) * p, new
    return np.asarray(x)
