"""Sparse logistic regression: hand-worked, against a generic optimiser, against scikit-learn's figures, and planted truth."""

import numpy as np
import pytest
from scipy import optimize, special

from harken.stats.logistic import STRENGTHS, choose, fit, folds, intervals
from marks import slow


def planted(n, truth, seed=0, flip=0.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, len(truth)))
    y = (rng.random(n) < special.expit(x @ truth)).astype(float)
    return x, np.where(rng.random(n) < flip, 1 - y, y)


def test_l2_by_hand():
    """One feature of 1, three rows, two positive, C = 1: w = 3 (2/3 − σ(w)), so w + 3 σ(w) = 2."""
    (w,) = fit(np.ones((3, 1)), [1, 1, 0], penalty="l2", C=1.0)
    assert w + 3 * special.expit(w) == pytest.approx(2, abs=1e-9)
    assert w == pytest.approx(0.286548, abs=1e-6)


def test_l1_by_hand():
    """The same rows: 3 (2/3 − σ(w)) = 1/C where w > 0. At C = 4, σ(w) = 7/12, w = log(7/5); up to C = 2, w = 0."""
    x, y = np.ones((3, 1)), [1, 1, 0]
    assert fit(x, y, penalty="l1", C=4.0)[0] == pytest.approx(np.log(7 / 5), abs=1e-8)
    assert fit(x, y, penalty="l1", C=1.99)[0] == 0.0
    assert fit(x, y, penalty="l1", C=2.01)[0] > 0.0


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("C", [0.003, 0.3, 30.0])
def test_a_generic_optimiser_agrees(penalty, C):
    """w = u − v with u, v ≥ 0 makes the L1 term linear; L-BFGS-B knows nothing of proximal steps."""
    x, y = planted(400, np.array([1.0, -0.5, 0.0, 0.0, 0.3]), flip=0.1)
    s = np.random.default_rng(1).random(400)

    def objective(uv):
        w = uv[:5] - uv[5:]
        z = x @ w
        g = C * x.T @ (s * (special.expit(z) - y))
        loss = C * s @ (np.logaddexp(0, z) - y * z)
        if penalty == "l1":
            return loss + uv.sum(), np.concatenate([g + 1, 1 - g])
        return loss + 0.5 * w @ w, np.concatenate([g + w, -g - w])

    bounds = [(0, None)] * 10 if penalty == "l1" else [(None, None)] * 5 + [(0, 0)] * 5
    found = optimize.minimize(objective, np.zeros(10), jac=True, method="L-BFGS-B", bounds=bounds,
                              options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10})
    assert fit(x, y, penalty=penalty, C=C, weights=s) == pytest.approx(found.x[:5] - found.x[5:], abs=2e-5)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_scikit_learn_agrees(penalty):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is no dependency; where it is, it must agree")
    x, y = planted(300, np.array([1.0, -0.5, 0.0, 0.2]), seed=3)
    for C in STRENGTHS:
        solver = {"l1": "liblinear", "l2": "lbfgs"}[penalty]
        model = linear.LogisticRegression(l1_ratio=float(penalty == "l1"), C=C, solver=solver, fit_intercept=False, tol=1e-10,
                                          max_iter=100_000)
        assert fit(x, y, penalty=penalty, C=float(C)) == pytest.approx(model.fit(x, y).coef_[0], abs=1e-4)


def test_separable_and_saturated_rows_end():
    x = np.array([[1.0, 2.0], [2.0, 1.0], [-1.0, -2.0]])
    for penalty in ("l1", "l2"):
        w = fit(x, [1, 1, 0], penalty=penalty, C=1e5)
        assert np.isfinite(w).all() and (x @ w * [1, 1, -1] > 1).all()
    assert fit(100 * x, [1, 1, 0], C=1e5) == pytest.approx(fit(100 * x, [1, 1, 0], C=1e5, start=np.array([5.0, -5.0])), abs=1e-3)


def test_p32_ties_pull_towards_zero():
    """Only ties: no preference. A tie is the same as a win and a loss of half the weight."""
    x, _ = planted(50, np.array([1.0, -1.0]))
    assert fit(x, np.full(50, 0.5), C=100.0) == pytest.approx([0, 0], abs=1e-9)
    both = fit(np.vstack([x, x]), np.concatenate([np.ones(50), np.zeros(50)]), weights=np.full(100, 0.5), C=3.0)
    assert both == pytest.approx(fit(x, np.full(50, 0.5), C=3.0), abs=1e-9)


