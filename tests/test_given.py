"""Labelers' traits under scores that are given: planted truth, coverage, the closed form of two options."""

import numpy as np
import pytest
from scipy.optimize import minimize

from harken.labelers.models.given import Ranked, fit_traits


def planted(seed, people=20, each=40, options=4, noise=0.0):
    """Rankings by Gumbel noise about beta_k score + length_k size; utilities nearer than `noise` tie."""
    rng = np.random.default_rng(seed)
    beta, length = rng.normal(1, 1, people), rng.normal(0, 0.3, people)
    rows = []
    for k in range(people):
        for _ in range(each):
            s, z = rng.normal(0, 1, options), rng.normal(0, 1, options)
            felt = beta[k] * s + length[k] * (z - z.mean()) + rng.gumbel(size=options)
            order = np.argsort(-felt)
            ranks, rank = np.empty(options, dtype=int), 1
            for at, i in enumerate(order):
                rank += at > 0 and felt[order[at - 1]] - felt[i] > noise
                ranks[i] = rank
            rows.append(Ranked(s, z, ranks.tolist(), k))
    return rows, beta, length


@pytest.mark.parametrize("options", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_intervals_of_90_percent_cover_85_to_95_percent_over_20_seeds(options):
    inside = []
    for seed in range(20):
        rows, beta, length = planted(seed, options=options, each=60 // options)
        found = fit_traits(rows, labelers=20)
        inside += [np.abs(found.beta - beta) < 1.645 * found.beta_sd, np.abs(found.length - length) < 1.645 * found.length_sd]
    assert 0.85 <= np.mean(inside) <= 0.95, np.mean(inside)


def test_two_options_are_logistic_regression():
    """Independent reference: a general optimiser on the two-option likelihood with the same priors."""
    rows, *_ = planted(1, people=1, each=30, options=2)
    d = np.array([[r.scores[0] - r.scores[1], r.sizes[0] - r.sizes[1]] for r in rows])
    won = np.array([1.0 if r.ranks[0] < r.ranks[1] else -1.0 for r in rows])

    def loss(x):
        return np.logaddexp(0, -won * (d @ x)).sum() + (x[0] - 1) ** 2 / 2 + x[1] ** 2 / (2 * 0.09)

    best = minimize(loss, [1.0, 0.0], tol=1e-10).x
    p = 1 / (1 + np.exp(-d @ best))
    spread = np.linalg.inv((d * (p * (1 - p))[:, None]).T @ d + np.diag([1, 1 / 0.09]))
    found = fit_traits(rows, labelers=1)
    assert [found.beta[0], found.length[0]] == pytest.approx(best, abs=1e-4)
    assert [found.beta_sd[0], found.length_sd[0]] == pytest.approx(np.sqrt(np.diag(spread)), rel=1e-3)


def test_ties_have_a_parameter_and_who_ranked_nothing_has_the_prior():
    rows, beta, _ = planted(2, noise=0.4)
    found = fit_traits(rows, labelers=21)
    assert 0 < found.tie < 2 and np.corrcoef(found.beta[:20], beta)[0, 1] > 0.9
    assert (found.beta[20], found.beta_sd[20], found.length_sd[20]) == pytest.approx((1.0, 1.0, 0.3), rel=1e-6)


def test_long_rankings_and_all_ties_end_and_missing_scores_are_refused():
    rows, *_ = planted(3, people=3, each=8, options=12)
    assert np.isfinite(fit_traits(rows, labelers=3).beta_sd).all()
    level = fit_traits([Ranked([0.0, 1.0], [3.0, 4.0], [1, 1], 0)] * 5, labelers=1)
    assert np.isfinite([level.beta[0], level.tie]).all()
    with pytest.raises(ValueError, match="finite"):
        fit_traits([Ranked([0.0, np.nan], [1.0, 1.0], [1, 2], 0)], labelers=1)
