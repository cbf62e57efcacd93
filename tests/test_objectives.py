"""Every loss against hand-worked numbers, and an independent reference where one exists."""

import math

import polgrad
import pytest
import torch
from polgrad.verify.goldens import golden_cases as polgrad_golden_cases

from harken.objectives import kl, value
from harken.objectives.policy_gradient import AGGREGATIONS, clipped, group_relative, leave_one_out, less_the_others, token_weights
from harken.objectives.preference import k_wise, pair_indices
from harken.objectives.supervised import nll


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_nll_by_hand():
    """Tokens of probability 1/2, 1/4, 1/8, each weighing 1/3: (ln 2 + ln 4 + ln 8) / 3 = 2 ln 2."""
    loss, metrics = nll(torch.log(torch.tensor([0.5, 0.25, 0.125])), torch.full((3,), 1 / 3))
    assert loss.item() == pytest.approx(2 * math.log(2))
    assert metrics["nll"] == loss


def ranking(scores, ranks, ties="drop", tie=None):
    n = len(scores)
    tie = None if tie is None else torch.tensor(tie)
    return k_wise(torch.tensor(scores), torch.tensor(ranks, dtype=torch.float), torch.ones(n), [n], ties=ties, tie=tie)


def test_k_wise_by_hand():
    """r = 2, 1, 0 ranked 1, 2, 3: pairs differ by 1, 2, 1; loss = (2 ln(1 + e^-1) + ln(1 + e^-2)) / 3."""
    loss, metrics = ranking([2.0, 1.0, 0.0], [1, 2, 3])
    expected = (2 * math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 3
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert (metrics["correct"], metrics["pairs"]) == (3, 3)


def test_k_wise_of_two_is_bradley_terry():
    assert ranking([0.3, 1.0], [1, 2])[0].item() == pytest.approx(-math.log(sigmoid(-0.7)), abs=1e-6)


def test_p31_prompts_weigh_the_same_whatever_their_k():
    """Equal scores: every pair loses ln 2, so a ranking of 9 and one of 4 lose ln 2 each."""
    for k in (2, 4, 9):
        assert ranking([0.0] * k, list(range(1, k + 1)))[0].item() == pytest.approx(math.log(2))
    assert len(pair_indices([9])[0]) == 36


@pytest.mark.parametrize("ties", ["drop", "davidson", "rao_kupper"])
def test_p32_swapping_tied_options_changes_nothing(ties):
    a = ranking([0.5, -1.0, 2.0], [1, 1, 2], ties, 0.3)[0]
    b = ranking([-1.0, 0.5, 2.0], [1, 1, 2], ties, 0.3)[0]
    assert a.item() == pytest.approx(b.item(), abs=1e-6)


def test_p32_only_ties_give_no_preference_gradient_when_dropped():
    scores = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    k_wise(scores, torch.ones(3), torch.ones(3), [3])[0].backward()
    assert torch.equal(scores.grad, torch.zeros(3))


def test_davidson_by_hand():
    """p = e^1, e^0, ν = 2: Z = e + 1 + 2 sqrt(e); the win is e/Z, the tie 2 sqrt(e)/Z."""
    e, nu = math.e, 2.0
    z = e + 1 + nu * math.sqrt(e)
    assert ranking([1.0, 0.0], [1, 2], "davidson", math.log(nu))[0].item() == pytest.approx(-math.log(e / z), abs=1e-6)
    assert ranking([1.0, 0.0], [1, 1], "davidson", math.log(nu))[0].item() == pytest.approx(
        -math.log(nu * math.sqrt(e) / z), abs=1e-6)


def test_rao_kupper_by_hand():
    """θ = 2 (softplus(tie) = ln 2, so tie = 0), p = e, 1: win e/(e+2), tie 3e/((e+2)(2e+1)), loss 1/(1+2e)."""
    e = math.e
    assert math.log1p(math.exp(0.0)) == pytest.approx(math.log(2))
    outcomes = {(1, 2): e / (e + 2), (1, 1): 3 * e / ((e + 2) * (2 * e + 1)), (2, 1): 1 / (1 + 2 * e)}
    assert sum(outcomes.values()) == pytest.approx(1)
    for ranks, p in outcomes.items():
        assert ranking([1.0, 0.0], list(ranks), "rao_kupper", 0.0)[0].item() == pytest.approx(-math.log(p), abs=1e-6)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_tie_outcomes_sum_to_one(ties):
    total = sum(math.exp(-ranking([0.7, -0.4], r, ties, -0.8)[0].item()) for r in ([1, 2], [2, 1], [1, 1]))
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_tie_models_recover_planted_scores_and_ties(ties):
    """20 scores, 20,000 judged pairs drawn from the model itself; maximum likelihood finds them again."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(20, generator=generator)
    truth -= truth.mean()
    planted = torch.tensor(-0.5)
    pairs = torch.randint(20, (20_000, 2), generator=generator)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    flat = truth[pairs].reshape(-1)
    sizes = [2] * len(pairs)
    d = flat[::2] - flat[1::2]
    if ties == "davidson":
        table = torch.stack([d / 2, planted.expand_as(d), -d / 2], -1).softmax(-1)
        won, tied = table[:, 0], table[:, 1]
    else:
        theta = 1 + math.exp(float(planted))  # ln θ = softplus(tie)
        won, lost = 1 / (1 + theta * torch.exp(-d)), 1 / (1 + theta * torch.exp(d))
        tied = (theta**2 - 1) * won * lost
    u = torch.rand(len(pairs), generator=generator)
    ranks = torch.where((u < won)[:, None], torch.tensor([1.0, 2.0]),
                        torch.where((u < won + tied)[:, None], torch.tensor([1.0, 1.0]), torch.tensor([2.0, 1.0])))
    scores, tie = torch.zeros(20, requires_grad=True), torch.zeros((), requires_grad=True)
    weights = torch.full((2 * len(pairs),), 1 / len(pairs))
    optimizer = torch.optim.LBFGS([scores, tie], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = k_wise(scores[pairs].reshape(-1), ranks.reshape(-1), weights, sizes, ties=ties, tie=tie)[0]
        loss.backward()
        return loss

    optimizer.step(closure)
    found = (scores - scores.mean()).detach()
    assert (found - truth).abs().max() < 0.15
    assert abs(tie.item() - planted.item()) < 0.08


def test_leave_one_out_by_hand_and_against_polgrad():
    """Rewards 1, 2, 6: the others' means are 4, 3.5, 1.5, so the advantages are -3, -1.5, 4.5."""
    found = leave_one_out(torch.tensor([[1.0, 2.0, 6.0]]))
    assert found.tolist() == [[-3.0, -1.5, 4.5]]
    rewards = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    reference = polgrad.rloo_advantages(rewards.reshape(-1), torch.arange(5).repeat_interleave(4))
    assert torch.allclose(leave_one_out(rewards).reshape(-1), reference, atol=1e-6)


def test_less_the_others_by_hand():
    """Completions of 2, 1 and 3 tokens with sums 3, 6 and 3: the others' means are 9 / 4, 6 / 5 and 9 / 3."""
    x = torch.tensor([1.0, 2.0, 6.0, 0.0, 1.0, 2.0])
    expected = torch.tensor([1 - 2.25, 2 - 2.25, 6 - 1.2, -3.0, -2.0, -1.0])
    assert torch.allclose(less_the_others(x, [2, 1, 3]), expected)
    assert torch.equal(less_the_others(x, [6]), x)


def test_p25_equal_rewards_give_exactly_zero():
    assert torch.equal(leave_one_out(torch.full((2, 3), 0.1)), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out(torch.zeros(2, 1))


def test_clipped_by_hand():
    """ρ = 1.5, A = 1, ε = 0.2: the clipped gain 1.2, gradient 0. ρ = 1.5, A = -1: the unclipped -1.5, gradient ρ A."""
    logps = torch.log(torch.tensor([1.5, 1.5])).requires_grad_()
    loss, metrics = clipped(logps, torch.zeros(2), torch.tensor([1.0, -1.0]), torch.ones(2), 0.2)
    assert loss.item() == pytest.approx(-1.2 + 1.5)
    loss.backward()
    assert logps.grad.tolist() == pytest.approx([0.0, 1.5])
    assert metrics["clip_fraction"] == 1


def test_p28_gspo_by_hand():
    """Completions of 2 and 1 tokens, log-ratios (0.3, -0.1) and 0.2: s = e^0.1 and e^0.2, at each token of its own. Advantages
    1 and -1, ε = 0.15: e^0.1 = 1.105 is inside, e^0.2 = 1.221 above but with A < 0 not clipped. Loss = (-e^0.1 + e^0.2) / 2,
    and the gradient of s reaches both tokens by halves: -e^0.1 / 4 each, then e^0.2 / 2."""
    logps = torch.tensor([0.3, -0.1, 0.2], requires_grad=True)
    weights = torch.tensor(token_weights([2, 1], "sequence_mean"))
    loss, _ = clipped(logps, torch.zeros(3), torch.tensor([1.0, 1.0, -1.0]), weights, 0.15, sequences=[2, 1])
    loss.backward()
    assert loss.item() == pytest.approx((-math.exp(0.1) + math.exp(0.2)) / 2)
    assert logps.grad.tolist() == pytest.approx([-math.exp(0.1) / 4, -math.exp(0.1) / 4, math.exp(0.2) / 2])


@pytest.mark.parametrize("by_token", [False, True], ids=["advantages of completions", "advantages of tokens"])
def test_p28_gspo_gradient_reaches_every_token(by_token):
    """Against polgrad's SEQUENCE ratio, and finite differences. Where advantages differ by token, a ratio whose gradient
    stays at its own token (SEQUENCE_TOKEN, verl's) has another gradient; ours is the paper's."""
    torch.manual_seed(0)
    lengths, mask = [3, 1, 5], torch.arange(5)[None] < torch.tensor([3, 1, 5])[:, None]
    new, old, advantages = torch.randn(3, 3, 5, dtype=torch.float64) * 0.1
    advantages = (advantages if by_token else advantages[:, :1].expand(3, 5)) * 10
    weights = torch.tensor(token_weights(lengths, "sequence_mean"), dtype=torch.float64)

    def loss(flat):
        return clipped(flat, old[mask], advantages[mask], weights, 0.05, 0.06, lengths)[0]

    ours = new[mask].clone().requires_grad_()
    loss(ours).backward()

    def polgrads(ratio):
        theirs = new.clone().requires_grad_()
        config = polgrad.PolicyLossConfig(ratio, polgrad.SurrogateKind.PG_CLIP, polgrad.ClipConfig(0.05, 0.06),
                                          polgrad.Aggregation.SEQ_MEAN_TOKEN_MEAN)
        found = polgrad.policy_loss(config, logprobs=theirs, old_logprobs=old, advantages=advantages, response_mask=mask).loss
        found.backward()
        return found.detach(), theirs.grad[mask]

    reference, gradient = polgrads(polgrad.RatioKind.SEQUENCE)
    assert torch.isclose(loss(new[mask]), reference) and torch.allclose(ours.grad, gradient, atol=1e-12)
    assert torch.allclose(polgrads(polgrad.RatioKind.SEQUENCE_TOKEN)[1], gradient) is not by_token
    for i in range(len(ours)):
        step = torch.zeros(9, dtype=torch.float64)
        step[i] = 1e-6
        slope = (loss(new[mask] + step) - loss(new[mask] - step)) / 2e-6
        assert float(slope) == pytest.approx(float(ours.grad[i]), abs=1e-8)


def test_on_policy_gradient_is_reinforce():
    logps = torch.randn(6, requires_grad=True)
    advantages, weights = torch.randn(6), torch.rand(6)
    clipped(logps, logps.detach(), advantages, weights, 0.2)[0].backward()
    assert torch.allclose(logps.grad, -weights * advantages)


NAMES_OF_POLGRAD = {"sequence_sum": "SEQ_MEAN_TOKEN_SUM", "sequence_mean": "SEQ_MEAN_TOKEN_MEAN", "token_mean": "TOKEN_MEAN",
                    "constant": "TOKEN_SUM_NORM"}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_p8_aggregations_against_polgrad_whatever_the_padding(aggregation):
    lengths, budget = [3, 1, 5], 8
    for columns in (5, 9):  # adding pad columns changes nothing: there are none here
        mask = torch.arange(columns)[None] < torch.tensor(lengths)[:, None]
        mode = polgrad.Aggregation[NAMES_OF_POLGRAD[aggregation]]
        reference = polgrad.effective_token_weights(mask, mode, norm_len=budget if aggregation == "constant" else None)
        assert token_weights(lengths, aggregation, budget) == pytest.approx(reference[mask].tolist())


def test_p8_aggregations_by_hand():
    """Two completions of 1 and 3 tokens."""
    assert token_weights([1, 3], "sequence_sum") == [1 / 2] * 4
    assert token_weights([1, 3], "sequence_mean") == [1 / 2, 1 / 6, 1 / 6, 1 / 6]
    assert token_weights([1, 3], "token_mean") == [1 / 4] * 4
    assert token_weights([1, 3], "constant", 10) == [1 / 20] * 4
    with pytest.raises(ValueError, match="not one of"):
        token_weights([1], "mean")
    with pytest.raises(ValueError, match="max_tokens"):
        token_weights([1], "constant")


OURS = [c for c in polgrad_golden_cases() if c.config.clip.ratio_cap is None]  # dual clipping is not ours


@pytest.mark.parametrize("case", OURS, ids=lambda c: c.name)
def test_p8_golden_losses_and_gradients(case):
    """polgrad's hand-derived cases: loss and gradient, ragged rows included."""
    clip = case.config.clip
    mask = case.response_mask
    logps = case.logprobs[mask].clone().requires_grad_()
    advantages = case.advantages if case.advantages.dim() == 2 else case.advantages[:, None].expand_as(mask)
    aggregation = {v: k for k, v in NAMES_OF_POLGRAD.items()}[case.config.aggregation.name]
    weights = torch.tensor(token_weights(mask.sum(1).tolist(), aggregation), dtype=torch.float64)
    loss, _ = clipped(logps, case.old_logprobs[mask], advantages[mask], weights, clip.eps_low, clip.eps_high)
    loss.backward()
    assert loss.item() == pytest.approx(case.expected_loss, abs=1e-12)
    assert torch.allclose(logps.grad, case.expected_grad_logprobs[mask], atol=1e-12)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_p9_a_completion_left_out_leaves_both_sums(aggregation):
    """The second of three is left out: loss and gradient are those of the batch without it, whatever it holds."""
    lengths, keep = [2, 3, 1], [True, False, True]
    torch.manual_seed(0)
    logps, advantages = torch.randn(6), torch.randn(6)
    inside = torch.tensor([True, True, False, False, False, True])
    advantages[~inside] = 1e6
    weights = torch.tensor(token_weights(lengths, aggregation, 4, keep))
    whole = clipped(logps, logps, advantages, weights, 0.2)[0]
    rest = torch.tensor(token_weights([2, 1], aggregation, 4))
    assert torch.isclose(whole, clipped(logps[inside], logps[inside], advantages[inside], rest, 0.2)[0])


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_kl_estimators_against_polgrad(name):
    logps, ref = torch.randn(2, 7)
    found = getattr(kl, name)(logps, ref)
    everywhere = torch.ones(1, 7, dtype=torch.bool)
    reference = polgrad.kl_estimate(logps[None], ref[None], polgrad.KLEstimator[name.upper()], response_mask=everywhere)[0]
    assert torch.allclose(found, reference, atol=1e-6)


def test_p5_expected_gradients_enumerated():
    """On a categorical policy of 5, exact expectations: k1 and k3 have the value of KL; as losses k2 has its
    gradient, k1 has none, k3 has that of KL(ref ‖ π). k1 in the reward has the gradient of KL."""
    torch.manual_seed(0)
    theta = torch.randn(5, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(5, dtype=torch.float64).log_softmax(-1)

    def gradient(value):
        return torch.autograd.grad(value, theta)[0]

    logp = theta.log_softmax(-1)
    p = logp.exp()
    true = (p * (logp - ref)).sum()
    assert torch.allclose((p * kl.k1(logp, ref)).sum(), true)
    assert torch.allclose((p * kl.k3(logp, ref)).sum(), true)
    true_gradient = gradient(true)
    fixed = p.detach()  # on-policy samples: the sampling distribution carries no gradient
    as_loss = {name: gradient((fixed * getattr(kl, name)(theta.log_softmax(-1), ref)).sum()) for name in ("k1", "k2", "k3")}
    assert torch.allclose(as_loss["k2"], true_gradient, atol=1e-8)
    assert torch.allclose(as_loss["k1"], torch.zeros(5, dtype=torch.float64), atol=1e-8)
    forward = gradient((ref.exp() * (ref - theta.log_softmax(-1))).sum())
    assert torch.allclose(as_loss["k3"], forward, atol=1e-8)
    assert not torch.allclose(as_loss["k3"], true_gradient, atol=1e-3)
    in_reward = gradient((fixed * kl.k1(logp, ref).detach() * theta.log_softmax(-1)).sum())
    assert torch.allclose(in_reward, true_gradient, atol=1e-8)


def test_p6_more_likely_than_the_reference_costs_reward():
    """π gives e^-1 where the reference gives e^-2: k1 = 1 nat, so with β = 0.1 the reward falls by 0.1."""
    assert 2.0 - 0.1 * kl.k1(torch.tensor(-1.0), torch.tensor(-2.0)).item() == pytest.approx(1.9)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_group_relative_against_polgrad(scale):
    rewards = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    config = polgrad.GroupNormConfig(scale="std" if scale == "group" else "none")
    reference = polgrad.grpo_advantages(rewards.reshape(-1), torch.arange(5).repeat_interleave(4), config)
    assert torch.allclose(group_relative(rewards, scale).reshape(-1), reference, atol=1e-5)


def test_group_relative_by_hand():
    """Rewards 0 and 2: centred -1, 1; the group's deviation is sqrt 2. With a second, flat group the batch's is sqrt(2/3)."""
    rewards = torch.tensor([[0.0, 2.0], [5.0, 5.0]])
    assert group_relative(rewards, eps=0.0)[0].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert group_relative(rewards, "batch", eps=0.0)[0].tolist() == pytest.approx([-(1.5**0.5), 1.5**0.5])
    assert torch.equal(group_relative(rewards)[1], torch.zeros(2))
    with pytest.raises(ValueError, match="at least 2"):
        group_relative(torch.zeros(2, 1))


def test_gae_by_hand():
    """Two ragged rows, γ = 1, λ = 0.5. Row one: r = 0, 1; V = 0.5, 0.2: δ_1 = 1 - 0.2 = 0.8, δ_0 = 0 + 0.2 - 0.5 = -0.3,
    A_0 = -0.3 + 0.5 · 0.8 = 0.1. Row two: r = 2, V = 3: A = -1."""
    advantages, returns = value.gae(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 0.2, 3.0]), [2, 1], 1.0, 0.5)
    assert advantages.tolist() == pytest.approx([0.1, 0.8, -1.0])
    assert returns.tolist() == pytest.approx([0.6, 1.0, 2.0])


def test_p17_gae_and_whitening_against_polgrad_with_junk_where_it_masks():
    lengths = [3, 1, 5]
    torch.manual_seed(0)
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    rewards, values = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    reference = polgrad.gae(rewards.masked_fill(~mask, 1e3), values.masked_fill(~mask, 1e3),
                            config=polgrad.GAEConfig(gamma=0.97, lam=0.9), response_mask=mask)
    found = value.gae(rewards[mask], values[mask], lengths, 0.97, 0.9)
    for ours, theirs in zip(found, reference):
        assert torch.allclose(ours, theirs[mask], atol=1e-12)
    for shift in (True, False):
        reference = polgrad.whiten(rewards.masked_fill(~mask, 1e3), mask, shift_mean=shift)
        assert torch.allclose(value.whiten(rewards[mask], shift_mean=shift), reference[mask], atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_value_loss_against_polgrad(clip):
    torch.manual_seed(0)
    new, old, returns = torch.randn(3, 8, dtype=torch.float64)
    everywhere = torch.ones(1, 8, dtype=torch.bool)
    reference = polgrad.value_loss(new[None], old[None], returns[None], everywhere, clip_eps=clip or None,
                                   aggregation=polgrad.Aggregation.TOKEN_MEAN).loss
    assert torch.isclose(value.value_loss(new, old, returns, torch.full((8,), 1 / 8), clip)[0], reference)


def test_explained_variance():
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert value.explained_variance(returns, returns) == 1
    assert value.explained_variance(torch.ones(3), returns) == 0
    assert value.explained_variance(torch.zeros(3), torch.zeros(3)) == 0


@pytest.mark.parametrize(("aggregation", "trl"), [("sequence_mean", "grpo"), ("token_mean", "bnpo"), ("constant", "dr_grpo")])
def test_policy_losses_against_trl(aggregation, trl):
    """TRL 1.16's GRPO loss for one process and no accumulation, on padded rows: clipped, with k3 in the loss, β 0.04. Its KL is
    weighed as its loss is, and so is ours."""
    torch.manual_seed(0)
    lengths, width = [3, 1, 5], 6
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).double()
    new, old, ref = (0.3 * torch.randn(3, 3, width, dtype=torch.float64)).unbind()
    advantages = torch.tensor([[1.5], [-0.5], [-1.0]], dtype=torch.float64)
    coef_1 = torch.exp(new - old)
    each = -torch.min(coef_1 * advantages, coef_1.clamp(0.8, 1.28) * advantages)
    each = each + 0.04 * (torch.exp(ref - new) - (ref - new) - 1)
    theirs = {"grpo": ((each * mask).sum(-1) / mask.sum(-1)).mean(), "bnpo": (each * mask).sum() / mask.sum(),
              "dr_grpo": (each * mask).sum() / (3 * 8)}[trl]
    inside = mask.bool()
    weights = torch.tensor(token_weights(lengths, aggregation, 8), dtype=torch.float64)
    ours = clipped(new[inside], old[inside], advantages.expand_as(mask)[inside], weights, 0.2, 0.28)[0]
    ours = ours + 0.04 * (weights * kl.k3(new[inside], ref[inside])).sum()
    assert torch.isclose(ours, theirs)
