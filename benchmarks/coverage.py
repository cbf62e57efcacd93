"""How often intervals that claim 90 % hold the truth, over a stated grid of simulated data.

    python benchmarks/coverage.py             # 2,000 runs a cell
    python benchmarks/coverage.py --quick     # 200 runs a cell

Cells: sizes, values (normal, skewed, yes/no, three-valued), independent or in clusters of unequal size with an intraclass
correlation, several models, judges and seeds. Prints each cell to stderr, and one line of JSON last: coverage averaged over a
kind's cells, the least and the greatest cell. Approximate kinds should lie between .88 and .92, the exact one never below .88.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from scipy import special

from harken.core.protocols import Estimate
from harken.stats.compare import compare
from harken.stats.intervals import bootstrap, bootstrap_mean, clopper_pearson, mean_interval, paired_difference, wilson
from harken.stats.judges import ppi_mean, rogan_gladen
from harken.stats.length_control import length_controlled
from harken.stats.ranking import rank
from harken.stats.seeds import seeds_difference, seeds_mean

LEVEL = 0.90
Trial = Callable[[np.random.Generator], tuple[Estimate, float]]


def holds(pair: tuple[Estimate, float]) -> bool:
    estimate, truth = pair
    return estimate.low - 1e-12 <= truth <= estimate.high + 1e-12


def draw(kind: str, rng, shape):
    """Values with a known mean: (values, mean)."""
    if kind == "normal":
        return rng.normal(0.3, 1, shape), 0.3
    if kind == "skewed":
        return rng.gamma(2.0, 0.5, shape), 1.0
    if kind == "yes/no":
        return (rng.random(shape) < 0.7) * 1.0, 0.7
    return rng.choice([0.0, 0.5, 1.0], shape, p=[0.3, 0.2, 0.5]), 0.6


def bounds(kind: str):
    return (0.0, 1.0) if kind in ("yes/no", "three-valued") else None


def clustered(rng, units: int, icc: float, binary: bool):
    """Clusters of 1 to 8 rows with an intraclass correlation; the estimand is the mean over rows, 0.3 or 0.5."""
    sizes = rng.integers(1, 9, units)
    index = np.repeat(np.arange(units), sizes)
    latent = np.sqrt(icc) * rng.normal(size=units)[index] + np.sqrt(1 - icc) * rng.normal(size=len(index))
    return ((latent > 0) * 1.0, index, 0.5) if binary else (0.3 + latent, index, 0.3)


def means() -> Iterator[tuple[str, str, Trial]]:
    for n in (10, 30, 100, 300):
        for kind in ("normal", "skewed", "yes/no", "three-valued"):
            def one(rng, n=n, kind=kind):
                x, mean = draw(kind, rng, n)
                return mean_interval(x, None, LEVEL, bounds=bounds(kind)), mean
            yield "mean", f"{kind}, n = {n}", one
        for p in (0.05, 0.3, 0.5, 0.9):
            def share(rng, n=n, p=p):
                return wilson(int(rng.binomial(n, p)), n, LEVEL), p
            yield "wilson", f"p = {p}, n = {n}", share

            def exact(rng, n=n, p=p):
                return clopper_pearson(int(rng.binomial(n, p)), n, LEVEL), p
            yield "exact", f"p = {p}, n = {n}", exact


def in_clusters() -> Iterator[tuple[str, str, Trial]]:
    for units in (10, 30, 100):
        for icc in (0.0, 0.3, 0.9):
            for binary in (False, True):
                what = f"{units} clusters, ICC {icc}, {'yes/no' if binary else 'normal'}"

                def mean(rng, units=units, icc=icc, binary=binary):
                    x, index, truth = clustered(rng, units, icc, binary)
                    return mean_interval(x, index, LEVEL, bounds=(0, 1) if binary else None), truth
                yield "clustered", what, mean

                def boot(rng, units=units, icc=icc, binary=binary):
                    x, index, truth = clustered(rng, units, icc, binary)
                    return bootstrap_mean(x, index, int(rng.integers(1 << 30)), draws=400, level=LEVEL), truth
                yield "bootstrap", what, boot


def paired() -> Iterator[tuple[str, str, Trial]]:
    for n in (20, 60, 200):
        for rho in (0.0, 0.5, 0.9):
            def numbers(rng, n=n, rho=rho):
                z = rng.normal(size=(3, n))
                a, b = (np.sqrt(rho) * z[0] + np.sqrt(1 - rho) * z[i] for i in (1, 2))
                return paired_difference(a + 0.2, b, None, LEVEL), 0.2
            yield "paired", f"normal, rho {rho}, n = {n}", numbers

            def yes_no(rng, n=n, rho=rho):
                z = rng.normal(size=(3, n))
                a, b = (np.sqrt(rho) * z[0] + np.sqrt(1 - rho) * z[i] for i in (1, 2))
                d = paired_difference(a > -special.ndtri(0.7), b > 0, None, LEVEL, bounds=(-1, 1))
                return d, 0.2
            yield "paired", f"yes/no, rho {rho}, n = {n}", yes_no

            def repeats(rng, n=n, rho=rho):
                z = rng.normal(size=(3, n))
                p = [special.ndtr(np.sqrt(rho) * z[0] + np.sqrt(1 - rho) * z[i] + shift) for i, shift in ((1, 0.3), (2, 0.0))]
                a, b = ({str(i): list((rng.random(3) < q).astype(float)) for i, q in enumerate(row)} for row in p)
                group = {str(i): i // 2 for i in range(n)}
                truth = float(special.ndtr(0.3 / 2**0.5) - 0.5)
                return compare(a, b, clusters=group, bounds=(0, 1), level=LEVEL).difference, truth
            yield "paired, clustered, 3 repeats", f"rho {rho}, n = {n}", repeats


def statistics() -> Iterator[tuple[str, str, Trial]]:
    for n in (15, 40, 150):
        def ratio(rng, n=n):
            x, y = rng.gamma(4, 1, n), rng.gamma(4, 0.5, n)
            return bootstrap(lambda d: float(x[d].sum() / y[d].sum()), n, seed=int(rng.integers(1 << 30)), draws=400,
                             level=LEVEL), 2.0
        yield "bootstrap", f"ratio, n = {n}", ratio

        def median(rng, n=n):
            x = rng.normal(size=n)
            return bootstrap(lambda d: float(np.median(x[d])), n, seed=int(rng.integers(1 << 30)), draws=400, level=LEVEL), 0.0
        yield "bootstrap", f"median, n = {n}", median


def models() -> Iterator[tuple[str, str, Trial]]:
    theta = np.array([0.8, 0.3, 0.0, -0.4, -0.7])
    for prompts in (20, 60, 200):
        for sd in (0.0, 1.0):
            for ties in ("davidson", "rao_kupper"):
                def fit(rng, prompts=prompts, sd=sd, ties=ties):
                    a, b, won, group = votes(rng, theta, prompts, sd, ties)
                    r = rank(a, b, won, group, ties=ties, level=LEVEL)
                    i, j = rng.choice(5, 2, replace=False)
                    return r.difference(int(i), int(j)), (theta[i] - theta[j]) * (ATTENUATED[ties] if sd else 1)
                yield "ranking", f"{ties}, {prompts} prompts of 10 votes, sd {sd} a prompt", fit


ATTENUATED: dict[str, float] = {}


def votes(rng, theta, prompts: int, sd: float, ties: str):
    """Ten votes a prompt; where models fare differently by prompt, a prompt's scores are theta + sd N(0, 1)."""
    k, n = len(theta), 10 * prompts
    group = np.repeat(np.arange(prompts), 10)
    a = rng.integers(k, size=n)
    b = (a + 1 + rng.integers(k - 1, size=n)) % k
    own = theta + sd * rng.normal(size=(prompts, k))
    d = own[group, a] - own[group, b]
    if ties == "davidson":
        z = np.exp(d / 2), np.full(n, 0.6), np.exp(-d / 2)
        p = np.stack(z, 1) / sum(z)[:, None]
    else:
        p = np.stack([special.expit(d - 0.4), np.zeros(n), special.expit(-d - 0.4)], 1)
        p[:, 1] = 1 - p.sum(1)
    u = rng.random(n)
    return a, b, np.where(u < p[:, 0], 1, np.where(u < p[:, 0] + p[:, 1], 0, -1)), group


