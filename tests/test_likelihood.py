"""Every outcome family: hand-worked numbers, probabilities that sum to one, gradients against finite differences."""

import itertools
import math

import choix
import numpy as np
import pytest

from harken.labelers.models import likelihood as L

ETA = np.array([-3.0, -0.4, 0.0, 0.7, 2.5])
WON = np.array([1, 0, -1, 0, 1])


def numeric(f, x, step=1e-6):
    """Derivative of f's first result, summed over judgments, by each entry of x."""
    x = np.asarray(x, dtype=float)
    found = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        e = np.zeros_like(x)
        e[at] = step
        found[at] = (f(x + e)[0].sum() - f(x - e)[0].sum()) / 2 / step
    return found


def test_the_predictor_adds_what_pulls_beside_the_score():
    """beta 2, score gap 0.5, shown first with a pull of 0.3, two doublings at 0.1: 1 + 0.3 + 0.2."""
    assert L.predictor(0.5, 2.0, 0.3, 1, 0.1, 2.0) == pytest.approx(1.5)
    assert L.predictor(0.5, -1.0, leniency=0.2) == pytest.approx(-0.3)


def test_davidson_and_rao_kupper_by_hand():
    """p = e, 1. Davidson, nu = 2: a wins with e / (e + 1 + 2 sqrt e). Rao–Kupper, theta = 2: e / (e + 2),
    tie 3e / ((e + 2)(2e + 1))."""
    e, one = math.e, np.array([1.0])
    assert np.exp(L.davidson(one, math.log(2), np.array([1]))[0]) == pytest.approx(e / (e + 1 + 2 * math.sqrt(e)))
    assert np.exp(L.rao_kupper(one, math.log(2), np.array([1]))[0]) == pytest.approx(e / (e + 2))
    assert np.exp(L.rao_kupper(one, math.log(2), np.array([0]))[0]) == pytest.approx(3 * e / ((e + 2) * (2 * e + 1)))


@pytest.mark.parametrize("family", [L.davidson, L.rao_kupper])
def test_comparisons_sum_to_one_and_their_gradients_hold(family):
    total = sum(np.exp(family(ETA, 0.6, np.full(5, won))[0]) for won in (1, 0, -1))
    assert np.allclose(total, 1)
    _, d_eta, d_tie = family(ETA, 0.6, WON)
    assert np.allclose(d_eta, numeric(lambda x: family(x, 0.6, WON), ETA), atol=1e-8)
    assert np.allclose(d_tie.sum(), numeric(lambda t: family(ETA, t, WON), 0.6), atol=1e-8)


def test_nothing_overflows_far_out():
    far = np.array([-800.0, 800.0])
    for won in (-1, 0, 1):
        for found in (L.davidson(far, 0.1, np.full(2, won)), L.rao_kupper(far, 0.1, np.full(2, won)),
                      L.half_wins(far, np.full(2, won)), L.ordinal(far, np.array([-1.0, 1.0]), np.full(2, won + 1))):
            assert all(np.isfinite(x).all() for x in found)
    assert np.isfinite(L.crowd_odds(far, np.array([2.0, -2.0]))[0]).all()


def test_half_wins_is_bradley_terry_with_a_tie_as_half_a_win_each_way():
    logp, d = L.half_wins(np.array([1.0, 1.0]), np.array([1, 0]))
    p = 1 / (1 + math.exp(-1))
    assert logp.tolist() == pytest.approx([math.log(p), (math.log(p) + math.log(1 - p)) / 2])
    assert d.tolist() == pytest.approx([1 - p, 0.5 - p])


def test_crowd_bt_by_hand_and_its_gradients():
    """eta 0.8, d = 1: 0.8 sigma(1) + 0.2 sigma(-1). A coin (eta 1/2) says 1/2 whatever the scores."""
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    up = 1 / (1 + math.exp(-1))
    odds, _, _ = L.crowd_odds(np.array([1.0, 3.0]), np.array([logit(0.8), 0.0]))
    assert odds.tolist() == pytest.approx([logit(0.8 * up + 0.2 * (1 - up)), 0.0])
    h = np.array([2.0, -1.0, 0.3, 4.0, 0.0])
    _, by_d, by_h = L.crowd_odds(ETA, h)
    assert np.allclose(by_d, numeric(lambda x: L.crowd_odds(x, h), ETA), atol=1e-8)
    assert np.allclose(by_h, numeric(lambda x: L.crowd_odds(ETA, x), h), atol=1e-8)


RANKS = np.array([[1, 2, 3, 4], [2, 1, 2, 3], [1, 1, 1, 1], [3, 1, 2, 1]])
U = np.random.default_rng(0).normal(size=(4, 4))


@pytest.mark.parametrize("family", [L.all_pairs, L.plackett_luce])
def test_rankings_have_the_gradients_of_finite_differences(family):
    _, d_u, d_nu = family(U, -0.5, RANKS)
    assert np.allclose(d_u, numeric(lambda x: family(x, -0.5, RANKS), U), atol=1e-8)
    assert np.allclose(d_nu.sum(), numeric(lambda t: family(U, float(t), RANKS), -0.5), atol=1e-8)


