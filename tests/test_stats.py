"""Statistics: hand-worked values, coverage on data whose truth is known, and agreement with choix."""

from __future__ import annotations

import json
import math

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from harken.stats.bradley_terry import bradley_terry, check_connected, count_wins
from harken.stats.calibration import brier, fold, reliability, reward_calibration
from harken.stats.intervals import bootstrap_mean, mean_interval, paired_difference, wilson
from harken.stats.pairs import ordered_apart
from harken.stats.winrate import win_rate


def width(e):
    return e.high - e.low


# --- intervals ---------------------------------------------------------------------------------

def test_wilson_by_hand():
    """7 of 10 at z = 1.959964: centre (.7 + .192073)/(1.384146) = .644493; half-width .247715."""
    e = wilson(7, 10)
    assert (e.value, e.n, e.level) == (0.7, 10, 0.95)
    assert e.low == pytest.approx(0.396777, abs=2e-6) and e.high == pytest.approx(0.892209, abs=2e-6)


def test_wilson_at_the_ends():
    """0 of 10 reaches up to z^2/(n + z^2) = 3.841459/13.841459 = .277533, and starts at 0 exactly."""
    e = wilson(0, 10)
    assert e.low == 0 and e.high == pytest.approx(0.277533, abs=1e-6)
    assert wilson(10, 10).high == 1 and wilson(10, 10).low == pytest.approx(1 - 0.277533, abs=1e-6)
    assert wilson(7.5, 10).value == 0.75
    for bad in [(11, 10), (-1, 10), (0, 0)]:
        with pytest.raises(ValueError, match="between 0 and n"):
            wilson(*bad)


