"""Paired comparisons, tests, power, seeds: hand-worked values, scipy as the reference, coverage where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harken.stats.compare import bounded_mean, compare, compare_tasks, pair
from harken.stats.intervals import bootstrap, bootstrap_mean, clopper_pearson, mean_interval
from harken.stats.power import least_detectable, needed, needed_equivalent, power, spread
from harken.stats.seeds import seeds_difference, seeds_mean
from harken.stats.testing import benjamini_hochberg, equivalence, holm, mcnemar, p_value
from marks import slow


def as_runs(a, b):
    return ({str(i): float(x) for i, x in enumerate(row)} for row in (a, b))


# --- exact and bootstrap -----------------------------------------------------------------------

def test_clopper_pearson_by_hand_and_scipy():
    """0 of 10: the upper end solves (1 - p)^10 = .025: 1 - .025^(1/10) = .308497."""
    e = clopper_pearson(0, 10)
    assert e.low == 0 and e.high == pytest.approx(0.308497, abs=1e-6)
    for k, n, level in [(7, 10, 0.95), (1, 40, 0.9), (40, 40, 0.9)]:
        e, reference = clopper_pearson(k, n, level), stats.binomtest(k, n).proportion_ci(level, "exact")
        assert (e.low, e.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    for bad in [(2.5, 10), (11, 10), (0, 0)]:
        with pytest.raises(ValueError, match="whole number"):
            clopper_pearson(*bad)


@pytest.mark.parametrize("n, p", [(10, 0.05), (10, 0.5), (47, 0.3), (200, 0.97)])
def test_clopper_pearson_never_covers_less(n, p):
    """Summed over all outcomes, not simulated."""
    k = np.arange(n + 1)
    holds = [(e := clopper_pearson(int(i), n, 0.9)).low <= p <= e.high for i in k]
    assert stats.binom.pmf(k, n, p) @ holds >= 0.9


def test_the_bootstrap_makes_up_for_few_units():
    """Of 10 values: plain percentiles cover about 86 %, and these about 90 %."""
    rng, plain, expanded = np.random.default_rng(0), 0, 0
    for _ in range(400):
        x = rng.normal(size=10)
        e = bootstrap_mean(x, seed=int(rng.integers(1 << 30)), draws=300, level=0.9)
        means = x[np.random.default_rng(1).integers(10, size=(300, 10))].mean(1)
        plain += np.quantile(means, 0.05) <= 0 <= np.quantile(means, 0.95)
        expanded += e.low <= 0 <= e.high
    assert plain / 400 < 0.88 and 0.87 < expanded / 400 < 0.94


def test_a_statistic_without_value_is_refused():
    with pytest.raises(ValueError, match="4 units are too few"):
        bootstrap(lambda d: float("nan") if len(set(d.tolist())) < 4 else 1.0, 4)
    assert bootstrap(lambda d: 2.0, 1).high == math.inf


# --- tests -------------------------------------------------------------------------------------

def test_mcnemar_by_hand_and_scipy():
    """12 against 4: 2 P(X <= 4), X ~ Bin(16, 1/2) = 2 * 2517 / 65536 = .076813. 40 against 20: z = 2.581989."""
    assert mcnemar(12, 4) == pytest.approx(0.076813, abs=1e-6)
    assert mcnemar(12, 4) == pytest.approx(stats.binomtest(4, 16).pvalue)
    assert mcnemar(40, 20) == pytest.approx(2 * stats.norm.sf(2.5819889))
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1


def test_p_values_are_exact_where_few_units_differ():
    d = np.zeros(100)
    d[:5] = 1
    assert p_value(d) == 2 * 0.5**5
    d[:3] = [0.5, -0.2, 0.1]  # |sum| >= 2.4 among the 32 sign changes of .5, -.2, .1, 1, 1: counted by hand
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1)
    assert p_value(d) == (np.abs(signs.T @ [0.5, 0.2, 0.1, 1, 1]) >= 2.4 - 1e-9).mean()
    many = np.random.default_rng(0).normal(0.1, 1, 200)
    assert p_value(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue)
    assert p_value(np.zeros(5)) == 1


@pytest.mark.parametrize("unit", [1e-11, 1e-4, 1.0, 1e9])
def test_p_values_do_not_depend_on_the_unit(unit):
    """Of 8 sign changes of (3, 2, 2) those with |sum| >= 3 are +++ (7), ++- and +-+ (3), and their mirrors: 6 of 8."""
    assert p_value(np.array([3.0, 2.0, -2.0]) * unit) == pytest.approx(6 / 8)


def test_holm_and_benjamini_hochberg_by_hand():
    """.01, .04, .03 of three: Holm .03, .06, .06; BH .03, .04, .04."""
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert benjamini_hochberg([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.04, 0.04])
    p = np.random.default_rng(0).uniform(size=30) ** 3
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert holm([]).size == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, float("nan")])


def test_equivalence_is_two_one_sided_tests():
    d = np.random.default_rng(1).normal(0.01, 0.3, 400)
    e = equivalence(d, 0.06)
    low = stats.ttest_1samp(d, -0.06, alternative="greater").pvalue
    high = stats.ttest_1samp(d, 0.06, alternative="less").pvalue
    assert e.p == pytest.approx(max(low, high)) and e.equivalent == (e.p < 0.05)
    assert e.interval.level == pytest.approx(0.9)
    assert not equivalence(d, 0.01).equivalent
    assert not equivalence([0.0] * 5, 0.05, bounds=(-1, 1)).equivalent  # five equal scores are no proof
    with pytest.raises(ValueError, match="above 0"):
        equivalence(d, 0.0)


# --- power -------------------------------------------------------------------------------------

def test_power_equals_statsmodels():
    """statsmodels 0.15: TTestPower().power(.2, 100, .05) = .508265; solve_power(.1, power=.8, alpha=.05) = 786.8."""
    assert power(0.2, 1.0, 100) == pytest.approx(0.508264806621038, abs=1e-6)
    assert needed(0.1, 1.0) == 787
    assert power(0.0, 1.0, 50) == pytest.approx(0.05, abs=2e-6)
    assert needed(0.0, 1.0) == math.inf and needed(500.0, 0.1) == 2


@given(st.floats(0.05, 2), st.integers(5, 2000))
@settings(max_examples=20, deadline=None)
def test_the_least_detectable_difference_has_the_power_it_claims(sd, n):
    assert power(least_detectable(sd, n), sd, n) == pytest.approx(0.8, abs=1e-6)


def test_simulated_power_and_equivalence():
    rng = np.random.default_rng(3)
    x = rng.normal(0.25, 1, (2000, 60))
    assert (stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(power(0.25, 1, 60), abs=0.03)
    n = int(needed_equivalent(0.2, 1.0))
    shown = np.mean([equivalence(rng.normal(0, 1, n), 0.2).equivalent for _ in range(400)])
    assert shown == pytest.approx(0.8, abs=0.06)
    assert needed_equivalent(0.1, 1.0, difference=0.1) == math.inf


def test_spread_by_hand():
    """between .3, within .4 over 4 samples on one side: sqrt(.09 + .04) = .360555."""
    assert spread(0.3, 0.4, 0.0, 4) == pytest.approx(0.360555, abs=1e-6)


# --- comparisons -------------------------------------------------------------------------------

def test_repeats_are_averaged_and_items_paired():
    p = pair({"x": [1, 0], "y": 1, "z": [None, 1], "only": 1}, {"y": 0, "x": [0, 0, 0], "z": None})
    assert p.items == ("x", "y") and p.a.tolist() == [0.5, 1] and p.b.tolist() == [0, 0]
    assert set(p.missing) == {"z", "only"} and p.missing_scores == 2 and p.repeats == 3
    with pytest.raises(ValueError, match="no item has a score in both"):
        pair({"x": 1}, {"y": 1})
    with pytest.raises(ValueError, match="not finite"):
        pair({"x": float("nan")}, {"x": 1})


@given(st.integers(1, 5))
@settings(max_examples=5, deadline=None)
def test_duplicating_items_changes_no_interval(k):
    rng = np.random.default_rng(0)
    a, b = as_runs(rng.random(30), rng.random(30))
    many = [{f"{i}/{j}": x for i, x in run.items() for j in range(k)} for run in (a, b)]
    group = {f"{i}/{j}": i for i in a for j in range(k)}
    one, copied = compare(a, b), compare(*many, clusters=group)
    assert (copied.difference.low, copied.difference.high) == pytest.approx((one.difference.low, one.difference.high))
    repeated = compare({i: [x] * k for i, x in a.items()}, b)
    assert repeated.difference.high == pytest.approx(one.difference.high) and copied.p == pytest.approx(one.p)


def test_verdicts_are_words():
    rng = np.random.default_rng(0)
    base = rng.random(400)
    better = compare(*as_runs(base + 0.1 + rng.normal(0, 0.1, 400), base))
    assert better.verdict == "better" and better.more is None and str(better).startswith("A is better than B (+0.1")
    worse = compare(*as_runs(base - 0.1 + rng.normal(0, 0.1, 400), base))
    assert worse.verdict == "worse"
    same = list(as_runs(base + rng.normal(0, 0.05, 400), base))
    tied = compare(*same, margin=0.02)
    assert tied.verdict == "tied" and "tied: the difference lies within ±0.02" in str(tied)
    open_ = compare(*same)  # without a margin an interval that holds 0 proves nothing
    assert open_.verdict == "inconclusive" and "inconclusive: " in str(open_)
    few = compare(*as_runs(base[:20] + rng.normal(0, 0.3, 20), base[:20]), margin=0.02)
    assert few.verdict == "inconclusive" and few.more > 1000 and "about " in str(few) and "more items" in str(few)


def test_equal_scores_on_few_items_are_no_tie():
    c = compare(*as_runs([1] * 10, [1] * 10), bounds=(0, 1), margin=0.05)
    assert c.verdict == "inconclusive" and c.more > 0
    assert compare(*as_runs([1] * 500, [1] * 500), bounds=(0, 1), margin=0.05).verdict == "tied"


def test_about_n_more_is_enough():
    """Adding what it asks for shows a difference of the margin's size four times in five."""
    rng = np.random.default_rng(5)
    c = compare(*as_runs(rng.normal(0.0, 1, 60), np.zeros(60)), margin=0.2)
    n, sd = 60 + c.more, c.sd
    assert power(0.2, sd, n) >= 0.8 and needed_equivalent(0.2, sd) <= n


