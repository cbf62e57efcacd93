"""What more labels would buy, and what real prompts are like: two figures for the person who plans the next week.

    more_labels(votes, fit, phi, group_of, 200)   # by group: share of pairs ordered rightly, now and after 200 more labels
    compare_prompts(real, test)                   # by use case: share of real prompts, share of test prompts

More labels: the fit's posterior says of each compared pair that the true difference is normal, d ~ N(m, s²). After labels on
the group's pairs have raised its information from N to N + n comparisons, the variance is about s'² = s² N / (N + n), and the new
mean is m' ~ N(m, s² - s'²) (a normal posterior's preposterior distribution; Raiffa and Schlaifer 1961). The order is then right
with chance E Φ(|m'| / s'). It takes the model and the kind of pairs for given, so it is a guide and no promise.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr

from harken.core.records import Prompt
from harken.labelers.asking.features import WORD
from harken.labelers.models.reliability import Reliability
from harken.labelers.votes import Votes

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
NEAR = 0.2
"""Cosine below which a prompt is like no test prompt."""


def right_order(mean: Any, sd: Any, shrink: float) -> Any:
    """Chance that the order is right once the variance is `shrink` of what it is: E Φ(|m'| / s'). Arrays [N], sd above 0."""
    mean, sd = np.asarray(mean, dtype=np.float64), np.maximum(np.asarray(sd, dtype=np.float64), 1e-12)
    after = sd * math.sqrt(shrink)
    means = mean[:, None] + NODES * (sd * math.sqrt(max(0.0, 1 - shrink)))[:, None]
    return ndtr(np.abs(means) / after[:, None]) @ WEIGHTS / WEIGHTS.sum()


def more_labels(votes: Votes, fit: Reliability, phi: Any, group_of: Mapping[int, str], n: int) -> list[dict[str, Any]]:
    """A row for each group (of the votes' prompts), the most to gain first; none where the fit has no covariance."""
    if fit.weights is None or fit.covariance is None:
        return []
    gap = phi[votes.a] - phi[votes.b]
    mean, sd = gap @ fit.weights, np.sqrt(np.maximum(np.einsum("nd,de,ne->n", gap, fit.covariance, gap), 0.0))
    of = np.array([group_of.get(int(votes.prompt[i]), "none") for i in votes.a])
    rows = []
    for name in np.unique(of).tolist():
        mine = of == name
        count = int(mine.sum())
        now, then = (float(right_order(mean[mine], sd[mine], s).mean()) for s in (1.0, count / (count + n)))
        rows.append({"group": name, "comparisons": count, "more": n, "now": now, "then": then})
    return sorted(rows, key=lambda r: float(str(r["now"])) - float(str(r["then"])))


def compare_prompts(real: Sequence[Prompt], test: Sequence[Prompt]) -> dict[str, Any]:
    """Shares of use cases. A real prompt without one takes that of the nearest test prompt by TF-IDF cosine, if it is at least
    `NEAR`; else it is "like no test prompt"."""
    given = [p for p in test if p.use_case]
    words = [Counter(w.lower() for w in WORD.findall(p.text)) for p in (*given, *real)]
    documents = Counter(w for bag in words for w in bag)
    weight = {w: math.log((1 + len(words)) / (1 + c)) + 1 for w, c in documents.items()}
    vectors = [_unit({w: n * weight[w] for w, n in bag.items()}) for bag in words]
    at: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for i, vector in enumerate(vectors[:len(given)]):
        for w, x in vector.items():
            at[w].append((i, x))
    found: Counter[str] = Counter()
    guessed = 0
    for prompt, vector in zip(real, vectors[len(given):]):
        if prompt.use_case:
            found[prompt.use_case] += 1
            continue
        guessed += 1
        near: dict[int, float] = defaultdict(float)
        for w, x in vector.items():
            for i, y in at[w]:
                near[i] += x * y
        best = max(near, key=lambda i: near[i], default=-1)
        found[str(given[best].use_case) if best >= 0 and near[best] >= NEAR else "like no test prompt"] += 1
    return {"real": dict(found.most_common()), "test": dict(Counter(p.use_case or "none" for p in test).most_common()),
            "guessed": guessed}


def _unit(vector: dict[str, float]) -> dict[str, float]:
    size = math.sqrt(sum(x * x for x in vector.values())) or 1.0
    return {w: x / size for w, x in vector.items()}
