"""The torch terms are the NumPy terms: same values, same gradients, to 1e-6."""

import numpy as np
import pytest
import torch

from harken.labelers.models import likelihood as numpy_terms
from harken.objectives import feedback
from harken.objectives.preference import k_wise

RNG = np.random.default_rng(0)
N, K = 7, 4
U, ETA = RNG.normal(size=(N, K)), RNG.normal(size=N)
TIED = np.array([np.unique(r, return_inverse=True)[1] + 1 for r in RNG.integers(0, 3, size=(N, K))])
STRICT = np.array([RNG.permutation(K) + 1 for _ in range(N)])
CUTS = np.array([-1.0, 0.2, 1.5])
GRADES, CHOICE, UP = RNG.integers(0, 4, N), RNG.integers(0, K, N), RNG.integers(0, 2, N)


def leaf(x):
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def agree(logp, expected, *pairs):
    """Values, and the gradient of their sum by each leaf."""
    assert np.allclose(logp.detach().numpy(), expected, atol=1e-6)
    logp.sum().backward()
    for tensor, gradient in pairs:
        assert np.allclose(tensor.grad.numpy(), gradient, atol=1e-6)


def test_rankings_agree():
    u, nu = leaf(U), leaf(-0.3)
    logp, d_u, d_nu = numpy_terms.plackett_luce(U, -0.3, TIED)
    agree(feedback.plackett_luce(u, torch.tensor(TIED), nu), logp, (u, d_u), (nu, d_nu.sum()))
    u = leaf(U)
    logp, d_u, _ = numpy_terms.plackett_luce(U, None, STRICT)
    agree(feedback.plackett_luce(u, torch.tensor(STRICT)), logp, (u, d_u))
    with pytest.raises(ValueError, match="has ties"):
        feedback.plackett_luce(leaf(U), torch.tensor(TIED))


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_pairs_agree(ties):
    """k_wise with one ranking a tree; its tie parameter is ln nu, or ln theta = softplus(tie)."""
    u, tie = leaf(U.ravel()), leaf(0.4)
    loss, _ = k_wise(u, torch.tensor(TIED.ravel()), torch.ones(N * K, dtype=torch.float64), [K] * N, ties=ties, tie=tie)
    if ties == "davidson":
        logp, d_u, d_nu = numpy_terms.all_pairs(U, 0.4, TIED)
        agree(-loss, logp.sum(), (u, d_u.ravel()), (tie, d_nu.sum()))
        return
    i, j = np.triu_indices(K, 1)
    won = np.sign(TIED[:, j] - TIED[:, i])
    theta = np.log1p(np.exp(0.4))
    logp, _, d_theta = numpy_terms.rao_kupper((U[:, i] - U[:, j]).ravel(), theta, won.ravel())
    agree(-loss, logp.sum() / len(i), (tie, d_theta.sum() / len(i) / (1 + np.exp(-0.4))))


def test_grades_choices_thumbs_and_use_agree():
    eta, cuts = leaf(ETA), leaf(CUTS)
    logp, d_eta, d_cuts = numpy_terms.ordinal(ETA, CUTS, GRADES)
    agree(feedback.ordinal(eta, cuts, torch.tensor(GRADES)), logp, (eta, d_eta), (cuts, d_cuts.sum(0)))
    u = leaf(U)
    logp, d_u = numpy_terms.chosen(U, CHOICE)
    agree(feedback.chosen(u, torch.tensor(CHOICE)), logp, (u, d_u))
    eta = leaf(ETA)
    logp, d_eta = numpy_terms.thumb(ETA, UP)
    agree(feedback.thumb(eta, torch.tensor(UP)), logp, (eta, d_eta))
    eta, outside = leaf(ETA), leaf([0.5, -1.0])
    logp, d_eta, d_outside = numpy_terms.use(ETA, [0.5, -1.0], GRADES % 3)
    agree(feedback.use(eta, outside, torch.tensor(GRADES % 3)), logp, (eta, d_eta), (outside, d_outside.sum(0)))


def test_the_predictor_agrees_and_its_prior_by_hand():
    """beta 2 and 1, sd 0.5: (1 / 0.5)^2 / 2 = 2; length 0.3, sd 0.3: 1/2."""
    beta, length, size = RNG.normal(size=(3, N))
    mine = feedback.felt(*(torch.tensor(x) for x in (ETA, beta, length, size)))
    assert np.allclose(mine.numpy(), numpy_terms.predictor(ETA, beta, length=length, size=size))
    assert feedback.labeler_prior(torch.tensor([2.0, 1.0]), torch.tensor([0.0, 0.3]), 0.5, 0.3).item() == pytest.approx(2.5)
