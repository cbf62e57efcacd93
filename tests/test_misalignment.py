"""Mean, expected maximum and hit rate of samples' faults, beside sums by hand and brute force."""

from itertools import combinations

import numpy as np
import pytest

from harken.core.errors import UserError
from harken.stats.misalignment import expected_maximum, maximum_weights, misalignment


def test_the_expected_maximum_by_hand():
    """Of 1, 2, 4 the pairs' maxima are 2, 4, 4: 10/3."""
    assert expected_maximum([4, 1, 2], k=2).value == pytest.approx(10 / 3)
    assert expected_maximum([4, 1, 2], k=1).value == pytest.approx(7 / 3)
    assert expected_maximum([4, 1, 2], k=3).value == pytest.approx(4)


def test_it_is_the_mean_over_all_subsets():
    x = np.random.default_rng(0).normal(size=9)
    for k in (2, 5):
        assert expected_maximum(x, k).value == pytest.approx(np.mean([max(c) for c in combinations(x, k)]))
    assert maximum_weights(5000, 25).sum() == pytest.approx(1)


def test_its_interval_covers():
    """E max of 25 exponentials is the 25th harmonic number; 95 % intervals of 400 samples cover it in at least 85 of 100."""
    truth, rng = sum(1 / i for i in range(1, 26)), np.random.default_rng(1)
    found = [expected_maximum(rng.exponential(size=400), draws=200, seed=i) for i in range(100)]
    assert sum(e.low <= truth <= e.high for e in found) >= 85
    assert abs(np.mean([e.value for e in found]) - truth) < 0.1


def test_hits_are_over_the_line():
    found = misalignment([0.4, 0.5, 0.6, 0.9] * 10)
    assert found["hits"].value == 0.5 and found["mean"].value == pytest.approx(0.6)
    assert found["expected_maximum"].value == pytest.approx(0.9, abs=1e-3)


def test_too_few_samples_are_one_message():
    with pytest.raises(UserError, match="worst of 25 cannot be told from 3"):
        misalignment([1, 2, 3])
