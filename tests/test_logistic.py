"""Sparse logistic regression: hand-worked, against a generic optimiser, against scikit-learn's figures, and planted truth."""

import numpy as np
import pytest
from scipy import optimize, special

from harken.stats.logistic import STRENGTHS, choose, fit, folds


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
