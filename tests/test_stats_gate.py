"""The gate's rules against hand-worked numbers, and the canary's stop rule against its stated error."""

import math

import numpy as np
import pytest

from harken.stats.gate import Metric, Rule, decide
from harken.stats.sequential import BETS, Canary, against_recent


def metric(differences, groups=None, name="win_rate", **fields):
    items = {f"p{i}": d for i, d in enumerate(differences)}
    return Metric(name, {i: [0.5 + d] for i, d in items.items()}, {i: [0.5] for i in items},
                  dict(zip(items, groups)) if groups else {}, **fields)


def spread(mean, n, sd=0.2, seed=0):
    x = np.random.default_rng(seed).normal(0, sd, n)
    return (x - x.mean()) / x.std(ddof=1) * sd + mean


def test_verdicts_by_hand():
    """sd 0.2, n 100: the standard error is 0.02 exactly. t(99, 0.975) = 1.984, t(99, 0.95) = 1.660."""
    better = decide([metric(spread(0.05, 100))], [Rule("win_rate")])
    assert (better.verdict, better.ships) == ("better", True)
    d = better.outcomes[0].findings[0].difference
    assert d.low == pytest.approx(0.05 - 1.98422 * 0.02, abs=1e-4)
    assert decide([metric(spread(-0.05, 100))], [Rule("win_rate")]).verdict == "worse"
    open_ = decide([metric(spread(0.03, 100))], [Rule("win_rate")])
    assert (open_.verdict, open_.ships) == ("inconclusive", False) and open_.outcomes[0].findings[0].more > 0
    # -0.01 - 1.660 * 0.02 = -0.0432: not worse by 0.05, not shown for 0.04
    near = metric(spread(-0.01, 100))
    kept = decide([near], [Rule("win_rate", "not_worse", 0.05)])
    assert kept.ships and kept.verdict == "tied" and kept.outcomes[0].findings[0].bound == pytest.approx(-0.0432, abs=1e-4)
    assert not decide([near], [Rule("win_rate", "not_worse", 0.04)]).ships


@pytest.mark.parametrize("bounds", [None, (0, 1)])
def test_an_exact_tie_is_said_and_does_not_ship(bounds):
    """The same answers, 60 prompts: tied within 0.1. Where better is asked, that is not enough; where not worse, it is."""
    same = metric([0.0] * 60, ["a", "b"] * 30, bounds=bounds)
    asked = decide([same], [Rule("win_rate", margin=0.1)])
    assert (asked.verdict, asked.ships, asked.outcomes[0].findings[0].why) == ("tied", False, "as good, not better")
    assert decide([same], [Rule("win_rate")]).verdict == "inconclusive"  # without a margin nothing can be called equal
    kept = decide([same], [Rule("win_rate", "not_worse", 0.1)])
    assert (kept.verdict, kept.ships) == ("tied", True)
    assert decide([metric([0.0] * 4, bounds=(0, 1))], [Rule("win_rate", margin=0.1)]).verdict == "inconclusive"  # too few to tell
    with pytest.raises(ValueError, match="margin above 0"):
        Rule("win_rate", margin=0.0)


def test_a_group_that_falls_blocks_though_the_mean_rises():
    d = np.concatenate([spread(0.3, 180), spread(-0.3, 20, seed=1)])
    groups = ["plain"] * 180 + ["gullible"] * 20
    rules = [Rule("win_rate"), Rule("win_rate", "not_worse", 0.1, each=True)]
    found = decide([metric(d, groups)], rules)
    assert found.outcomes[0].holds and not found.ships and found.verdict == "worse"
    assert {f.name: f.verdict for f in found.outcomes[1].findings} == {"win_rate, gullible": "worse", "win_rate, plain": "better"}
    few = decide([metric(np.append(spread(0.3, 180), -0.3), ["plain"] * 180 + ["gullible"])], rules)
    assert few.verdict == "inconclusive"  # one prompt of a type shows nothing, and does not ship


@pytest.mark.slow
def test_the_chance_to_ship_a_falling_group_is_at_most_alpha():
    """The group's true difference is -margin, the worst of the hypothesis: 5 % of 1500, within three standard errors."""
    rng = np.random.default_rng(0)
    rule = [Rule("m", "not_worse", 0.1, each=True)]
    groups = ["a"] * 30 + ["b"] * 30
    shipped = sum(decide([metric(np.append(rng.normal(-0.1, 0.3, 30), rng.normal(0.3, 0.3, 30)), groups, "m")], rule).ships
                  for _ in range(1500))
    assert shipped / 1500 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
    assert shipped / 1500 > 0.02  # and the test is not idle


