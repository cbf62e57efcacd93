"""pass@k: the chance that one of k samples passes, from n samples of which c passed.

    pass_at_k(10, 3, 1)         # 0.3
    passes([(10, 3), (10, 0)], 5)

1 - C(n - c, k) / C(n, k), unbiased for k <= n (Chen et al. 2021, arXiv 2107.03374, eq. 1); 1 - (1 - c/n)^k is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harken.core.protocols import Estimate
from harken.stats.intervals import mean_interval


def pass_at_k(n: int, c: int, k: int) -> float:
    """Of one problem. Raises ValueError unless 0 <= c <= n and 1 <= k <= n."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, found n = {n}, c = {c}, k = {k}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def passes(counts: Sequence[tuple[int, int]], k: int, level: float = 0.95) -> Estimate:
    """The mean over problems, each (n, c), with its interval over problems."""
    return mean_interval([pass_at_k(n, c, k) for n, c in counts], None, level, bounds=(0.0, 1.0))