def attenuation() -> None:
    """Scores that vary by prompt look smaller on average: the truth to cover is the fit to endless data."""
    theta = np.array([0.8, 0.3, 0.0, -0.4, -0.7])
    for ties in ("davidson", "rao_kupper"):
        a, b, won, group = votes(np.random.default_rng(1), theta, 60_000, 1.0, ties)
        ATTENUATED[ties] = float(rank(a, b, won, group, ties=ties).scores @ theta / (theta @ theta))


def lengths() -> Iterator[tuple[str, str, Trial]]:
    for n in (60, 200, 800):
        for phi in (0.0, 1.2):
            for theta in (0.0, 0.8):
                def fit(rng, n=n, phi=phi, theta=theta):
                    base = rng.integers(200, 2000, n)
                    extra = rng.normal(0.4, 1, n) * 500
                    p = special.expit(theta + phi * np.tanh(extra / 500))
                    y = (rng.random(n) < p) * 1.0
                    return length_controlled(y, base + extra, base, level=LEVEL).controlled, float(special.expit(theta))
                yield "length-controlled", f"n = {n}, phi {phi}, theta {theta}", fit


def judges() -> Iterator[tuple[str, str, Trial]]:
    for n in (40, 100, 300):
        for rate in (0.2, 0.5, 0.8):
            for q1, q0 in ((0.9, 0.8), (0.75, 0.7)):
                def yes_no(rng, n=n, rate=rate, q1=q1, q0=q0):
                    truth = rng.random(1000 + n) < rate
                    said = np.where(rng.random(len(truth)) < np.where(truth, q1, 1 - q0), 1.0, 0.0)
                    y = truth[:n] * 1.0
                    if y.min() == y.max() or said[:n][y == 1].mean() <= said[:n][y == 0].mean():
                        return Estimate(rate, 0, 1, 0), rate  # refused, with reason
                    return rogan_gladen(said[n:], y, said[:n], level=LEVEL).corrected, rate
                yield "Rogan–Gladen", f"{n} labels, rate {rate}, judge {q1}/{q0}", yes_no

                def ppi(rng, n=n, rate=rate, q1=q1, q0=q0):
                    truth = rng.random(1000 + n) < rate
                    said = np.where(rng.random(len(truth)) < np.where(truth, q1, 1 - q0), 1.0, 0.0)
                    return ppi_mean(said[n:], truth[:n] * 1.0, said[:n], level=LEVEL).corrected, rate
                yield "PPI", f"{n} labels, rate {rate}, judge {q1}/{q0}", ppi


