"""The objectives of pretraining with human feedback, beside sums by hand and a brute-force reference with gradients."""

import math

import pytest
import torch

from harken.objectives import phf
from harken.objectives.supervised import nll

ln = math.log


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_unlikelihood_by_hand():
    """Two tokens of p = 1/2 and 1/4, the second bad, weight 1/2 each, alpha 3:
    1/2 ln 2 + 3 · 1/2 · -ln(3/4)."""
    loss, metrics = phf.unlikelihood(tensor(ln(1 / 2), ln(1 / 4)), tensor(1, 0), tensor(0.5, 0.5), alpha=3.0)
    assert float(loss) == pytest.approx(0.5 * ln(2) - 1.5 * ln(3 / 4), abs=1e-12)
    assert float(metrics["good"]) == 0.5
    masked, _ = phf.masked(tensor(ln(1 / 2), ln(1 / 4)), tensor(1, 0), tensor(0.5, 0.5))
    assert float(masked) == pytest.approx(0.5 * ln(2), abs=1e-12)


def test_a_bad_token_that_is_certain_costs_a_finite_loss():
    logps = tensor(0.0, -1e-9).requires_grad_()
    loss, _ = phf.unlikelihood(logps, tensor(0, 0), tensor(1, 1), alpha=1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-ln(1e-20) - ln(1e-9), rel=1e-9)
    assert torch.isfinite(logps.grad).all()


def test_one_minus_a_probability_keeps_its_digits():
    """In float32, where exp rounds to 1 near log p = 0, and 1 - p to 1 at the other end."""
    found = phf.log_one_minus(torch.tensor([-1e-9, -1e-4, -20.0]))
    assert found[:2].tolist() == pytest.approx([math.log(1e-9), math.log(-math.expm1(-1e-4))], rel=1e-6)
    assert found[2] <= 0 and float(found[2]) == pytest.approx(0, abs=1e-8)


def test_rwr_and_awr_by_hand():
    """One token of p = 1/e with R = -1, beta 1/2: weight e^-2. AWR with head 0 has V = -1/2, A = -1/2, weight e^-1;
    alpha 1/4: 1/4 e^-1 + 3/4 (1/2)²."""
    loss, _ = phf.rwr(tensor(-1), tensor(-1), tensor(1), beta=0.5)
    assert float(loss) == pytest.approx(math.exp(-2), abs=1e-12)
    loss, metrics = phf.awr(tensor(-1), tensor(-1), tensor(0), tensor(1), alpha=0.25, beta=0.5)
    assert float(loss) == pytest.approx(0.25 * math.exp(-1) + 0.75 * 0.25, abs=1e-12)
    assert float(metrics["value_mean"]) == -0.5


def test_weights_are_cut_at_a_thousand():
    assert phf.reward_weights(tensor(-1, 10, 0), beta=1.0).tolist() == pytest.approx([math.exp(-1), 1000, 1])


def test_rwr_with_the_papers_beta_is_nearly_mle():
    """Rewards of [-1, 0] and beta 10: every weight lies in [0.905, 1]."""
    found = phf.reward_weights(torch.linspace(-1, 0, 11, dtype=torch.float64), beta=10.0)
    assert 0.904 < float(found.min()) < 0.906 and float(found.max()) == 1


def reference(name, logits, head, targets, rewards, good, alpha, beta):
    """Token by token from the whole softmax, in plain Python loops over tensors of float64."""
    total, n = torch.zeros((), dtype=torch.float64), len(targets)
    for t in range(n):
        exps = torch.exp(logits[t] - logits[t].max())
        p = exps[targets[t]] / exps.sum()
        v = -1 / (1 + torch.exp(-head[t]))
        if name in ("mle", "filter", "conditional"):
            term = -torch.log(p)
        elif name == "unlikelihood":
            term = -torch.log(p) if good[t] else -alpha * torch.log(1 - p)
        elif name == "mask":
            term = -torch.log(p) if good[t] else 0 * p
        elif name == "rwr":
            term = -math.exp(min(rewards[t] / beta, ln(1000))) * torch.log(p)
        else:
            weight = math.exp(min((float(rewards[t]) - float(v)) / beta, ln(1000)))
            term = -alpha * weight * torch.log(p) + (1 - alpha) * (rewards[t] - v) ** 2
        total = total + term / n
    return total


@pytest.mark.parametrize("name", ["mle", "filter", "conditional", "unlikelihood", "mask", "rwr", "awr"])
@pytest.mark.parametrize("seed", range(5))
def test_each_objective_equals_a_brute_force_reference(name, seed):
    g = torch.Generator().manual_seed(seed)
    N, V = 23, 11
    logits = (3 * torch.randn(N, V, generator=g, dtype=torch.float64)).requires_grad_()
    head = torch.randn(N, generator=g, dtype=torch.float64).requires_grad_()
    targets = torch.randint(V, (N,), generator=g)
    rewards = -torch.rand(N, generator=g, dtype=torch.float64)
    good = (torch.rand(N, generator=g) < 0.5).double()
    alpha, beta = float(torch.rand((), generator=g)), float(0.05 + torch.rand((), generator=g))
    w = torch.full((N,), 1 / N, dtype=torch.float64)
    logps = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    loss, _ = {"unlikelihood": lambda: phf.unlikelihood(logps, good, w, alpha), "mask": lambda: phf.masked(logps, good, w),
               "rwr": lambda: phf.rwr(logps, rewards, w, beta), "awr": lambda: phf.awr(logps, rewards, head, w, alpha, beta),
               }.get(name, lambda: nll(logps, w))()
    expected = reference(name, logits, head, targets, rewards, good, alpha, beta)
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    for mine, theirs in zip(*(torch.autograd.grad(x, [logits, head], retain_graph=True, allow_unused=True)
                              for x in (loss, expected))):
        if mine is None:
            assert theirs is None or not theirs.abs().max()
        else:
            assert (mine - theirs).abs().max() < 1e-6