def weak_orders(k):
    """All rankings of k options with ties, as dense ranks."""
    return [r for r in itertools.product(range(1, k + 1), repeat=k) if set(r) == set(range(1, max(r) + 1))]


def test_davidson_luce_sums_to_one_over_all_rankings_with_ties():
    orders = np.array(weak_orders(4))
    assert len(orders) == 75
    assert np.exp(L.plackett_luce(np.tile(U[0], (75, 1)), 0.3, orders)[0]).sum() == pytest.approx(1)
    strict = np.array([r for r in weak_orders(4) if len(set(r)) == 4])
    assert np.exp(L.plackett_luce(np.tile(U[0], (24, 1)), None, strict)[0]).sum() == pytest.approx(1)


def test_davidson_luce_of_two_is_davidson():
    u = np.stack([ETA, np.zeros(5)], axis=1)
    ranks = np.stack([2 - WON, 2 + WON], axis=1)
    assert np.allclose(L.plackett_luce(u, 0.4, ranks)[0], L.davidson(ETA, 0.4, WON)[0])
    assert np.allclose(L.all_pairs(u, 0.4, ranks)[0], L.davidson(ETA, 0.4, WON)[0])


def test_plackett_luce_is_choix():
    data = [(2, 0, 3, 1), (0, 1, 2, 3), (3, 2, 1, 0)]
    ranks = np.array([[order.index(i) + 1 for i in range(4)] for order in data])
    mine = L.plackett_luce(np.tile(U[0], (3, 1)), None, ranks)[0].sum()
    # choix's top-1 lists: each stage of a ranking is a choice among those left
    stages = [(order[k], tuple(order[k + 1:])) for order in data for k in range(3)]
    assert mine == pytest.approx(choix.log_likelihood_top1(stages, U[0]))


def test_p32_ties_need_a_tie_parameter_and_order_within_a_tie_is_nothing():
    with pytest.raises(ValueError, match="has ties"):
        L.plackett_luce(U, None, RANKS)
    with pytest.raises(ValueError, match="use all_pairs"):
        L.plackett_luce(np.zeros((1, 13)), 0.0, np.arange(1, 14)[None])
    swapped = U[:, [2, 1, 0, 3]]
    assert L.plackett_luce(U, 0.1, RANKS)[0][2] == pytest.approx(L.plackett_luce(swapped, 0.1, RANKS)[0][2])


def test_grades_sum_to_one_and_a_lenient_hand_grades_higher():
    """Cuts -1, 0, 2. P(grade >= 2) = sigma(eta - 0)."""
    cuts, grades = np.array([-1.0, 0.0, 2.0]), np.array([0, 1, 2, 3, 1])
    table = np.stack([np.exp(L.ordinal(ETA, cuts, np.full(5, g))[0]) for g in range(4)], axis=1)
    assert np.allclose(table.sum(1), 1) and np.allclose(table[:, 2:].sum(1), L.sigmoid(ETA))
    _, d_eta, d_cuts = L.ordinal(ETA, cuts, grades)
    assert np.allclose(d_eta, numeric(lambda x: L.ordinal(x, cuts, grades), ETA), atol=1e-8)
    assert np.allclose(d_cuts.sum(0), numeric(lambda c: L.ordinal(ETA, c, grades), cuts), atol=1e-8)
    strict, lenient = (L.predictor(np.array([0.2]), 1.0, leniency=x) for x in (-1.0, 1.0))
    assert L.ordinal(lenient, cuts, np.array([3]))[0] > L.ordinal(strict, cuts, np.array([3]))[0]
    with pytest.raises(ValueError, match="must rise"):
        L.ordinal(ETA, cuts[::-1], grades)


def test_graded_comparisons_are_symmetric_about_no_preference():
    cuts = np.array([-2.0, -0.5, 0.5, 2.0])
    assert np.allclose(L.ordinal(ETA, cuts, np.full(5, 4))[0], L.ordinal(-ETA, cuts, np.full(5, 0))[0])


def test_choices_thumbs_and_use():
    """u = ln 3, 0 over what is on offer: the first is chosen with 3/4. A thumb is an ordinal of two grades."""
    u = np.array([[math.log(3), 0.0, -np.inf]])
    assert np.exp(L.chosen(u, np.array([0]))[0]) == pytest.approx(3 / 4)
    said = np.array([0, 1, 2, 3])
    assert np.allclose(L.chosen(U, said)[1], numeric(lambda x: L.chosen(x, said), U), atol=1e-8)
    up = np.array([1, 0, 1, 0, 1])
    logp, d = L.thumb(ETA, up)
    same, same_d, _ = L.ordinal(ETA, np.array([0.0]), up)
    assert np.allclose(logp, same) and np.allclose(d, same_d)
    what = np.array([0, 1, 2, 0, 1])
    _, d_eta, d_outside = L.use(ETA, [0.5, -1.0], what)
    assert np.allclose(d_eta, numeric(lambda x: L.use(x, [0.5, -1.0], what), ETA), atol=1e-8)
    assert np.allclose(d_outside.sum(0), numeric(lambda o: L.use(ETA, o, what), [0.5, -1.0]), atol=1e-8)