def several_seeds() -> Iterator[tuple[str, str, Trial]]:
    for s in (3, 5, 10):
        for sd in (0.0, 0.1, 0.5):
            def mean(rng, s=s, sd=sd):
                x = sd * rng.normal(size=(s, 1)) + rng.normal(size=(1, 100)) + rng.normal(size=(s, 100))
                return seeds_mean(x, level=LEVEL), 0.0
            yield "seeds", f"mean, {s} seeds, sd {sd}", mean

            def apart(rng, s=s, sd=sd):
                items = rng.normal(size=(1, 100))
                a, b = (sd * rng.normal(size=(s, 1)) + items + 0.5 * rng.normal(size=(1, 100)) + rng.normal(size=(s, 100))
                        for _ in range(2))
                return seeds_difference(a, b, level=LEVEL, paired=False), 0.0
            yield "seeds", f"difference, {s} seeds each, sd {sd}", apart


PARTS = (means, in_clusters, paired, statistics, models, lengths, judges, several_seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 runs a cell in place of 2,000")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    args = parser.parse_args()
    runs = 200 if args.quick else 2000
    attenuation()
    table: dict[str, list[float]] = {}
    for part in PARTS:
        for kind, cell, trial in part():
            if args.only not in kind:
                continue
            start, rng = time.perf_counter(), np.random.default_rng(zlib.crc32(f"{kind} {cell}".encode()))
            share = sum(holds(trial(rng)) for _ in range(runs)) / runs
            table.setdefault(kind, []).append(share)
            print(f"{kind:30} {cell:50} {share:.3f}  {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps({"level": LEVEL, "runs_a_cell": runs, "kinds": {
        kind: {"cells": len(x), "mean": round(sum(x) / len(x), 4), "least": round(min(x), 4), "greatest": round(max(x), 4)}
        for kind, x in table.items()}}))


if __name__ == "__main__":
    main()
