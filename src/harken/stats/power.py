"""How large a difference could this have shown, and how many more items would it take?

    power(0.05, sd=0.4, n=200)                     # chance that 200 paired items show a difference of 0.05
    needed(0.05, sd=0.4)                           # items for a chance of 80 %
    least_detectable(sd=0.4, n=200)                # the difference that 200 items show with a chance of 80 %
    spread(between=0.10, within_a=0.2, k_a=4)      # sd of an item's difference with repeats

Two-sided one-sample t-tests of paired differences (noncentral t), as statsmodels' TTestPower; `n` counts independent units
(prompts, clusters). For large n this is n = (z_{alpha/2} + z_beta)^2 sd^2 / difference^2 (Miller 2024, arXiv 2411.00640).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import optimize, special

LEVEL, POWER = 0.95, 0.8
MOST_UNITS = 1e12
"""A sample size above this is reported as infinite."""
NODES, WEIGHTS = (x / 2 for x in np.polynomial.legendre.leggauss(96))
NODES = NODES + 0.5


def power(difference: float, sd: float, n: float, level: float = LEVEL) -> float:
    """Chance that a test at 1 - level calls a true mean `difference` of `n` units with standard deviation `sd`."""
    if n < 2 or sd < 0:
        raise ValueError(f"a test needs 2 units and a spread of 0 or more, found n = {n} and sd = {sd}")
    if sd == 0:
        return 1.0 if difference else 1 - level
    shift, bar = abs(difference) / sd * math.sqrt(n), float(special.stdtrit(n - 1, 0.5 + level / 2))
    # Noncentral t: given the estimated spread, normal. The mean over its distribution by quadrature; SciPy's nct fails far out.
    seen = np.sqrt(special.gammaincinv((n - 1) / 2, NODES) * 2 / (n - 1))
    return float(WEIGHTS @ (special.ndtr(shift - bar * seen) + special.ndtr(-shift - bar * seen)))


def needed(difference: float, sd: float, level: float = LEVEL, chance: float = POWER) -> float:
    """Units for a `chance` to call `difference`, rounded up; infinite for a difference of 0."""
    if difference == 0:
        return math.inf
    if power(difference, sd, 2, level) >= chance:
        return 2.0
    return _needed(abs(difference) / sd, level, chance)


@cache
def _needed(size: float, level: float, chance: float) -> float:
    guess = (special.ndtri(0.5 + level / 2) + special.ndtri(chance)) ** 2 / size**2
    if guess > MOST_UNITS:
        return math.inf
    return float(math.ceil(optimize.brentq(lambda n: power(size, 1.0, n, level) - chance, 2, 2 * guess + 20)))


def least_detectable(sd: float, n: float, level: float = LEVEL, chance: float = POWER) -> float:
    """The difference that `n` units show with this `chance`; infinite for fewer than 2 units."""
    if n < 2:
        return math.inf
    if sd == 0:
        return 0.0
    return sd * _least(n, level, chance)


@cache
def _least(n: float, level: float, chance: float) -> float:
    top = 4 * float(special.stdtrit(n - 1, 0.5 + level / 2)) / math.sqrt(n) + 10 / math.sqrt(n)
    return float(optimize.brentq(lambda d: power(d, 1.0, n, level) - chance, 0.0, top))


def needed_equivalent(margin: float, sd: float, difference: float = 0.0, alpha: float = 0.05, chance: float = POWER) -> float:
    """Units for a `chance` that two one-sided tests show |difference| < margin, if it truly is `difference` (normal
    approximation; with difference 0 both tests must pass, so beta is halved). Infinite where it is not below the margin."""
    room = margin - abs(difference)
    if room <= 0:
        return math.inf
    beta = (1 - chance) / (2 if difference == 0 else 1)
    n = (special.ndtri(1 - alpha) + special.ndtri(1 - beta)) ** 2 * (sd / room) ** 2
    return float(math.ceil(n + special.ndtri(1 - alpha) ** 2 / 2))  # the last term: t instead of z (Guenther 1981)


def spread(between: float, within_a: float = 0.0, within_b: float = 0.0, k_a: int = 1, k_b: int = 1) -> float:
    """Standard deviation of an item's difference: sqrt(w^2 + s_a^2 / K_a + s_b^2 / K_b).

    `between` is w, the sd over items of the true differences; `within_*` the sd of one sample of an item; `k_*` the samples an
    item. More items beat more samples unless within is much larger than between.
    """
    if k_a < 1 or k_b < 1:
        raise ValueError(f"at least one sample an item, found {k_a} and {k_b}")
    return math.sqrt(between**2 + within_a**2 / k_a + within_b**2 / k_b)