def test_folds_never_split_a_prompt():
    groups = [f"p{i // 3}" for i in range(60)]
    found = folds(groups, 8, seed=1)
    assert all(len({f for f, g in zip(found, groups) if g == name}) == 1 for name in set(groups))
    counts = [len({g for f, g in zip(found, groups) if f == k}) for k in range(8)]
    assert max(counts) - min(counts) <= 1
    with pytest.raises(ValueError, match="found 20"):
        folds(groups, 21)


def test_planted_weights_are_recovered_and_the_rest_is_dropped():
    truth = np.array([1.2, -0.8, 0.5, 0, 0, 0, 0, 0])
    errors, zeros = [], []
    for seed in range(20):
        x, y = planted(1500, truth, seed=seed)
        chosen = choose(x, y, list(range(1500)), k=5, strengths=np.logspace(-2.5, 1, 5), seed=seed)
        errors.append(np.abs(chosen.weights - truth).max())
        zeros.append(np.abs(chosen.weights[3:]).max())
    assert np.median(errors) < 0.2 and np.median(zeros) < 0.12


def test_noise_chooses_strong_regularisation():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 13)), rng.integers(0, 2, 200)
    chosen = choose(x, y, list(range(200)), seed=0)
    assert np.abs(x @ chosen.weights).max() < 0.6
    assert len(chosen.table) == 24 and {r["penalty"] for r in chosen.table} == {"l1", "l2"}


@pytest.mark.parametrize("x, y, message", [([[np.nan]], [1], "finite"), ([[1.0]], [2], "between 0 and 1"),
                                           ([[1.0]], [1, 0], "shape")])
def test_bad_input_is_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        fit(x, y)


def test_an_interval_by_hand():
    """Eight rows of 1, six positive. Firth adds half a success and half a failure: w = log(6.5 / 2.5), p = 6.5 / 9. Each leverage
    is 1/8, so the variance is Σ (y − p)² (8 / 7)² / (8 p (1 − p))²; Student's 7 degrees of freedom at 90 %: 1.8946."""
    low, high = intervals(np.ones((8, 1)), [1] * 6 + [0] * 2, list(range(8)), level=0.9, width=1e6)
    p = 6.5 / 9
    sd = np.sqrt(6 * (1 - p)**2 + 2 * p**2) * 8 / 7 / (8 * p * (1 - p))
    assert (low[0], high[0]) == (pytest.approx(np.log(6.5 / 2.5) - 1.8946 * sd, abs=1e-4),
                                 pytest.approx(np.log(6.5 / 2.5) + 1.8946 * sd, abs=1e-4))


def rankings(seed, n, options, truth):
    """Differences within n rankings by Plackett–Luce, their group, and the information of each; features correlate by 0.3."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.cholesky(0.3 + 0.7 * np.eye(len(truth)))
    z = rng.standard_normal((n, options, len(truth))) @ mix.T
    order = np.argsort(-(z @ truth + rng.gumbel(size=(n, options))), axis=1)
    sorted_z = np.take_along_axis(z, order[..., None], axis=1)
    better, worse = np.triu_indices(options, 1)
    x = (sorted_z[:, better] - sorted_z[:, worse]).reshape(-1, len(truth))
    return x, np.repeat(np.arange(n), len(better)).tolist(), np.full(len(x), 3 / (options + 1))


@pytest.mark.parametrize("n, options, idle", [(60, 2, 9), *slow((300, 2, 1), (300, 2, 9), (80, 4, 1))])
def test_intervals_cover_the_weights_and_the_largest_over_120_worlds(n, options, idle):
    """90 % intervals of all, of the weight that is largest, and of the one that is found to be. Where 60 pairs are to tell 13
    weights they are too wide on the whole, and right for the largest."""
    truth = np.r_[1.2, -0.8, 0.5, 0.25, np.zeros(idle)]
    held = []
    for seed in range(120):
        x, group, information = rankings(seed, n, options, truth)
        low, high = intervals(x, np.ones(len(x)), group, weights=information, level=0.9)
        inside = (low <= truth) & (truth <= high)
        held.append([inside.mean(), inside[0], inside[np.argmax(np.abs(low + high))]])
    every, largest, found = np.mean(held, axis=0)
    assert 0.85 <= every <= (0.97 if n < 10 * len(truth) else 0.95) and 0.85 <= largest <= 0.95 and 0.85 <= found <= 0.95, held


def test_attributes_that_measure_the_same_or_separate_have_wide_finite_intervals():
    x, y = planted(200, np.array([1.0]))
    low, high = intervals(np.hstack([x, x]), y, list(range(200)))
    assert (high - low > 5).all() and np.isfinite(high - low).all() and (low < 0).all() and (high > 0).all()
    low, high = intervals(np.abs(x[:20]) + 1, np.ones(20), list(range(20)))
    assert 0 < low[0] < high[0] < 10