@given(st.integers(1, 300), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_wilson_contains_its_value(n, share):
    e = wilson(round(2 * n * share) / 2, n)
    assert 0 <= e.low <= e.value <= e.high <= 1


def test_mean_by_hand():
    """1, 2, 3, 4: mean 2.5, sd 1.290994, SE .645497, t(3) = 3.182446: half-width 2.054260."""
    e = mean_interval([1, 2, 3, 4])
    assert e.value == 2.5 and e.n == 4
    assert e.high - 2.5 == pytest.approx(2.054260, abs=1e-6) and e.low + e.high == pytest.approx(5)


def test_clusters_by_hand():
    """Clusters {1, 3}, {5}, {6, 10}: mean 5, sums of deviations -6, 0, 6; SE = sqrt(3/2 * 72)/5 = 2.078461."""
    e = mean_interval([1, 3, 5, 6, 10], ["a", "a", "b", "c", "c"])
    assert e.n == 3 and e.value == 5
    assert e.high - 5 == pytest.approx(4.302653 * 2.078461, abs=1e-5)


def test_one_value_and_equal_values():
    one = mean_interval([3.0])
    assert (one.low, one.high, one.n) == (-math.inf, math.inf, 1)
    assert mean_interval([0.3], bounds=(0, 1)).low < 0.2
    assert width(mean_interval([2.0] * 5)) == 0
    perfect = mean_interval([1.0] * 20, bounds=(0, 1))
    assert perfect.value == 1 and perfect.low == pytest.approx(wilson(20, 20).low)
    nearly = mean_interval([1.0] * 29 + [0.5], bounds=(0, 1))
    assert nearly.low < 0.88 and nearly.high < 1


def test_missing_values_are_named():
    with pytest.raises(ValueError, match="index 1, 3"):
        mean_interval([1.0, float("nan"), 2.0, None])
    with pytest.raises(ValueError, match="b has 1 missing"):
        paired_difference([1.0, 2.0], [1.0, float("inf")])
    with pytest.raises(ValueError, match="empty"):
        mean_interval([])
    with pytest.raises(ValueError, match="same items"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="outside the bounds"):
        mean_interval([0.5, 1.5], bounds=(0, 1))


@pytest.mark.parametrize("level", [0.90, 0.95])
@pytest.mark.parametrize("n", [12, 200])
def test_mean_interval_covers(level, n):
    rng = np.random.default_rng(1)
    hits = [e.low <= 3.0 <= e.high for e in (mean_interval(rng.normal(3, 2, n), level=level) for _ in range(3000))]
    assert np.mean(hits) == pytest.approx(level, abs=0.013)


@pytest.mark.parametrize("p", [0.03, 0.5, 0.9])
def test_wilson_covers(p):
    rng = np.random.default_rng(2)
    hits = [e.low <= p <= e.high for e in (wilson(k, 80) for k in rng.binomial(80, p, 3000))]
    assert 0.93 <= np.mean(hits) <= 0.98


def test_clustered_interval_covers_where_the_naive_one_does_not():
    """40 prompts of unequal size with intra-class correlation about one half (E13)."""
    rng = np.random.default_rng(3)
    robust, naive = [], []
    for _ in range(1500):
        prompt = np.repeat(np.arange(40), rng.integers(1, 9, 40))
        x = rng.normal(size=40)[prompt] + rng.normal(size=len(prompt))
        robust.append((e := mean_interval(x, prompt)).low <= 0 <= e.high)
        naive.append((e := mean_interval(x)).low <= 0 <= e.high)
    assert np.mean(robust) == pytest.approx(0.94, abs=0.02) and np.mean(naive) < 0.85


@pytest.mark.parametrize("make", [mean_interval, lambda x, c: mean_interval(x, c, bounds=(0, 1)),
                                  lambda x, c: bootstrap_mean(x, c, seed=5, draws=2000)])
@pytest.mark.parametrize("binary", [True, False])
def test_copying_every_row_leaves_the_interval_unchanged(make, binary):
    """E13, E14."""
    rng = np.random.default_rng(4)
    x = rng.random(30).round() if binary else rng.random(30)
    once, thrice = make(x, np.arange(30)), make(np.repeat(x, 3), np.repeat(np.arange(30), 3))
    assert (thrice.value, thrice.low, thrice.high, thrice.n) == pytest.approx((once.value, once.low, once.high, 30))


def test_bootstrap_agrees_with_the_formula_and_its_seed():
    rng = np.random.default_rng(6)
    prompt = np.repeat(np.arange(80), 3)
    x = rng.normal(size=80)[prompt] + rng.normal(size=240)
    a, b = bootstrap_mean(x, prompt, seed=1), mean_interval(x, prompt)
    assert a.low == pytest.approx(b.low, abs=0.04) and a.high == pytest.approx(b.high, abs=0.04)
    assert a == bootstrap_mean(x, prompt, seed=1) != bootstrap_mean(x, prompt, seed=2)


def test_e12_pairing_is_narrower_and_still_covers():
    """E12: shared difficulty, correlation about .8 between two models on the same prompts."""
    rng = np.random.default_rng(7)
    hits, ratio = [], []
    for _ in range(1500):
        difficulty = rng.normal(size=60)
        a, b = difficulty + 0.5 * rng.normal(size=60) + 0.2, difficulty + 0.5 * rng.normal(size=60)
        paired = paired_difference(a, b)
        hits.append(paired.low <= 0.2 <= paired.high)
        ratio.append(width(paired) / math.hypot(width(mean_interval(a)), width(mean_interval(b))))
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015) and np.mean(ratio) < 0.55


# --- win rate ----------------------------------------------------------------------------------

def test_win_rate_by_hand():
    """Prompt 1: [2, 1] against [1]: 1 and a tie, 3/4. Prompt 2: [0] against [1, 2]: 0. Mean 3/8, ties 1/4."""
    r = win_rate([[2, 1], [0]], [[1], [1, 2]])
    assert r.value.value == 0.375 and r.value.n == 2 and r.tie_rate == 0.25
    assert (r.missing, r.unscored_prompts, r.worst, r.best) == (0, 0, 0.375, 0.375)


def test_missing_scores_are_counted_and_bounded():
    """E8: prompt 2 keeps one of its two pairs; prompt 3 has none left."""
    r = win_rate([[1.0], [1.0, None], [None]], [[0.0], [0.0], [0.0]])
    assert r.value.value == 1 and r.value.n == 2 and (r.missing, r.unscored_prompts) == (2, 1)
    assert r.worst == pytest.approx((1 + 0.5 + 0) / 3) and r.best == 1
    with pytest.raises(ValueError, match="none of 1 prompts"):
        win_rate([[None]], [[1.0]])
    with pytest.raises(ValueError, match="prompt 1 are NaN at completion 0"):
        win_rate([[1.0], [float("nan")]], [[0.0], [0.0]])
    with pytest.raises(ValueError, match="same prompts"):
        win_rate([[1.0]], [])