def test_missing_is_counted_and_bounded():
    """Ten items: 8 shared with difference .25; one lost in b (a: 1), one in both: best (2 + 1 - 0 + 1 - 0)/10 = .4."""
    a = {str(i): 1.0 if i < 4 else 0.5 for i in range(8)} | {"lost": 1.0, "both": None}
    b = {str(i): 0.5 for i in range(8)} | {"lost": None, "both": None}
    c = compare(a, b, bounds=(0, 1))
    assert c.missing == 2 and c.difference.value == 0.25
    assert c.worst == pytest.approx((2 + 0 - 1) / 10) and c.best == pytest.approx(0.4)
    assert "2 items lack a score, so it lies between +0.100 and +0.400" in str(c) or c.worst == pytest.approx(0.1)
    assert compare(a, b).worst is None
    assert bounded_mean([1, None, 0, 1], (0, 1)) == (0.5, 0.75)


def test_tasks_are_corrected_by_holm():
    rng = np.random.default_rng(2)
    tasks = {f"t{i}": tuple(as_runs(rng.normal(0.25 if i == 0 else 0, 1, 100), np.zeros(100))) for i in range(5)}
    alone, together = {k: compare(*v) for k, v in tasks.items()}, compare_tasks(tasks)
    assert [c.p for c in together.values()] == pytest.approx(holm([c.p for c in alone.values()]).tolist())
    assert all(c.tasks == 5 for c in together.values()) and "(Holm, 5 tasks)" in str(together["t1"])
    assert together["t0"].difference == alone["t0"].difference


