"""Compositional preference models beside standard ones: does the proxy that picks the answer still mean it? (2310.13011)

    python benchmarks/compositional.py [--quick] [--svg docs/rewards/compositional.svg]     synthetic, a minute
    python benchmarks/compositional.py --real OUT                       SmolLM2 judges its own answers; half an hour

Two models A and B are fitted to disjoint halves of the comparisons. The best of n answers by A is scored by A and by B: what A
gains over B is what it won by its own errors. Synthetic: an answer has 13 attributes, seen as whole numbers 1 to 10 with noise
of sd 1.5; people go by 4 of them and 25 % of their answers are flipped; the standard model is a logistic regression on 300
random features of the same answer, its ridge chosen by cross-validation. Real: SmolLM2's answers to the sandbox's prompts,
ranked by its simulated labelers; the attributes are rated by SmolLM2 (expected ratings), or measured by rules. Prints a JSON
line last.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import special

from harken.core.seeds import derive_seed
from harken.draw.svg import Plot
from harken.stats.intervals import mean_interval, paired_difference
from harken.stats.logistic import choose
from harken.stats.overoptimization import best_of_n

LATENT, WIDTH, NS = 13, 300, (1, 2, 4, 8, 16)
WEIGHTS = np.zeros(LATENT)
WEIGHTS[[0, 3, 5, 8]] = [1.2, 0.9, 0.7, -0.8]


class World:
    """Answers are points z in 13 dimensions; people's value is linear in four of them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(derive_seed("compositional", seed))
        self.features = self.rng.normal(0, 1 / np.sqrt(LATENT), (LATENT, WIDTH)), self.rng.uniform(0, 2 * np.pi, WIDTH)

    def answers(self, *shape: int):
        """(gold, ratings [..., 13], random features [..., 300])."""
        z = self.rng.standard_normal((*shape, LATENT))
        ratings = np.clip(np.round(5.5 + 2 * z + self.rng.normal(0, 1.5, z.shape)), 1, 10)
        return z @ WEIGHTS, ratings, np.sqrt(2 / WIDTH) * np.cos(2 * z @ self.features[0] + self.features[1])

    def comparisons(self, n: int, flip: float):
        """(y, difference of ratings, difference of features); the first is preferred where y = 1."""
        gold, ratings, features = self.answers(n, 2)
        y = (self.rng.random(n) < special.expit(gold[:, 0] - gold[:, 1])).astype(float)
        y = np.where(self.rng.random(n) < flip, 1 - y, y)
        return y, ratings[:, 0] - ratings[:, 1], features[:, 0] - features[:, 1]


def one(seed: int, pairs: int, flip: float, prompts: int = 200) -> dict[str, dict[str, float]]:
    """Both kinds of model in one world: gap at every n in units of the score's spread, held-out accuracy, gold."""
    world = World(seed)
    halves = [world.comparisons(pairs, flip) for _ in range(2)]
    gold, *views = world.answers(prompts, NS[-1])
    held_gold, *held = world.answers(2000, 2)
    out = {}
    for name, view in (("compositional", 1), ("standard", 2)):
        A, B = (choose(half[view], half[0], list(range(pairs)), penalties=("l1", "l2") if view == 1 else ("l2",),
                       strengths=np.logspace(-5, 5, 12) if view == 1 else np.logspace(-3, 3, 7), k=8 if view == 1 else 4,
                       seed=seed).weights for half in halves)
        a, b = ((x - x.mean()) / x.std() for x in (views[view - 1] @ A, views[view - 1] @ B))
        proxy, other = best_of_n(a, b, NS), best_of_n(a, gold, NS)
        margin = (held[view - 1][:, 0] - held[view - 1][:, 1]) @ A
        out[name] = {"accuracy": float((margin * (held_gold[:, 0] - held_gold[:, 1]) > 0).mean()),
                     "correlation": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), "gold": float(other.gold[-1]),
                     **{f"proxy_{n}": float(v) for n, v in zip(NS, proxy.proxy)},
                     **{f"held_{n}": float(v) for n, v in zip(NS, proxy.gold)}}
    return out