def test_all_wins_is_no_certainty():
    r = win_rate([[1.0]] * 25, [[0.0]] * 25).value
    assert r.value == 1 and r.low == pytest.approx(wilson(25, 25).low) and r.low < 0.9


def test_e14_repeating_completions_does_not_shrink_the_win_rate():
    """E14."""
    rng = np.random.default_rng(8)
    a, b = rng.normal(0.3, 1, (50, 2)), rng.normal(0, 1, (50, 2))
    once, more = win_rate(a.tolist(), b.tolist()), win_rate(np.repeat(a, 4, 1).tolist(), b.tolist())
    assert more.value.low == pytest.approx(once.value.low) and more.value.n == 50


@pytest.mark.slow
def test_win_rate_covers():
    """a ~ N(m, 1) against b ~ N(0, 1), two completions each: the truth is Phi(m / sqrt 2)."""
    rng = np.random.default_rng(9)
    for m, prompts in [(0.5, 40), (2.0, 30)]:
        hits = []
        for _ in range(600):
            e = win_rate(rng.normal(m, 1, (prompts, 2)).tolist(), rng.normal(0, 1, (prompts, 2)).tolist()).value
            hits.append(e.low <= special.ndtr(m / math.sqrt(2)) <= e.high)
        assert 0.92 <= np.mean(hits) <= 0.985, (m, np.mean(hits))


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=3),
                          st.lists(st.integers(0, 3), min_size=1, max_size=3)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_win_rates_of_both_sides_sum_to_one(rows):
    a, b = [r[0] for r in rows], [r[1] for r in rows]
    forth, back = win_rate(a, b), win_rate(b, a)
    assert forth.value.value + back.value.value == pytest.approx(1)
    assert forth.value.low == pytest.approx(1 - back.value.high) and forth.tie_rate == pytest.approx(back.tie_rate)


# --- Bradley–Terry -----------------------------------------------------------------------------

def tournament(n, games, seed):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=n)
    theta -= theta.mean()
    i, j = rng.integers(n, size=(2, games))
    i, j = i[i != j], j[i != j]
    won = rng.random(len(i)) < special.expit(theta[i] - theta[j])
    return theta, list(zip(np.where(won, i, j).tolist(), np.where(won, j, i).tolist()))


def test_two_items_by_hand():
    """3 wins against 1: theta difference ln 3; a tie counted as halves makes it ln(3.5/1.5)."""
    s = bradley_terry(np.array([[0.0, 3], [1, 0]])).scores
    assert s == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    ties = np.array([[0.0, 1], [1, 0]])
    s = bradley_terry(np.array([[0.0, 3], [1, 0]]), ties).scores
    assert s[0] - s[1] == pytest.approx(math.log(3.5 / 1.5))


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_choix(seed):
    _, pairs = tournament(12, 400, seed)
    wins = count_wins(pairs, 12)
    theirs = choix.opt_pairwise(12, pairs, alpha=0.0, method="Newton-CG", tol=1e-12)
    theirs = theirs - theirs.mean()
    for method in ("mm", "newton"):
        assert bradley_terry(wins, method=method).scores == pytest.approx(theirs, abs=1e-6)
    assert choix.ilsr_pairwise(12, pairs, tol=1e-12) == pytest.approx(bradley_terry(wins).scores, abs=1e-6)


def test_recovers_planted_scores():
    theta, pairs = tournament(8, 40_000, 5)
    assert bradley_terry(count_wins(pairs, 8)).scores == pytest.approx(theta, abs=0.08)


def test_davidson_by_hand_and_against_a_general_optimiser():
    """Two items, 4 wins, 1 loss, 3 ties: e^theta = 2 (4:1 = pi_1:pi_2 squared in halves), nu = 3/sqrt(4 * 1)."""
    fit = bradley_terry(np.array([[0.0, 4], [1, 0]]), np.array([[0.0, 3], [3, 0]]), tie_model="davidson")
    assert fit.tie == pytest.approx(1.5) and fit.scores[0] - fit.scores[1] == pytest.approx(math.log(4))
    assert fit.probability(0, 1) == pytest.approx(4 / 8)

    rng = np.random.default_rng(11)
    wins = rng.integers(1, 9, (5, 5)) * (1 - np.eye(5))
    ties = rng.integers(0, 6, (5, 5))
    ties = np.triu(ties, 1) + np.triu(ties, 1).T

    def loss(x):
        half = (x[:5, None] - x[None, :5]) / 2
        norm = np.log(np.exp(half) + np.exp(-half) + np.exp(x[5]))
        return -(wins * (half - norm)).sum() - (ties * (x[5] - norm)).sum() / 2

    best = optimize.minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9})
    fit = bradley_terry(wins, ties, tie_model="davidson")
    assert fit.scores == pytest.approx(best.x[:5] - best.x[:5].mean(), abs=1e-5)
    assert math.log(fit.tie) == pytest.approx(best.x[5], abs=1e-5) and fit.log_likelihood == pytest.approx(-best.fun)


