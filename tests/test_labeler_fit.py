"""Reliability of labelers: planted truth, independent references, invariants."""

import numpy as np
import pytest

from harken.core.errors import UserError
from harken.core.records import Choice, Prompt
from harken.labelers.reliability import Priors, _Task, fit_features, fit_reliability
from harken.labelers.votes import votes_of
from labeler_worlds import world

CROWD = np.r_[np.full(12, 3.0), np.full(5, 0.4), np.full(3, -2.0)]


def test_careless_and_reversed_people_are_found():
    truth, votes = world(0, CROWD, 1200)
    found = fit_reliability(votes)
    assert np.corrcoef(found.beta, CROWD)[0, 1] > 0.85
    assert (found.reversed[-3:] > 0.99).all() and (found.reversed[:12] < 0.01).all()
    assert np.corrcoef(found.scores, truth)[0, 1] > np.corrcoef(fit_reliability(votes, model="plain").scores, truth)[0, 1] + 0.05


@pytest.mark.parametrize("ties", ["davidson", "half"])
@pytest.mark.parametrize("model", ["plain", "beta", "crowd"])
def test_the_gradient_of_the_fit_is_that_of_finite_differences(model, ties):
    _, votes = world(1, [1.0, 0.5, -1.0], 60, items=8, nu=0.5)
    rng = np.random.default_rng(0)
    task = _Task(votes, rng.normal(size=(60, 3)), model, ties, True, True, True, Priors(), rng.random(60), None)
    x, step = rng.normal(size=task.size) / 2, 1e-6
    numeric = [(task.loss(x + e)[0] - task.loss(x - e)[0]) / 2 / step for e in np.eye(task.size) * step]
    assert np.allclose(task.loss(x)[1], numeric, atol=1e-6)


@pytest.mark.parametrize("model", ["plain", "beta", "crowd"])
def test_predictions_are_those_of_the_fit(model):
    _, votes = world(2, CROWD, 400, nu=0.5)
    found = fit_reliability(votes, model=model, position=True, length=True, indifference=True, draws=0)
    assert found.log_prob(votes).sum() == pytest.approx(found.log_likelihood, rel=1e-9)
    p = found.probability(votes)
    assert np.allclose(p.sum(1), 1) and np.allclose(np.log(p[np.arange(400), 1 - votes.won]), found.log_prob(votes))


def test_features_score_items_that_nobody_judged():
    rng = np.random.default_rng(3)
    phi, w = rng.normal(size=(300, 8)), rng.normal(size=8)
    truth, votes = world(3, CROWD / 3, 1500, items=300, prompts=50, scores=phi @ w)
    judged = votes.take((votes.a < 200) & (votes.b < 200))
    found = fit_features(judged, phi)
    assert np.corrcoef(found.scores[200:], truth[200:])[0, 1] > 0.95
    assert found.covariance.shape == (8, 8) and np.linalg.eigvalsh(found.covariance)[0] > 0
    assert np.allclose(found.scores, phi @ found.weights)


def test_free_scores_need_a_finite_maximum():
    p = Prompt.of("p")
    votes = votes_of([Choice(p, ("x", "y"), (1, 2)), Choice(p, ("y", "z"), (1, 2))])
    with pytest.raises(UserError, match="have no maximum"):
        fit_reliability(votes, model="plain", prior=Priors(score=np.inf))
    with pytest.raises(UserError, match="no comparisons"):
        fit_reliability(votes.take(votes.won == 5))