def synthetic(quick: bool, large: bool, svg: Path | None) -> dict:
    seeds = range(3 if quick else 10)
    table: dict = {}
    for pairs, flip in ((300, 0.25), (1000, 0.25)) + (((10_000, 0.0),) if large else ()):
        worlds = [one(seed, pairs, flip) for seed in seeds]
        row: dict = {}
        for name in ("compositional", "standard"):
            values = {key: np.array([w[name][key] for w in worlds]) for key in worlds[0][name]}
            values["gap"] = values[f"proxy_{NS[-1]}"] - values[f"held_{NS[-1]}"]
            row[name] = {key: mean_interval(v).to_json() for key, v in values.items()}
            row[name] = {k: {f: round(v[f], 4) for f in ("value", "low", "high")} for k, v in row[name].items()}
        gaps = {n: np.array([w[n][f"proxy_{NS[-1]}"] - w[n][f"held_{NS[-1]}"] for w in worlds]) for n in row}
        better = paired_difference([w["compositional"]["accuracy"] for w in worlds], [w["standard"]["accuracy"] for w in worlds])
        row["gap_ratio"] = round(float(gaps["compositional"].mean() / gaps["standard"].mean()), 3)
        row["accuracy_difference"] = {k: round(v, 4) for k, v in better.to_json().items()}
        row["passes"] = bool(row["gap_ratio"] <= 0.5 and better.value >= -0.02)
        table[f"{pairs} pairs, {flip:.0%} flipped"] = row
        print(f"{pairs} pairs, {flip:.0%} flipped: gap {row['compositional']['gap']['value']:.3f} beside "
              f"{row['standard']['gap']['value']:.3f}, accuracy {row['compositional']['accuracy']['value']:.3f} beside "
              f"{row['standard']['accuracy']['value']:.3f}", flush=True)
    if svg:
        svg.write_text(picture(table["1000 pairs, 25% flipped"]), encoding="utf-8")
    return table


STYLE = ("text{font:12px sans-serif;fill:#555}.grid{stroke:#ddd}.accent,.grey,.held,.greyheld{fill:none;stroke-width:2.2}"
         ".accent,.held{stroke:#0b6e8a}.grey,.greyheld{stroke:#b4532a}.held,.greyheld{stroke-dasharray:5 4}")


def picture(row: dict) -> str:
    """Score of the best of n by the model that picked it (full) and by the other half's (dashed)."""
    high = max(row[m][f"proxy_{NS[-1]}"]["value"] for m in ("compositional", "standard"))
    plot = Plot("Best of n by one half's model", "Full: the model that picks. Dashed: a model fitted to other comparisons. Blue: "
                "compositional. Red: standard.", (0, 4), (-0.1, high + 0.1), x_label="n", y_label="score in standard deviations",
                x_ticks=range(5), x_format=lambda t: str(int(2**t)))
    for name, style in (("compositional", ("accent", "held")), ("standard", ("grey", "greyheld"))):
        for key, mark in zip(("proxy", "held"), style):
            plot.line([(float(np.log2(n)), row[name][f"{key}_{n}"]["value"]) for n in NS], mark)
    plot.legend([("accent", "compositional (dashed: by the other half)"), ("grey", "standard (dashed: by the other half)")])
    return plot.file(STYLE)


# --- SmolLM2 ---------------------------------------------------------------------------------------


def real(out: Path, prompts: int, n: int, retest: int) -> dict:
    """Sandbox prompts, `n` answers each, ranked by three of its people. Halves A and B of one part of the prompts pick among the
    answers of the other part, and the other way round. Beside the judges, a reward model on SmolLM2 itself, same rankings."""
    from harken.cli.rewards import open_panel
    from harken.rewards.compositional import CompositionalReward, Config, combine
    from harken.store.scores import ScoreCache
    from harken.text.panel import qualities
    out.mkdir(parents=True, exist_ok=True)
    asked, texts, choices = answers_of(out, prompts, n)
    items = {(p.id, t): (p, t) for p, row in zip(asked, texts) for t in row}
    table: dict = {}
    for kind in ("smollm2", "rules"):
        config = Config(judge=kind, dtype="bfloat16", folds=3)
        panel = open_panel(config)
        panel.known = ScoreCache(out / "scores.sqlite")
        ratings = panel.rate(list(items.values()))
        quality = qualities(panel, list(items.values()), ratings, retest=retest)
        used = [k for k, q in enumerate(quality) if not q.weak]

        def fit(half: list, panel=panel, ratings=ratings, used=used, config=config) -> CompositionalReward:
            known = {c.prompt.id for c in half}
            keys = [key for key in items if key[0] in known]
            rows = np.array([k for k, key in enumerate(items) if key[0] in known])
            found = combine(half, [panel.attributes[k] for k in used], keys, ratings[np.ix_(rows, used)], config)
            return CompositionalReward(found.terms, panel)

        table[kind] = halves(kind, fit, asked, texts, choices, n)
        table[kind]["attributes"] = {a.name: vars(q) for a, q in zip(panel.attributes, quality)}
    table["reward_model"] = halves("reward_model", lambda half: trained(half, out), asked, texts, choices, n)
    return table


