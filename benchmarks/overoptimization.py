"""Best-of-n against a proxy reward: how far the gold follows, and which proxies turn (2210.10760, 2310.02743).

    python benchmarks/overoptimization.py [--quick] [--svg docs/rewards/overoptimization.svg]

Answers are points in 16 dimensions: gold is linear in eight normal ones ("content") and ignores eight others ("style"). Where
style has heavy tails (Student's t, 3 degrees of freedom) a proxy's favourite is far out in style, and gold turns; where it is
normal like the rest, errors have light tails and best-of-n only levels off. A proxy is a logistic regression on 100 random ReLU
features, hardly regularised, as a network that fits its labels is; five of them, each with its own features and bootstrap of
the comparisons, make the ensembles (mean, WCO = min, UWO = mean − 0.5 variance). The compositional reward sees 13 attributes,
random directions rated in whole numbers from 1 to 10 with noise of sd 1.5. `tuned` is the single proxy with its regularisation
chosen by cross-validation. Scores are in standard deviations of the unselected answers; intervals are over seeds (worlds).
What was expected is checked, and a JSON line is printed last.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import special

from harken.core.seeds import derive_seed
from harken.draw.svg import Plot
from harken.stats.intervals import mean_interval
from harken.stats.logistic import choose, fit
from harken.stats.overoptimization import best_of_n, fit_curve, kl_best_of_n, predict

DIMENSIONS, CONTENT, FEATURES, MEMBERS, ATTRIBUTES = 16, 8, 100, 5, 13
NS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
SAMPLES = 5000
NAMES = ("single", "tuned", "mean", "wco", "uwo", "compositional")
CASES = {f"{pairs}, {tail} tails": (n, flip, tail) for tail in ("heavy", "light")
         for pairs, n, flip in (("300 pairs 25% flipped", 300, 0.25), ("300 clean pairs", 300, 0.0),
                                ("2000 pairs 25% flipped", 2000, 0.25), ("2000 clean pairs", 2000, 0.0))}
SHOWN = "300 pairs 25% flipped, heavy tails"


def world(seed: int, pairs: int, flip: float, tail: str, prompts: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(proxy, gold) at every n of `NS`, by kind of proxy."""
    rng = np.random.default_rng(derive_seed("overoptimization", seed))
    w = np.zeros(DIMENSIONS)
    w[:CONTENT] = rng.standard_normal(CONTENT)
    w /= np.linalg.norm(w)
    answers, compared = _answers(rng, tail, prompts, SAMPLES), _answers(rng, tail, pairs, 2)
    gold = answers @ w
    y = (rng.random(pairs) < special.expit((compared[:, 0] - compared[:, 1]) @ w)).astype(float)
    y = np.where(rng.random(pairs) < flip, 1 - y, y)
    members = []
    for member in range(MEMBERS):
        W, b = rng.standard_normal((DIMENSIONS, FEATURES)) * 2 / np.sqrt(DIMENSIONS), rng.standard_normal(FEATURES)
        drawn = rng.integers(pairs, size=pairs)
        x = _features(compared[:, 0], W, b) - _features(compared[:, 1], W, b)
        shown = _features(answers, W, b)
        members.append(shown @ fit(x[drawn], y[drawn], C=10.0, tolerance=1e-6))
        if member == 0:
            tuned = shown @ choose(x, y, list(range(pairs)), penalties=("l2",), strengths=np.logspace(-3, 2, 6), k=4,
                                   seed=seed).weights
    scores = np.array([_standard(m) for m in members])
    turned = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0][:, :ATTRIBUTES]
    rated = _ratings(compared, turned, rng)
    weights = choose(rated[:, 0] - rated[:, 1], y, list(range(pairs)), seed=seed).weights
    proxies = {"single": scores[0], "tuned": _standard(tuned), "mean": scores.mean(0), "wco": scores.min(0),
               "uwo": scores.mean(0) - 0.5 * scores.var(0, ddof=1),
               "compositional": _standard(_ratings(answers, turned, rng) @ weights)}
    curves = {name: best_of_n(proxy, gold, NS) for name, proxy in proxies.items()}
    return {name: (c.proxy - c.proxy[0], c.gold - c.gold[0]) for name, c in curves.items()}


def _answers(rng, tail, *shape):
    """Variance 1 in every dimension."""
    x = rng.standard_normal((*shape, DIMENSIONS))
    if tail == "heavy":
        x[..., CONTENT:] = rng.standard_t(3, (*shape, DIMENSIONS - CONTENT)) / np.sqrt(3)
    return x


def _features(x, W, b):
    return np.maximum(x @ W + b, 0) / np.sqrt(FEATURES)


def _ratings(x, directions, rng):
    seen = x @ directions
    return np.clip(np.round(5.5 + 2 * seen + rng.normal(0, 1.5, seen.shape)), 1, 10)


def _standard(x):
    return (x - x.mean()) / max(float(x.std()), 1e-12)


