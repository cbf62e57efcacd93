"""Distributional preference learning (2312.08358)."""

import numpy as np
import pytest
from scipy.special import ndtr, softmax
from scipy.stats import kendalltau

from harken.core.errors import UserError
from harken.labelers.groups.distributional import (
    Categorical,
    MeanVariance,
    explained,
    fit_categorical,
    fit_mean_variance,
    interval,
)
from harken.labelers.groups.scores import fit_groups
from marks import slow
from people_worlds import hidden_context, votes_from


def hats(x, count=12):
    """Piecewise linear functions of one number."""
    return np.maximum(0, 1 - np.abs(x[:, None] - np.linspace(0, 1, count)) * (count - 1))


def test_mean_variance_by_hand():
    """μ 1 and 0, σ 3 and 4: z = 1/5. r² of means ±1/2 and variances 9, 16: .25 / 12.75."""
    found = MeanVariance(np.array([1.0, 0.0]), np.array([3.0, 4.0]), 0.0)
    assert found.probability(0, 1) == pytest.approx(ndtr(0.2))
    assert found.r2 == pytest.approx(0.25 / 12.75) and explained(np.zeros(2), np.zeros(2)) == 1.0
    assert found.quantile(0.5) == pytest.approx(found.mean) and found.quantile(0.01)[0] == pytest.approx(1 - 2.3263 * 3, abs=1e-3)


def test_categorical_by_hand():
    """Atoms 0 and 1, shares (.25, .75): mean .75, variance .1875; half its mass lies a third into the upper cell."""
    found = Categorical(np.array([0.0, 1.0]), np.array([[0.25, 0.75]]), 0.0)
    assert found.mean == pytest.approx([0.75]) and found.sd**2 == pytest.approx([0.1875])
    assert found.quantile(0.5) == pytest.approx([0.5 + 0.5 / 3])


@pytest.mark.parametrize("fit", [fit_mean_variance, fit_categorical])
def test_the_likelihoods_gradient_is_right(fit, monkeypatch):
    """The optimiser's gradient against finite differences, at a random point."""
    import harken.labelers.groups.distributional as module
    votes, x = hidden_context(0, n=200, items=6)
    caught = {}
    monkeypatch.setattr(module, "_minimum", lambda loss, start: caught.update(loss=loss, start=start) or start)
    fit(votes, phi=hats(x, 4))
    at = np.random.default_rng(1).normal(0, 0.5, len(caught["start"]))
    loss = caught["loss"]
    numeric = [(loss(at + e)[0] - loss(at - e)[0]) / 2e-5 for e in 1e-5 * np.eye(len(at))]
    assert loss(at)[1] == pytest.approx(np.array(numeric), rel=1e-4, abs=1e-4)


def planted(seed, people=4000):
    """12 items with planted means and standard deviations; each vote compares one draw of each."""
    rng = np.random.default_rng(seed)
    mean, sd = rng.normal(0, 1, 12), np.where(np.arange(12) % 2, 1.6, 0.4)
    a = rng.integers(12, size=people)
    b = (a + rng.integers(1, 12, size=people)) % 12
    won = np.where(rng.normal(mean[a], sd[a]) > rng.normal(mean[b], sd[b]), 1, -1)
    zero = np.zeros(people, dtype=int)
    return votes_from(a, b, won, zero, np.zeros(12, dtype=int), 1, [{}]), mean, sd


def test_planted_means_and_spreads_are_recovered_over_20_seeds():
    rank, apart = [], []
    for seed in range(20):
        votes, mean, sd = planted(seed)
        found = fit_mean_variance(votes)
        rank.append(np.corrcoef(found.mean, mean)[0, 1])
        apart.append(np.mean(found.sd[sd > 1]) > 1.8 * np.mean(found.sd[sd < 1]))
    assert np.mean(rank) > 0.95 and np.mean(apart) >= 0.95, (np.mean(rank), np.mean(apart))


@pytest.mark.slow
def test_intervals_of_90_percent_cover_85_to_95_percent_over_20_seeds():
    """Of every item's mean and spread (in the fit's gauge: mean 0, mean square of the spreads 1), and of r²."""
    inside, whole = [], []
    for seed in range(20):
        votes, mean, sd = planted(seed)
        found = fit_mean_variance(votes, draws=200, seed=seed)
        unit = np.sqrt(np.mean(sd**2))
        for of, truth in ((lambda one: one.mean, (mean - mean.mean()) / unit), (lambda one: one.sd, sd / unit)):
            low, high = interval(found, of)
            inside.append(np.mean((low <= truth) & (truth <= high)))
        low, high = interval(found, lambda one: one.r2)
        whole.append(low <= explained((mean - mean.mean()) / unit, (sd / unit) ** 2) <= high)
    assert 0.85 <= np.mean(inside) <= 0.95 and np.mean(whole) >= 0.8, (np.mean(inside), np.mean(whole))


