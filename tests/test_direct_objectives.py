"""Direct preference losses: hand-worked numbers, TRL beside them, gradients and what is refused."""

import math

import pytest
import torch

from harken.objectives import direct


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# One pair: log π = -2 and -5, log π_ref = -3 and -4, so h = 3 - (+1) = 2.
PAIR = [torch.tensor([x]) for x in (-2.0, -5.0, -3.0, -4.0, 1.0)]


@pytest.mark.parametrize(("loss", "expected"), [
    ("dpo", -math.log(sigmoid(1.0))),                                                   # β h = 0.5 · 2
    ("cdpo", -0.9 * math.log(sigmoid(1.0)) - 0.1 * math.log(sigmoid(-1.0))),
    ("robust", (-0.9 * math.log(sigmoid(1.0)) + 0.1 * math.log(sigmoid(-1.0))) / 0.8),
    ("ipo", (2 - 1 / (2 * 0.5)) ** 2),
    ("hinge", 0.0),
])
def test_pairwise_by_hand(loss, expected):
    found, metrics = direct.pairwise(*PAIR, loss=loss, beta=0.5, smoothing=0.1)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert (metrics["margin"], metrics["correct"]) == (1.0, 1.0)


def test_p27_both_log_probs_are_shown_and_the_gradient_is_dpos():
    """d/dlogπ(y_w) of -log σ(β h) is -β σ(-β h), of y_l the opposite; two pairs, h = 2 and -1."""
    better, worse = torch.tensor([-2.0, -4.0], requires_grad=True), torch.tensor([-5.0, -4.0], requires_grad=True)
    ref = torch.tensor([-3.0, -3.0]), torch.tensor([-4.0, -4.0])
    loss, metrics = direct.pairwise(better, worse, *ref, torch.full((2,), 0.5), beta=0.1)
    loss.backward()
    expected = [-0.5 * 0.1 * sigmoid(-0.2), -0.5 * 0.1 * sigmoid(0.1)]
    assert better.grad.tolist() == pytest.approx(expected) and worse.grad.tolist() == pytest.approx([-e for e in expected])
    assert (metrics["better_logp"], metrics["worse_logp"], metrics["correct"]) == (-3.0, -4.5, 0.5)


def test_robust_dpo_is_unbiased_under_flipped_labels():
    """E over labels flipped with chance ε of the robust loss is DPO's loss on clean labels, whatever h."""
    clean = direct.pairwise(*PAIR, loss="dpo", beta=0.7)[0]
    flipped = [PAIR[1], PAIR[0], PAIR[3], PAIR[2], PAIR[4]]
    expectation = 0.8 * direct.pairwise(*PAIR, loss="robust", beta=0.7, smoothing=0.2)[0] + 0.2 * direct.pairwise(
        *flipped, loss="robust", beta=0.7, smoothing=0.2)[0]
    assert torch.isclose(expectation, clean, atol=1e-6)


def test_simpo_and_orpo_by_hand():
    """Log-probs -2 over 4 tokens and -5 over 5: means -0.5 and -1. SimPO, β 2, γ 0.5: z = 1, -log σ(0.5).
    ORPO: odds e^-.5 / (1 - e^-.5) and e^-1 / (1 - e^-1)."""
    lengths = torch.tensor([4.0]), torch.tensor([5.0])
    found, _ = direct.simpo(PAIR[0], PAIR[1], *lengths, PAIR[4], beta=2.0, gamma=0.5)
    assert found.item() == pytest.approx(-math.log(sigmoid(0.5)), abs=1e-6)
    odds = [math.log(math.exp(-x) / (1 - math.exp(-x))) for x in (0.5, 1.0)]
    found, _ = direct.orpo(PAIR[0], PAIR[1], *lengths, PAIR[4], beta=0.3)
    assert found.item() == pytest.approx(0.5 - 0.3 * math.log(sigmoid(odds[0] - odds[1])), abs=1e-6)


def test_kto_by_hand():
    """r = 1 of a desirable and -1 of an undesirable, z_0 = 0.5, β = 2: values σ(1) and σ(3)."""
    found, metrics = direct.kto(torch.tensor([-2.0, -5.0]), torch.tensor([-3.0, -4.0]), torch.tensor([1.0, 0.0]),
                                torch.full((2,), 0.5), 0.5, beta=2.0)
    assert found.item() == pytest.approx(0.5 * (1 - sigmoid(1.0)) + 0.5 * (1 - sigmoid(3.0)), abs=1e-6)
    assert metrics["correct"] == 1


LENGTHS = torch.tensor([3.0, 5.0, 4.0, 2.0]), torch.tensor([6.0, 2.0, 4.0, 7.0])


def four_pairs():
    """Sequence log-probs of four pairs, better and worse, of the policy and the reference."""
    torch.manual_seed(0)
    return [-10 * torch.rand(4, dtype=torch.float64) - 1 for _ in range(4)]