def test_no_solution_is_said():
    apart = count_wins([(0, 1), (1, 0), (2, 3), (3, 2)], 4)
    with pytest.raises(ValueError, match=r"2 groups.*\[a, b\]; \[c, d\]"):
        bradley_terry(apart, names=["a", "b", "c", "d"])
    undefeated = count_wins([(0, 1), (0, 2), (1, 2), (2, 1)], 3)
    with pytest.raises(ValueError, match=r"(won|lost) every comparison"):
        check_connected(undefeated)
    assert np.ptp(bradley_terry(undefeated, prior=0.1).scores) < 10
    with pytest.raises(ValueError, match="run away"):
        bradley_terry(np.array([[0.0, 3], [0, 0]]), np.array([[0.0, 2], [2, 0]]), tie_model="davidson")
    with pytest.raises(ValueError, match="with itself"):
        bradley_terry(np.eye(2))


# --- calibration -------------------------------------------------------------------------------

def test_bins_by_hand():
    """[.15, .15, .85, .95] with outcomes [0, 1, 1, 1]: ECE = (2 * .35 + .15 + .05)/4 = .225."""
    c = reliability([0.15, 0.15, 0.85, 0.95], [0, 1, 1, 1])
    assert [(b["n"], b["observed"]) for b in c.bins] == [(2, 0.5), (1, 1.0), (1, 1.0)]
    assert c.ece == pytest.approx(0.225)
    assert c.brier.value == pytest.approx((0.0225 + 0.7225 + 0.0225 + 0.0025) / 4)
    assert reliability([0.0, 1.0], [0, 1]).ece == 0


def test_fold_sees_each_pair_from_the_predicted_winner():
    p, y = fold([2.0, -2.0, 0.0])
    assert p == pytest.approx([special.expit(2), special.expit(2), 0.5]) and y.tolist() == [1.0, 0.0, 0.5]


def test_calibrated_rewards_are_found_calibrated_and_overconfident_ones_not():
    rng = np.random.default_rng(12)
    true = rng.normal(0, 1.5, 8000)
    delta = np.where(rng.random(8000) < special.expit(true), true, -true)
    good, bad = reward_calibration(delta), reward_calibration(3 * delta)
    assert good.ece < 0.02 and bad.ece > 0.08 and good.brier.high < bad.brier.low
    inside = [b["low"] <= b["predicted"] <= b["high"] for b in good.bins]
    assert np.mean(inside) >= 0.8 and sum(b["n"] for b in good.bins) == 8000


def test_brier_is_clustered():
    rng = np.random.default_rng(13)
    p, y = rng.random(60), rng.random(60).round()
    once = brier(p, y)
    copied = brier(np.repeat(p, 5), np.repeat(y, 5), np.repeat(np.arange(60), 5))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    with pytest.raises(ValueError, match="between 0 and 1"):
        brier([1.2], [1])


def test_pairs_that_two_scores_order_differently_by_hand():
    """Three options: two of three pairs are turned, the one tied in one score counts half; a prompt is a cluster."""
    found = ordered_apart([("p", [1.0, 2.0, 3.0], [3.0, 2.0, 2.0]), ("q", [0.0, 1.0], [0.0, 5.0])])
    assert found.value == pytest.approx((1 + 1 + 0.5 + 0) / 4) and found.n == 2 and ordered_apart([("p", [1.0], [2.0])]) is None


def test_an_infinite_interval_is_null_in_json_and_comes_back():
    from harken.core.protocols import Estimate
    one = mean_interval([0.3], ["p"])
    row = json.loads(json.dumps(one.to_json(), allow_nan=False))
    assert row["low"] is None and row["high"] is None
    assert Estimate.from_json(row) == one and "inf" in str(one)
