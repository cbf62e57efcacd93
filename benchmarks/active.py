"""Which question next: labels to 85 % accuracy by strategy, on a planted linear reward (science: 5.3 b).

    python benchmarks/active.py [--seeds 10] [--quick] [--svg docs/active_choice.svg]

D = 24, a pool of 4000 heavy-tailed pairs (multivariate t, 3 degrees of freedom), batches of 20, one honest labeler of log-odds
x'w, w of length 1. Each batch is chosen from the whole pool by the posterior of a Bayesian logistic regression (fit_reliability),
the first at random. Accuracy is on 4000 pairs drawn like the pool's and never chosen from: what was chosen is no fair sample.
Margin sampling is the negative control. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np

from harken.labelers.asking.belief import belief_of_features
from harken.labelers.asking.pairs import STRATEGIES, Questions, next_items
from harken.labelers.models.likelihood import sigmoid
from harken.labelers.models.reliability import Priors, fit_reliability
from harken.labelers.votes import Votes

D, POOL, BATCH = 24, 4000, 20
DF = 3
"""Of the multivariate t: whole pairs are large or small, as texts are."""
STEPS = (0.85, 0.90)


def learn(seed: int, strategy: str, most: int, goal: float) -> list[tuple[int, float]]:
    """(labels, accuracy) after each batch, until two looks in a row are at `goal` or above, or `most` labels."""
    rng = np.random.default_rng([seed, 7])
    w = rng.normal(size=D)
    w /= np.linalg.norm(w)
    pool, test = (rng.normal(size=(POOL, D)) / np.sqrt(rng.chisquare(DF, size=(POOL, 1)) / DF) for _ in range(2))
    # A pair is its difference x against the origin: item 0 has features 0.
    phi = np.vstack([np.zeros(D), pool])
    answer = np.where(rng.random(POOL) < sigmoid(pool @ w), 1, -1)
    left = np.arange(POOL)
    asked = rng.permutation(POOL)[:BATCH]
    curve: list[tuple[int, float]] = []
    items = tuple(("p", str(i)) for i in range(POOL + 1))
    while True:
        n = len(asked)
        none = np.zeros(n, dtype=np.int64)
        votes = Votes(asked + 1, none, answer[asked], none, none, np.arange(n), items,
                      np.zeros(POOL + 1, dtype=np.int64), ("one",), ({},))
        found = fit_reliability(votes, phi=phi, model="plain", prior=Priors(score=1.0), draws=0)
        assert found.weights is not None
        curve.append((n, float(((test @ found.weights > 0) == (test @ w > 0)).mean())))
        if n >= most or (len(curve) > 1 and min(curve[-1][1], curve[-2][1]) >= goal):
            return curve
        left = np.setdiff1d(np.arange(POOL), asked)
        ones = np.ones(len(left))
        questions = Questions(left + 1, np.zeros(len(left), dtype=np.int64), ones, ones, np.zeros(len(left), dtype=np.int64))
        belief = belief_of_features(found, phi)
        got = next_items(belief, questions, BATCH, strategy=strategy, per_second=False, seed=seed)  # type: ignore[arg-type]
        asked = np.r_[asked, left[got.which]]


def labels_to(curve: list[tuple[int, float]], goal: float) -> int | None:
    return next((n for n, a in curve if a >= goal), None)


def median(found: list[int | None]) -> float | None:
    """None where half the seeds or more never got there."""
    value = float(np.median([np.inf if f is None else f for f in found]))
    return value if np.isfinite(value) else None


def draw(curves: dict[str, list[list[tuple[int, float]]]], most: int) -> str:
    """Mean accuracy by labels; a seed that is done keeps its last accuracy."""
    from harken.draw.svg import Plot
    plot = Plot("Accuracy by labels and strategy", "Mean over seeds", (0, most), (0.5, 1.0), x_label="Labels",
                y_label="Held-out accuracy", width=620, height=340)
    paints = dict(zip(STRATEGIES, ("#c2571a", "#2f6fb7", "#888888", "#b02a5b", "#3a8f4d", "#8a63b8")))
    for row, (strategy, each) in enumerate(curves.items()):
        at = range(BATCH, most + 1, BATCH)
        mean = [(float(n), float(np.mean([dict(c).get(n, c[-1][1]) for c in each]))) for n in at]
        plot.line(mean, f'line" style="fill:none;stroke:{paints[strategy]};stroke-width:2')
        plot.parts.append(f'<text x="{plot.right}" y="{plot.bottom - 90 + 15 * row}" text-anchor="end" '
                          f'style="fill:{paints[strategy]}">{strategy}</text>')
    plot.parts.insert(0, '<rect width="100%" height="100%" fill="#ffffff"/>')
    return plot.file("text{font:12px sans-serif;fill:#444}.grid{stroke:#ddd}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--most", type=int, default=1000, help="labels at most")
    parser.add_argument("--svg", type=Path, help="file for the picture")
    parser.add_argument("--quick", action="store_true", help="two seeds, without double Thompson sampling: under a minute")
    args = parser.parse_args()
    seeds, result = 2 if args.quick else args.seeds, {}
    curves: dict[str, list[list[tuple[int, float]]]] = {}
    for strategy in STRATEGIES[:-1] if args.quick else STRATEGIES:
        start = time.perf_counter()
        curves[strategy] = [learn(seed, strategy, args.most, STEPS[-1]) for seed in range(seeds)]
        row = {f"to_{goal:.2f}": [labels_to(c, goal) for c in curves[strategy]] for goal in STEPS}
        result[strategy] = {name: median(found) for name, found in row.items()}
        print(strategy, result[strategy], row, f"{time.perf_counter() - start:.0f} s", flush=True)
    random = result["random"]["to_0.85"]
    for row in result.values():
        row["of_random"] = round(row["to_0.85"] / random, 3) if random and row["to_0.85"] else None
    if args.svg:
        args.svg.write_text(draw(curves, args.most), encoding="utf-8")
    print(json.dumps({"benchmark": "active", "seeds": seeds, **result}))


if __name__ == "__main__":
    main()