@pytest.mark.slow
def test_false_claims_over_tasks_stay_at_alpha():
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(60):
        tasks = {f"t{i}": tuple(as_runs(rng.normal(0, 1, 40), np.zeros(40))) for i in range(5)}
        wrong += any(c.verdict in ("better", "worse") for c in compare_tasks(tasks).values())
    assert wrong / 60 < 0.12


@pytest.mark.parametrize("clusters", [True, *slow(False)])
def test_paired_intervals_cover(clusters):
    rng, held = np.random.default_rng(11), 0
    for _ in range(300):
        own = rng.normal(0, 0.5, 30)[np.arange(90) // 3]
        a, b = as_runs(rng.normal(0.2, 1, 90) + own, rng.normal(0, 1, 90))
        group = {str(i): i // 3 for i in range(90)} if clusters else None
        e = compare(a, b, clusters=group, level=0.9).difference
        held += e.low <= 0.2 <= e.high
    assert (0.86 if clusters else 0.75) < held / 300 < 0.95


# --- seeds -------------------------------------------------------------------------------------

def test_seeds_by_hand():
    """[[1, 3], [2, 6]]: row means 2, 4; column means 1.5, 4.5; mean 3. MS_seed = 2 * 2 = 4, MS_item = 2 * 4.5 = 9,
    MS_rest = 4 * .5^2 = 1; Var = (4 + 9 - 1) / 4 = 3."""
    e = seeds_mean([[1, 3], [2, 6]])
    degrees = 12**2 / (16 + 81 + 1)
    assert e.value == 3 and e.high - 3 == pytest.approx(stats.t.ppf(0.975, degrees) * math.sqrt(3))


def test_seeds_cover_what_items_alone_miss():
    rng, both, items = np.random.default_rng(0), 0, 0
    for _ in range(400):
        x = 0.3 * rng.normal(size=(4, 1)) + rng.normal(size=(1, 50)) + rng.normal(size=(4, 50))
        e, f = seeds_mean(x, level=0.9), mean_interval(x.mean(0), None, 0.9)
        both += e.low <= 0 <= e.high
        items += f.low <= 0 <= f.high
    assert 0.86 < both / 400 < 0.95 and items / 400 < 0.86


def test_seeds_refuse_what_they_cannot_know():
    for bad, match in [([[1, 2]], "two of each"), ([[1, float("nan")], [1, 2]], "1 scores are missing")]:
        with pytest.raises(ValueError, match=match):
            seeds_mean(bad)
    with pytest.raises(ValueError, match="paired=False"):
        seeds_difference(np.zeros((2, 3)), np.zeros((3, 3)))
    a = np.random.default_rng(0).normal(size=(3, 40))
    assert seeds_difference(a + 1, a).value == pytest.approx(1)
    halves = seeds_mean(np.repeat(a, 2, axis=1), np.repeat(np.arange(40), 2))
    assert (halves.low, halves.high) == pytest.approx((seeds_mean(a).low, seeds_mean(a).high))