@pytest.mark.slow
def test_categorical_intervals_cover_what_votes_can_tell_over_20_seeds():
    """Planted shares on four atoms: 90 % intervals of P(one item is preferred to another), of all pairs of items."""
    inside, above = [], np.tril(np.ones((4, 4)), -1) + np.eye(4) / 2
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shares = softmax(rng.normal(0, 1.5, (10, 4)), 1)
        a = rng.integers(10, size=3000)
        b = (a + rng.integers(1, 10, size=3000)) % 10
        atom = (rng.random((10, 3000))[:, :, None] > shares.cumsum(1)[:, None, :]).sum(2)
        column = np.arange(3000)
        gap = atom[a, column] - atom[b, column]
        zero = np.zeros(3000, dtype=int)
        votes = votes_from(a, b, np.where(gap, np.sign(gap), rng.choice([-1, 1], 3000)), zero, np.zeros(10, dtype=int), 1, [{}])
        low, high = interval(fit_categorical(votes, atoms=4, draws=200, seed=seed), lambda one: one.shares @ above @ one.shares.T)
        inside.append(((low <= shares @ above @ shares.T) & (shares @ above @ shares.T <= high))[np.triu_indices(10, 1)].mean())
    assert 0.85 <= np.mean(inside) <= 0.95, np.mean(inside)


def test_draws_leave_alone_what_votes_cannot_tell(monkeypatch):
    """Adding a number to all logits of a feature changes no probability; without draws there is no interval."""
    votes, x = hidden_context(0, n=300, items=5)
    caught = {}
    monkeypatch.setattr("harken.labelers.laplace.draw", lambda j, w, p, n, rng: caught.update(j=j, w=w) or np.zeros((n, len(p))))
    found = fit_categorical(votes, phi=hats(x, 3), atoms=4, draws=1)
    assert caught["j"].toarray().reshape(-1, 3, 4).sum(2) == pytest.approx(0, abs=1e-12) and (caught["w"] > 0).all()
    low, high = interval(found, lambda one: one.mean)
    assert low == pytest.approx(found.mean) == high
    with pytest.raises(ValueError, match="no draws"):
        interval(fit_mean_variance(votes), lambda one: one.r2)


@pytest.mark.parametrize("seed", [0, *slow(1)])
@pytest.mark.parametrize("basis", [None, hats])
def test_a_single_score_hides_the_context_and_the_spread_shows_it(seed, basis):
    """science.md 5.3 (c). Expected worth is a everywhere, so .9 beats .79; a single score says the reverse (Borda count).

    Mean–variance puts the spread on a ≥ .8, where half the people get nothing; r² falls against people who agree.
    """
    votes, x = hidden_context(seed)
    lower, upper, risky = np.argmin(abs(x - 0.79)), np.argmin(abs(x - 0.9)), x >= 0.8
    single = fit_groups(votes, noise=False).scores()[0]
    assert single[lower] > single[upper]
    phi = None if basis is None else basis(x)
    found = fit_mean_variance(votes, phi=phi)
    assert found.sd[risky].min() > 2 * found.sd[~risky].max()
    control = fit_mean_variance(hidden_context(seed, hidden=False)[0], phi=phi)
    assert found.r2 < 0.3 < 0.7 < control.r2
    careful = found.quantile(0.1)
    assert careful[lower] > careful[risky].max(), "risk-averse: nothing that half the people hate"


def test_categorical_sees_the_hidden_context_too():
    votes, x = hidden_context(0, n=6000)
    found, control = fit_categorical(votes), fit_categorical(hidden_context(0, n=6000, hidden=False)[0])
    risky = x >= 0.8
    assert found.sd[risky].min() > 1.5 * found.sd[~risky].mean() and found.r2 < control.r2 - 0.2
    low = found.quantile(0.1)
    assert low[risky].max() < low[np.argmin(abs(x - 0.79))]
    assert kendalltau(control.mean, x).statistic > 0.9


def test_nothing_to_learn_from_is_refused():
    votes, _ = hidden_context(0, n=5, items=4)
    for fit in (fit_mean_variance, fit_categorical):
        with pytest.raises(UserError, match="no comparison"):
            fit(votes.take(np.zeros(5, dtype=bool)))
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_mean_variance(votes).quantile(0)
