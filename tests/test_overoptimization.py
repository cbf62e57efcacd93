"""Best-of-n and Gao's curves: hand-worked numbers, exact enumeration, simulation, planted parameters."""

from itertools import combinations

import numpy as np
import pytest

from harken.stats.overoptimization import best_of_n, best_of_n_weights, fit_curve, kl_best_of_n, predict


def test_kl_by_hand():
    """n = 4: log 4 − 3/4 = .636294; the best of one is the policy itself."""
    assert kl_best_of_n([1, 4]) == pytest.approx([0, 0.636294], abs=1e-6)
    with pytest.raises(ValueError, match="at least 1"):
        kl_best_of_n([0])


@pytest.mark.parametrize("n", [4, 64, 256])
def test_kl_is_that_of_simulated_best_of_n(n):
    """The best of n uniform draws has density n x^(n−1); its KL from the uniform, by histogram of 400,000 draws, within 5 %."""
    best = np.random.default_rng(n).random(400_000) ** (1 / n)
    edges = 1 - np.geomspace(1e-7, 1, 400)[::-1]
    counts, edges = np.histogram(best, np.append(edges, 1.0))
    share, width = counts / counts.sum(), np.diff(edges)
    seen = share > 0
    assert float((share[seen] * np.log(share[seen] / width[seen])).sum()) == pytest.approx(float(kl_best_of_n(n)), rel=0.05)


def test_weights_by_hand():
    """N = 4, n = 2: C(i−1, 1) / 6 = 0, 1/6, 2/6, 3/6."""
    assert best_of_n_weights(4, 2) == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])
    assert best_of_n_weights(4, 1) == pytest.approx([0.25] * 4) and best_of_n_weights(4, 4) == pytest.approx([0, 0, 0, 1])
    assert best_of_n_weights(5000, 4096).sum() == pytest.approx(1)


def test_the_estimate_is_the_mean_over_all_subsets_with_gold_realigned():
    rng = np.random.default_rng(0)
    proxy, gold = rng.standard_normal((2, 7))
    for n in (1, 2, 5):
        picks = [max(c, key=lambda i: proxy[i]) for c in combinations(range(7), n)]
        found = best_of_n(proxy, gold, [n])
        assert found.gold[0] == pytest.approx(gold[picks].mean()) and found.proxy[0] == pytest.approx(proxy[picks].mean())
    shuffle = rng.permutation(7)
    assert best_of_n(proxy[shuffle], gold[shuffle], [3]).gold == pytest.approx(best_of_n(proxy, gold, [3]).gold)


def test_p32_equal_proxies_share_the_gold():
    assert best_of_n([1.0, 1.0, 1.0], [0.0, 3.0, 6.0], [1, 2, 3]).gold == pytest.approx([3, 3, 3])


def test_e8_a_missing_score_is_refused():
    with pytest.raises(ValueError, match="leave out"):
        best_of_n([1.0, np.nan], [1.0, 2.0], [1])
    with pytest.raises(ValueError, match="best of 3"):
        best_of_n([1.0, 2.0], [1.0, 2.0], [3])


@pytest.mark.parametrize("form, peak", [("bon", 1.5 / 0.6), ("rl", np.exp(1.5 / 0.3 - 1))])
def test_planted_curves_are_found_exactly(form, peak):
    d = np.sqrt(kl_best_of_n(2.0 ** np.arange(1, 13)))
    found = fit_curve(d, predict(d, 1.5, 0.3, form), form)
    assert (found.alpha.value, found.beta.value) == pytest.approx((1.5, 0.3)) and found.r2 == pytest.approx(1)
    assert found.peak.value == pytest.approx(peak)
    top = np.linspace(0.5 * peak, 1.5 * peak, 2001)
    assert top[np.argmax(found(top))] == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize("replicates", [1, 12])
def test_intervals_cover_planted_parameters(replicates):
    """One curve with independent errors, and replicates with errors shared along a curve: 90 % intervals, 200 times."""
    d = np.linspace(0.3, 3.0, 14)
    truth = predict(d, 1.5, 0.3, "bon")
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 0.1, (replicates, 14)) + (rng.normal(0, 0.2, (replicates, 1)) * d if replicates > 1 else 0)
        found = fit_curve(d, truth + noise, "bon", level=0.9, draws=400, seed=seed)
        hits += found.alpha.low <= 1.5 <= found.alpha.high
    assert 0.83 <= hits / 200 <= 0.96


def test_no_turn_is_said_to_be_none():
    d = np.linspace(0.3, 3.0, 14)
    assert fit_curve(d, d * (1 + 0.2 * d), "bon").peak.value == np.inf
    rng = np.random.default_rng(0)
    assert fit_curve(d, d + rng.normal(0, 0.3, 14), "bon").peak.high == np.inf
    with pytest.raises(ValueError, match="3 finite points"):
        fit_curve(d, d, "bon", least=2.9)
