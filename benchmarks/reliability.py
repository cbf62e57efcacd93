"""How many comparisons reach a ranking of a given quality, with and without a model of who judges.

    python benchmarks/reliability.py --out docs/reliability.svg

60 items with scores N(0, 1), 20 labelers: 12 good (beta 3), 5 noisy (0.4), 3 reversed (-2); Kendall's tau with the truth,
means over seeds with 95 % intervals. "good only" knows who is good and drops the rest. A second crowd, of 20 alike (beta 1),
shows what the richer model costs where it is not needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from harken.labelers.models.reliability import fit_reliability
from harken.stats.intervals import mean_interval
from labeler_worlds import world

MIXED, ALIKE = np.r_[np.full(12, 3.0), np.full(5, 0.4), np.full(3, -2.0)], np.ones(20)
SIZES = (150, 300, 600, 1200, 2400, 4800)
GOAL = 0.8
COLOURS = {"everybody alike": "#c58a00", "a beta for each": "#2f7fd0", "Crowd-BT": "#2c9c6a", "good only (told who)": "#808890"}


def tau(votes, truth, **options) -> float:
    return float(kendalltau(fit_reliability(votes, draws=0, **options).scores, truth)[0])


def curves(seeds: int) -> dict[str, np.ndarray]:
    """Tau [seeds, sizes] by model; a seed's smaller samples are parts of its larger ones."""
    found = {name: np.zeros((seeds, len(SIZES))) for name in COLOURS}
    for seed in range(seeds):
        truth, votes = world(seed, MIXED, SIZES[-1])
        for j, n in enumerate(SIZES):
            part = votes.take(np.arange(n))
            found["everybody alike"][seed, j] = tau(part, truth, model="plain")
            found["a beta for each"][seed, j] = tau(part, truth)
            found["Crowd-BT"][seed, j] = tau(part, truth, model="crowd")
            found["good only (told who)"][seed, j] = tau(part.take(part.labeler < 12), truth, model="plain")
    return found


def labels_to(goal: float, mean: np.ndarray) -> float | None:
    """Comparisons at which the mean curve reaches the goal, log-linear between sizes; None if it never does."""
    at = np.flatnonzero(mean >= goal)
    if not len(at):
        return None
    j = int(at[0])
    if j == 0:
        return float(SIZES[0])
    share = (goal - mean[j - 1]) / (mean[j] - mean[j - 1])
    return float(np.exp(np.log(SIZES[j - 1]) + share * np.log(SIZES[j] / SIZES[j - 1])))


def people(seeds: int, n: int = 1200) -> dict[str, float]:
    """Correlation of estimated and planted betas, and the share of reversed labelers found, at n comparisons."""
    corr, caught, false = [], [], []
    for seed in range(seeds):
        _, votes = world(seed, MIXED, SIZES[-1])
        found = fit_reliability(votes.take(np.arange(n)), draws=0)
        corr.append(np.corrcoef(found.beta, MIXED)[0, 1])
        caught.append((found.beta[17:] < 0).mean())
        false.append((found.beta[:12] < 0).mean())
    return {"comparisons": n, "corr_beta": float(np.mean(corr)), "reversed_found": float(np.mean(caught)),
            "good_called_reversed": float(np.mean(false))}


def cost(seeds: int) -> dict[str, object]:
    """Tau lost to the richer model where all labelers are alike: the largest mean over sizes, and each with its interval."""
    lost = np.zeros((seeds, len(SIZES)))
    for seed in range(seeds):
        truth, votes = world(100 + seed, ALIKE, SIZES[-1])
        for j, n in enumerate(SIZES):
            part = votes.take(np.arange(n))
            lost[seed, j] = tau(part, truth, model="plain") - tau(part, truth)
    return {"worst_mean": float(lost.mean(0).max()),
            "by_size": {n: mean_interval(lost[:, j]).to_json() for j, n in enumerate(SIZES)}}


def picture(found: dict[str, np.ndarray]) -> str:
    """Learning curves, the comparisons on a log scale."""
    left, top, width, height = 44, 34, 400, 220
    x = [left + np.log(n / SIZES[0]) / np.log(SIZES[-1] / SIZES[0]) * width for n in SIZES]

    def y(v: float) -> float:
        return top + (1 - (v - 0.3) / 0.7) * height

    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" width="640" role="img" aria-label="Learning curves" '
             'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">'
             "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>"
             '<text x="0" y="15" font-weight="600">Kendall’s tau with the truth, 20 labelers of mixed reliability</text>']
    for v in (0.4, 0.6, 0.8, 1.0):
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="currentColor" '
                     f'stroke-opacity="{0.5 if v == GOAL else 0.15}"/><text x="{left - 8}" y="{y(v) + 4:.1f}" '
                     f'text-anchor="end">{v}</text>')
    parts += [f'<text x="{at:.1f}" y="{top + height + 18}" text-anchor="middle">{n:,}</text>' for at, n in zip(x, SIZES)]
    parts.append(f'<text x="{left + width}" y="{top + height + 36}" text-anchor="end" opacity=".7">comparisons</text>')
    last = 0.0
    for name, values in sorted(found.items(), key=lambda item: -item[1].mean(0)[-1]):
        mean, colour = values.mean(0), COLOURS[name]
        line = " ".join(f"{a:.1f},{y(b):.1f}" for a, b in zip(x, mean))
        at = max(y(mean[-1]) + 4, last + 16)
        last = at
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
                     f'<text x="{left + width + 10}" y="{at:.1f}" fill="{colour}">{name}</text>')
    return "".join(parts) + "</svg>\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 seeds")
    parser.add_argument("--out", type=Path, help="write the learning curves as SVG")
    args = parser.parse_args()
    seeds = 4 if args.quick else 20
    found = curves(seeds)
    labels = {name: labels_to(GOAL, values.mean(0)) for name, values in found.items()}
    plain, beta = labels["everybody alike"], labels["a beta for each"]
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(picture(found), encoding="utf-8")
    tables = {name: {n: mean_interval(v[:, j]).to_json() for j, n in enumerate(SIZES)} for name, v in found.items()}
    ratio = plain / beta if plain and beta else None
    print(json.dumps({"seeds": seeds, "tau": tables, "labels_to_tau_0.8": labels, "ratio_plain_beta": ratio,
                      "people": people(seeds), "alike": cost(seeds)}))


if __name__ == "__main__":
    main()