def summarise(worlds: list[dict]) -> dict:
    """Final gold, its highest mean, the drop from there, and Gao's form, by kind of proxy."""
    d, out = np.sqrt(kl_best_of_n(NS)), {}
    for name in NAMES:
        proxy, gold = (np.array([w[name][i] for w in worlds]) for i in (0, 1))
        mean = gold.mean(0)
        top = int(mean.argmax())
        found = fit_curve(d, gold, "bon", least=0.5)
        out[name] = {"gold": mean.round(3).tolist(), "proxy": proxy.mean(0).round(3).tolist(),
                     "final": _short(mean_interval(gold[:, -1])), "peak_n": NS[top],
                     "drop": _short(mean_interval((gold[:, top] - gold[:, -1]) / mean[top])),
                     "alpha": _short(found.alpha), "beta": _short(found.beta), "peak_d": _short(found.peak),
                     "r2": round(found.r2, 4)}
    return out


def _short(e):
    return {k: round(v, 3) if np.isfinite(v) else "inf" for k, v in (("value", e.value), ("low", e.low), ("high", e.high))}


def claims(table: dict) -> dict[str, bool]:
    """What was expected of the experiment, from the papers and an earlier small one; not all of it holds."""
    noisy, found = table[SHOWN], {}
    drop, end = noisy["single"]["drop"]["value"], noisy["single"]["final"]["value"]
    found["heavy tails, few noisy pairs: the single proxy loses at least 10 % of its highest gold"] = drop >= 0.1
    for name in ("mean", "wco", "uwo", "compositional"):
        kept = noisy[name]["drop"]["value"] <= drop / 2 and noisy[name]["final"]["value"] >= 1.5 * end
        found[f"there {name} loses at most half of that, and ends at 1.5 times the single's gold"] = bool(kept)
    for case, rows in table.items():
        if "light" in case:
            found[f"{case}: no proxy turns"] = all(rows[name]["drop"]["value"] < 0.02 for name in NAMES)
    found["R_bon fits the single proxy with R² of 0.95 beyond d = 0.5, heavy tails"] = noisy["single"]["r2"] >= 0.95
    found["the same, light tails"] = all(row["single"]["r2"] >= 0.95 for case, row in table.items() if "light" in case)
    return found


STYLE = ("text{font:12px sans-serif;fill:#555}.grid{stroke:#ddd}polyline{fill:none;stroke-width:2.2}"
         ".proxy{stroke-dasharray:5 4}.single{stroke:#b4532a}.tuned{stroke:#d9a441}.mean{stroke:#0b6e8a}.wco{stroke:#5aa9c2}"
         ".uwo{stroke:#12394a}.compositional{stroke:#5b8c3a}.fit{stroke:#b4532a;stroke-width:1;opacity:.6}")


def picture(rows: dict, root: bool) -> str:
    """Gold (full) of every proxy and the single proxy itself (dashed), against KL or its square root."""
    kl = kl_best_of_n(NS)
    x = np.sqrt(kl) if root else kl
    high = max(max(rows[n]["gold"]) for n in NAMES) * 1.5
    plot = Plot("Gold reward of the best of n",
                "Full: gold. Dashed: the single proxy's own score. Thin: Gao's form fitted to its gold.",
                (0, float(x[-1]) * 1.02), (-0.1, high), x_label="√KL" if root else "KL, nats",
                y_label="gold, standard deviations")
    inside = [(a, b) for a, b in zip(x.tolist(), rows["single"]["proxy"]) if b <= high]
    plot.line(inside, "single proxy")
    for name in NAMES:
        plot.line(list(zip(x.tolist(), rows[name]["gold"])), name)
    if root:
        alpha, beta = (rows["single"][k]["value"] for k in ("alpha", "beta"))
        plot.line([(float(v), float(predict(v, alpha, beta, "bon"))) for v in np.linspace(0.5, x[-1], 60)], "fit")
    plot.legend([(name, name) for name in NAMES])
    return plot.file(STYLE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 worlds of 4 prompts, two cases")
    parser.add_argument("--svg", type=Path, help="file for the picture over √KL; the one over KL lies beside it")
    args = parser.parse_args()
    seeds, prompts = (3, 4) if args.quick else (20, 8)
    cases = {k: v for k, v in CASES.items() if not args.quick or k in (SHOWN, "2000 clean pairs, light tails")}
    table = {}
    for name, case in cases.items():
        table[name] = summarise([world(seed, *case, prompts) for seed in range(seeds)])
        print(f"{name}:")
        for kind, row in table[name].items():
            final, turn = row["final"], row["peak_d"]
            print(f"  {kind:14} gold at n = 4096 {final['value']:.2f} [{final['low']}, {final['high']}], "
                  f"highest at n = {row['peak_n']}, drop {row['drop']['value']:.0%}, "
                  f"d* {turn['value']} [{turn['low']}, {turn['high']}], R² {row['r2']:.3f}")
    for claim, holds in claims(table).items():
        print("holds " if holds else "FAILS ", claim)
    if args.svg:
        args.svg.write_text(picture(table[SHOWN], True), encoding="utf-8")
        args.svg.with_stem(args.svg.stem + "_kl").write_text(picture(table[SHOWN], False), encoding="utf-8")
    print(json.dumps({"seeds": seeds, "prompts": prompts, "cases": table, "claims": claims(table)}))


if __name__ == "__main__":
    main()