@pytest.mark.parametrize("loss", ["dpo", "cdpo", "robust", "hinge", "ipo", "simpo", "orpo", "kto"])
def test_direct_losses_against_trl(loss):
    """TRL 1.16's formulas, written in its variables (docs/objectives.md says where it differs): mean over pairs, β 0.3, ε 0.1."""
    chosen, rejected, ref_chosen, ref_rejected = four_pairs()
    weights, beta, eps = torch.full((4,), 0.25, dtype=torch.float64), 0.3, 0.1
    score = (chosen - ref_chosen) - (rejected - ref_rejected)
    log_sigmoid = torch.nn.functional.logsigmoid
    if loss == "simpo":  # CPO trainer: β (difference of means - γ / β)
        theirs = -log_sigmoid(beta * (chosen / LENGTHS[0] - rejected / LENGTHS[1] - 0.5 / beta))
        ours = direct.simpo(chosen, rejected, *LENGTHS, weights, beta=beta, gamma=0.5)[0]
    elif loss == "orpo":  # on mean log-probs; its NLL term is checked by hand above
        a, b = chosen / LENGTHS[0], rejected / LENGTHS[1]
        log_odds = (a - b) - (torch.log1p(-torch.exp(a)) - torch.log1p(-torch.exp(b)))
        theirs = -a - beta * log_sigmoid(log_odds)
        ours = direct.orpo(chosen, rejected, *LENGTHS, weights, beta=beta)[0]
    elif loss == "kto":  # a batch of both kinds, z_0 = 0.4, both weights 1
        theirs = torch.cat([1 - torch.sigmoid(beta * (chosen - ref_chosen - 0.4)),
                            1 - torch.sigmoid(beta * (0.4 - (rejected - ref_rejected)))])
        ours = direct.kto(torch.cat([chosen, rejected]), torch.cat([ref_chosen, ref_rejected]),
                          torch.tensor([1.0] * 4 + [0.0] * 4), torch.full((8,), 0.125, dtype=torch.float64), 0.4, beta=beta)[0]
    else:
        theirs = {"dpo": -log_sigmoid(beta * score), "hinge": torch.relu(1 - beta * score),
                  "cdpo": -log_sigmoid(beta * score) * (1 - eps) - log_sigmoid(-beta * score) * eps,
                  "robust": (-(1 - eps) * log_sigmoid(beta * score) + eps * log_sigmoid(-beta * score)) / (1 - 2 * eps),
                  "ipo": (score - 1 / (2 * beta)) ** 2}[loss]
        ours = direct.pairwise(chosen, rejected, ref_chosen, ref_rejected, weights, loss=loss, beta=beta, smoothing=eps)[0]
    assert torch.isclose(ours, theirs.mean())


def test_trls_ipo_divides_by_length_and_ours_does_not():
    """2310.12036, eq. 17 squares a difference of log-ratios of whole answers; TRL of log-ratios a token."""
    chosen, rejected, ref_chosen, ref_rejected = four_pairs()
    a, b = (chosen - ref_chosen), (rejected - ref_rejected)
    trl = ((a / LENGTHS[0] - b / LENGTHS[1] - 1 / 0.6) ** 2).mean()
    ours = direct.pairwise(chosen, rejected, ref_chosen, ref_rejected, torch.full((4,), 0.25), loss="ipo", beta=0.3)[0]
    assert not torch.isclose(ours, trl, rtol=0.1)


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust", "ipo", "hinge", "simpo", "orpo", "kto"])
def test_direct_losses_have_the_gradient_of_their_values(name):
    """Autograd against finite differences, in float64."""
    chosen, rejected, *ref = (x.requires_grad_() if i < 2 else x for i, x in enumerate(four_pairs()))
    weights = torch.rand(4, dtype=torch.float64)

    def value(better, worse):
        if name == "simpo":
            return direct.simpo(better, worse, *LENGTHS, weights)[0]
        if name == "orpo":
            return direct.orpo(better, worse, *LENGTHS, weights)[0]
        if name == "kto":
            good = torch.tensor([1.0] * 4 + [0.0] * 4)
            return direct.kto(torch.cat([better, worse]), torch.cat(ref), good, weights.repeat(2), 0.1)[0]
        return direct.pairwise(better, worse, *ref, weights, loss=name, smoothing=0.1)[0]

    assert torch.autograd.gradcheck(value, (chosen, rejected))


def test_sequence_logps_sum_each_completion():
    assert direct.sequence_logps(torch.tensor([-1.0, -2.0, -4.0]), [2, 1]).tolist() == [-3.0, -4.0]


def test_a_bad_direct_loss_is_refused():
    with pytest.raises(ValueError, match="not one of"):
        direct.pairwise(*PAIR, loss="dpo2")
    with pytest.raises(ValueError, match="smoothing"):
        direct.pairwise(*PAIR, smoothing=0.5)