def trained(half: list, out: Path):
    """A reward model on SmolLM2, from the rankings of one half: the same command for all."""
    from harken.cli.main import main
    from harken.core.records import content_hash
    from harken.launch.rewards import open_reward
    from harken.store.files import write_jsonl
    rows = [c.to_json() for c in half]
    run = out / f"rm_{content_hash(rows)[:12]}"
    write_jsonl(run.with_suffix(".jsonl"), rows)
    assert main(["train", "reward_model", "--model", "smollm2", "--data", str(run.with_suffix(".jsonl")), "--out", str(run),
                     "--epochs", "3", "--batch-size", "2", "--learning-rate", "5e-4", "--warmup", "0.1", "--holdout", "0",
                     "--holdout-labelers", "0", "--max-length", "384", "--dtype", "auto"]) == 0
    return open_reward(str(run), dtype="bfloat16")


def halves(kind: str, fit: Callable, asked: list, texts: list[list[str]], choices: list, n: int) -> dict:
    """Figures of rewards by `fit` of a half's rankings: gap and gold gained at the best of n, accuracy on the other part."""
    from harken.sandbox import gold_score
    from harken.stats.pairs import evaluate_pairs
    gold = np.array([[gold_score(p, t) for t in row] for p, row in zip(asked, texts)])
    ids, ns = [p.id for p in asked], [k for k in NS if k <= n]
    middle = len(ids) // 2
    gaps, golds, held, scores, correlations = [], [], [], [], []
    for learnt, tested in ((ids[:middle], ids[middle:]), (ids[middle:], ids[:middle])):
        parts = set(learnt[: len(learnt) // 2]), set(learnt[len(learnt) // 2:])
        rewards = [fit([c for c in choices if c.prompt.id in part]) for part in parts]
        where = [i for i, name in enumerate(ids) if name in tested]
        shown = [asked[i] for i in where], [texts[i] for i in where]
        a, b = (np.array(r.score(*shown), dtype=float) for r in rewards)
        a, b = ((x - x.mean()) / max(float(x.std()), 1e-9) for x in (a, b))
        proxy, true = best_of_n(a, b, ns), best_of_n(a, gold[where], ns)
        gaps += list(proxy.proxy_P_n[:, -1] - proxy.gold_P_n[:, -1])
        golds += list(true.gold_P_n[:, -1] - true.gold_P_n[:, 0])
        correlations.append(correlation(a.ravel(), b.ravel()))
        there = [c for c in choices if c.prompt.id in tested]
        held += there
        scores += rewards[0].score([c.prompt for c in there], [c.options for c in there])
    figures = evaluate_pairs(held, scores)
    print(f"{kind}: gap at n = {n} {mean_interval(gaps)}, gold gained {mean_interval(golds)}, {figures}, correlation of "
          f"halves {' and '.join('none (constant scores)' if r is None else f'{r:.2f}' for r in correlations)}", flush=True)
    return {f"gap at n = {n}": mean_interval(gaps).to_json(), "gold gained": mean_interval(golds).to_json(),
            "correlation": correlations, "accuracy": figures.accuracy.to_json(),
            "baselines": {name: e.to_json() for name, e in figures.baselines.items()}}


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Of two halves' standardised scores; None where a half scores every answer alike: no attribute told good from bad."""
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 0.5 else None  # 1, or rounding's 0


def answers_of(out: Path, prompts: int, n: int) -> tuple[list, list[list[str]], list]:
    """Prompts, SmolLM2's answers (sampled once, then read), and the crowd's rankings of them."""
    from harken.core.files import read_jsonl
    from harken.engines.sampler import HFSampler
    from harken.launch.models import open_engine
    from harken.sandbox import crowd, load_prompts, make_comparisons
    from harken.store.files import write_jsonl
    asked = load_prompts("train")
    asked = [asked[i] for i in np.random.default_rng(0).permutation(len(asked))[:prompts]]
    if not (out / "answers.jsonl").exists():
        sampler = HFSampler(open_engine("smollm2", dtype="bfloat16"))
        found = sampler.sample(asked, n, max_tokens=48)
        write_jsonl(out / "answers.jsonl", ({"texts": [s.text for s in group]} for group in found))
    texts = [row["texts"] for row in read_jsonl(out / "answers.jsonl")]
    return asked, texts, make_comparisons(asked, texts, crowd(0), np.random.default_rng(0), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true", help="also 10,000 clean pairs, where the standard model should win")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--real", type=Path, metavar="OUT")
    parser.add_argument("--prompts", type=int, default=24, help="prompts of --real")
    parser.add_argument("--answers", type=int, default=8, help="answers a prompt of --real")
    parser.add_argument("--retest", type=int, default=40, help="answers of --real rated under a second wording")
    args = parser.parse_args()
    found = real(args.real, args.prompts, args.answers, args.retest) if args.real else synthetic(args.quick, args.large, args.svg)
    print(json.dumps(found, allow_nan=False))


if __name__ == "__main__":
    main()