def test_missing_scores_lower_is_better_and_rules_that_are_none():
    holes = metric(spread(0.3, 100))
    holes.new.update({f"p{i}": [None] for i in range(10)})
    assert decide([holes], [Rule("win_rate")]).verdict == "inconclusive"
    lower = metric(spread(-0.3, 50), name="tax", higher=False)
    assert decide([lower], [Rule("tax")]).verdict == "better"
    bounded = metric(spread(-0.3, 50, sd=0.05), name="tax", higher=False, bounds=(-1.0, 1.0))
    assert decide([bounded], [Rule("tax")]).verdict == "better"
    for wrong in (lambda: Rule("m", "not_worse"), lambda: Rule("m", "not_worse", -1.0), lambda: Rule("m", "better", None, True),
                  lambda: decide([lower], []), lambda: decide([lower], [Rule("other")])):
        with pytest.raises(ValueError):
            wrong()


def test_e_values_by_hand():
    """One outcome of -1: e_stop is the mean of 1 + b, e_pass the mean of 1 + b (margin - 1), b = bet / (1 + margin)."""
    found = Canary(0.05, 0.05, 10).read([-1.0])
    b = np.array(BETS) / 1.05
    assert found.e_stop == pytest.approx((1 + b).mean()) and found.e_pass == pytest.approx((1 + b * -0.95).mean())
    assert found.state == "undecided" and Canary(0.05, 0.05, 1).read([0.0]).state == "out_of_time"
    with pytest.raises(ValueError):
        Canary().read([1.5])


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "wrong"), [(0.0, "stop"), (-0.1, "pass")])
def test_the_stop_rule_keeps_its_error_at_every_look(mean, wrong):
    """400 canaries on the edge of each hypothesis, looked at after each of 400 outcomes: at most 10 % decided wrongly, three
    standard errors allowed."""
    rng = np.random.default_rng(1)
    rule = Canary(error=0.1, margin=0.1, most=400)
    ps = [(1 + mean) / 2, (1 - mean) / 2]
    bad = sum(rule.read(rng.choice([1.0, -1.0], 400, p=ps)).state == wrong for _ in range(400))
    assert bad / 400 < 0.1 + 3 * math.sqrt(0.09 / 400)


def test_the_stop_rule_decides_what_is_plain():
    rng = np.random.default_rng(2)
    rule = Canary(error=0.05, margin=0.1, most=500)
    worse = [rule.read(rng.choice([1.0, -1.0], 500, p=[0.3, 0.7])) for _ in range(50)]
    better = [rule.read(rng.choice([1.0, -1.0], 500, p=[0.65, 0.35])) for _ in range(50)]
    assert all(r.state == "stop" and r.n < 200 for r in worse) and all(r.state == "pass" for r in better)


def test_thumbs_are_compared_with_the_old_models_of_the_same_time():
    events = [(True, 1.0), (False, 1.0), (False, 0.0), (True, 0.0), (True, 1.0), (False, 1.0)]
    # the first waits for an old one; then both new (1, 0) stand against the old (1, 0); the third waits again
    assert against_recent(events) == [0.5 - 0.5]
    assert against_recent([(False, 1.0), (True, 0.0), (False, 0.0), (True, 1.0)]) == [-1.0, 1.0]


def test_a_margin_of_standard_deviations_by_hand():
    """Old scores 0 and 2: their standard deviation is 1. Every new one lies 0.1 below: within 0.2, beyond 0.05."""
    old = {f"p{i}": [float(i % 2) * 2] for i in range(40)}
    m = Metric("judge", {i: [x[0] - 0.1] for i, x in old.items()}, old)
    rule = lambda margin: Rule("judge", "not_worse", margin, spread=True)  # noqa: E731
    assert decide([m], [rule(0.2)]).ships and not decide([m], [rule(0.05)]).ships
    assert "0.2 standard deviations" in rule(0.2).words()
    same = Metric("judge", {i: [1.0] for i in old}, {i: [1.0] for i in old})
    lower = Metric("judge", {i: [0.9] for i in old}, {i: [1.0] for i in old})
    assert decide([same], [rule(0.2)]).ships and not decide([lower], [rule(0.2)]).ships
