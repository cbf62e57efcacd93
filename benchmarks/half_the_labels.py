"""Half the labels: reliability modelling and active choice against plain Bradley–Terry on majority-voted random pairs.

    python benchmarks/half_the_labels.py [--seeds 10] [--labels 600] [--workers 2] [--explore 0] [--quick] [--svg FILE]

In the sandbox, 20 simulated labelers compare answers to 140 prompts, and a linear reward is learnt from what they say, on the
same features in every arm. A label is one vote. Accuracy is on 61 other prompts: the share of pairs of answers, at least 0.05
apart in gold, that are ranked as gold (what the careful value, and the mean of the two groups) ranks them.

plain        N / 3 random pairs, each put to 3 people, the majority kept, Bradley–Terry (ties as half wins)
reliability  random pairs, one vote each, beta of each labeler fitted with the reward (fit_reliability)
ours         the same, and the pairs chosen by BALD in batches of 20, one for each labeler: everybody, the careless too, gives
             as many labels as in the other arms

Features: "attributes" are the gold reward's twelve parts among twenty text features, so that a linear reward can be right;
"text" are 32 text features alone (labelers/asking/features.py), with which no linear reward gets beyond about 84 %.
The figure: labels at which an arm reaches, and at the next look still holds, the accuracy plain has with N labels, over N.
N = 600 was fixed before any run; the crowd and the attributes were settled after pilot runs of three and four seeds on others.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from itertools import pairwise
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from harken.core.records import Prompt
from harken.labelers.asking.belief import belief_of_features
from harken.labelers.asking.features import TextFeatures
from harken.labelers.asking.pairs import Questions, next_items, pairs_to_ask
from harken.labelers.models.reliability import Reliability, fit_reliability
from harken.labelers.votes import Votes
from harken.sandbox import SimulatedLabeler, gold_parts, gold_score, load_demonstrations, null_answers, upside_down
from harken.sandbox.gold import LONG_ANSWER
from harken.sandbox.labelers import BRIEF_VALUES, WARM_VALUES

BATCH = 20
GAP = 0.05
OVERLAP = 3
LOOKED_AT = 500
"""Questions of the pool, drawn anew for each batch, that are weighed for each of 20 people."""
HELD_OUT = 61
"""Prompts."""
DIMENSIONS = 32


def mixed(seed: int) -> list[SimulatedLabeler]:
    """Twenty: 4 careful, 4 and 4 of two styles that disagree, 7 careless (9 of 10 answers random), 1 reversed."""
    rng = np.random.default_rng(seed)

    def beta() -> float:
        return float(12 * rng.uniform(0.8, 1.2))

    people = [SimulatedLabeler(f"careful-{i}", rationality=beta()) for i in range(4)]
    for style, values in (("brief", BRIEF_VALUES), ("warm", WARM_VALUES)):
        people += [SimulatedLabeler(f"{style}-{i}", values, beta(), group={"style": style}) for i in range(4)]
    people += [SimulatedLabeler(f"careless-{i}", rationality=beta(), careless=0.9) for i in range(7)]
    return [*people, upside_down()]


def clean(seed: int) -> list[SimulatedLabeler]:
    rng = np.random.default_rng(seed)
    return [SimulatedLabeler(f"careful-{i}", rationality=float(12 * rng.uniform(0.8, 1.2))) for i in range(20)]


def answers(prompt: Prompt, shown: str, other: str) -> list[str]:
    """Ten or so answers to a prompt, from real text: a good one, changes of it for the worse, and null answers."""
    words = shown.split()
    nulls = null_answers(prompt)
    texts = [shown, " ".join(words[:max(1, len(words) // 2)]), f"{shown} Hope that helps!", f"{shown} {LONG_ANSWER}",
             f"{shown} {shown} {shown}", f"{prompt.text} {shown}", other, f"As an AI language model, I can say this: {shown}",
             nulls["constant"], nulls["humble"], nulls["echo"], nulls["salad"], nulls["long"]]
    return list(dict.fromkeys(texts))


class World:
    """One seed: answers with features and gold scores, and the people to ask."""

    def __init__(self, seed: int, explore: float = 0.0) -> None:
        self.explore = explore
        self.rng = np.random.default_rng([seed, 1])
        self.people: list[SimulatedLabeler] = []
        shown = load_demonstrations()
        order = self.rng.permutation(len(shown))
        self.prompts: list[Prompt] = []
        self.texts: list[str] = []
        where = []
        for k, i in enumerate(order):
            found = answers(shown[i].prompt, shown[i].completion, shown[order[(k + 1) % len(order)]].completion)
            self.prompts += [shown[i].prompt] * len(found)
            self.texts += found
            where += [k] * len(found)
        self.prompt = np.array(where)
        self.gold = np.array([gold_score(p, t) for p, t in zip(self.prompts, self.texts)])
        asked = [p.text for p in self.prompts]
        pool = np.flatnonzero(self.prompt < len(order) - HELD_OUT)
        features = TextFeatures.fit([asked[i] for i in pool], [self.texts[i] for i in pool], DIMENSIONS)
        text = features.of(asked, self.texts)
        parts = np.array([list(gold_parts(p, t).values()) for p, t in zip(self.prompts, self.texts)])
        parts = (parts - parts[pool].mean(0)) / np.maximum(parts[pool].std(0), 1e-9)
        self.features = {"text": text, "attributes": np.hstack([parts, text[:, :DIMENSIONS - parts.shape[1]]])}
        self.phi = text
        held = np.array(self.prompt >= len(order) - HELD_OUT)
        every = pairs_to_ask(self.prompt)
        far = np.abs(self.gold[every.a] - self.gold[every.b]) >= GAP
        self.test = np.stack([every.a, every.b])[:, held[every.a] & far]
        self.pool = pairs_to_ask(self.prompt[pool])
        assert (pool == np.arange(len(pool))).all()

    def set(self, seed: int, features: str, people: list[SimulatedLabeler]) -> World:
        """Ready for an arm: every arm starts from the same random numbers."""
        self.rng, self.phi, self.people = np.random.default_rng([seed, 5]), self.features[features], people
        return self

    def ask(self, a: int, b: int, who: int) -> tuple[int, int]:
        """1, 0 or -1 for a preferred, a tie, b; and which was shown first."""
        order = self.rng.permutation(2).tolist()
        ranks = self.people[who].judge(self.prompts[a], [self.texts[a], self.texts[b]], order, self.rng).payload["ranks"]
        return int(np.sign(ranks[1] - ranks[0])), 1 if order[0] == 0 else -1

    def votes(self, rows: list[tuple[int, int, int, int, int]]) -> Votes:
        """From (a, b, won, labeler, first)."""
        table = np.array(rows, dtype=np.int64).reshape(-1, 5)
        keys = tuple((p.id, t) for p, t in zip(self.prompts, self.texts))
        return Votes(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4], np.arange(len(table)), keys, self.prompt,
                     tuple(p.name for p in self.people), tuple(p.group for p in self.people))

    def accuracy(self, found: Reliability) -> float:
        gap = found.scores[self.test[0]] - found.scores[self.test[1]]
        return float((np.sign(gap) == np.sign(self.gold[self.test[0]] - self.gold[self.test[1]])).mean())

    def fit(self, rows: list[tuple[int, int, int, int, int]], plain: bool) -> Reliability:
        return fit_reliability(self.votes(rows), phi=self.phi, model="plain" if plain else "beta",
                               ties="half" if plain else "davidson", draws=0)


def majority(won: list[int]) -> int:
    """What more than half said; else a tie."""
    return next((x for x in (1, -1) if won.count(x) * 2 > len(won)), 0)


def run(world: World, labels: int, arm: str) -> list[tuple[int, float]]:
    """(labels, accuracy) at each look: every 20 labels where the fit chooses the questions, else every 60."""
    rows: list[tuple[int, int, int, int, int]] = []
    curve: list[tuple[int, float]] = []
    spent, found = 0, None
    while spent < labels:
        if arm == "plain":
            rows += majority_votes(world)
            spent += 60
        else:
            for _ in range(1 if arm == "ours" else 3):
                for a, b, who in choose(world, found):
                    won, first = world.ask(a, b, who)
                    rows.append((a, b, won, who, first))
            spent = len(rows)
        fit = world.fit(rows, arm == "plain")
        found = fit if arm == "ours" else None
        curve.append((spent, world.accuracy(fit)))
    return curve


def majority_votes(world: World) -> list[tuple[int, int, int, int, int]]:
    """20 random pairs, three people each: 60 labels."""
    out = []
    for at in world.rng.integers(len(world.pool), size=BATCH):
        a, b = int(world.pool.a[at]), int(world.pool.b[at])
        said = [world.ask(a, b, int(k))[0] for k in world.rng.permutation(len(world.people))[:OVERLAP]]
        out.append((a, b, majority(said), 0, 0))
    return out


def choose(world: World, found: Reliability | None) -> list[tuple[int, int, int]]:
    """A batch of (a, b, labeler), one for each labeler; at random where there is no fit yet."""
    rng, people, pool = world.rng, len(world.people), world.pool
    if found is None:
        rows = rng.integers(len(pool), size=BATCH)
        return [(int(pool.a[r]), int(pool.b[r]), int(k)) for r, k in zip(rows, rng.permutation(people))]
    some = rng.choice(len(pool), size=LOOKED_AT, replace=False)
    part = Questions(pool.a[some], pool.b[some], pool.seconds[some], pool.beta[some], pool.labeler[some])
    each = part.for_labelers(found.beta)
    got = next_items(belief_of_features(found, world.phi), each, BATCH, per_second=False, quota=dict.fromkeys(range(people), 1),
                     explore=world.explore, seed=int(rng.integers(1 << 30)) if world.explore else 0)
    return [(int(each.a[r]), int(each.b[r]), int(each.labeler[r])) for r in got.which]


def reaches(curve: list[tuple[int, float]], goal: float) -> int | None:
    """Labels at the first look at or above `goal` that the next look confirms."""
    return next((n for (n, one), (_, two) in pairwise(curve) if min(one, two) >= goal), None)


def one_seed(task: tuple[int, int, float]) -> dict[str, list[tuple[int, float]]]:
    seed, labels, explore = task
    world, out = World(seed, explore), {}
    for features in ("attributes", "text"):
        for arm in ("plain", "reliability", "ours"):
            most = labels if arm == "plain" else int(labels * 0.7)
            out[f"{features}, mixed, {arm}"] = run(world.set(seed, features, mixed(seed)), most, arm)
    for arm in ("plain", "ours"):
        out[f"attributes, clean, {arm}"] = run(world.set(seed, "attributes", clean(seed)), labels, arm)
    print(f"seed {seed}: " + "; ".join(f"{k} {c[-1][1]:.3f} at {c[-1][0]}" for k, c in out.items()), flush=True)
    return out


def ratios(seeds: list[dict[str, list[tuple[int, float]]]], labels: int, features: str, arm: str) -> list[float]:
    """Of each seed; inf where the arm never got there."""
    found = []
    for curves in seeds:
        at = reaches(curves[f"{features}, mixed, {arm}"], curves[f"{features}, mixed, plain"][-1][1])
        found.append(at / labels if at else float("inf"))
    return found


def draw(seeds: list[dict[str, list[tuple[int, float]]]], labels: int) -> str:
    """Mean learning curves with mixed labelers, attributes left, text right."""
    from harken.draw.svg import Plot
    colour = {"plain": "#888888", "reliability": "#2f6fb7", "ours": "#c2571a"}
    parts = []
    for at, features in enumerate(("attributes", "text")):
        plot = Plot(f"Accuracy by labels, {features}", "Mean over seeds", (0, labels), (0.5, 1.0), x_label=f"Labels ({features})",
                    y_label="Held-out accuracy")
        for row, (arm, paint) in enumerate(colour.items()):
            curves = [s[f"{features}, mixed, {arm}"] for s in seeds]
            mean = [(float(x[0][0]), float(np.mean([p[1] for p in x]))) for x in zip(*curves)]
            plot.line(mean, f'line" style="fill:none;stroke:{paint};stroke-width:2')
            at_y = plot.bottom - 44 + 15 * row
            plot.parts.append(f'<text x="{plot.right}" y="{at_y}" text-anchor="end" style="fill:{paint}">'
                              f'{"reliability and BALD" if arm == "ours" else arm}</text>')
        parts.append(plot.svg().replace("<svg ", f'<svg x="{at * 440}" width="430" height="270" ', 1))
    style = ("<style>text{font:12px sans-serif;fill:#444}.grid{stroke:#ddd}</style>"
             '<rect width="100%" height="100%" fill="#ffffff"/>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 870 270" role="img" aria-label="Learning curves">'
            f"{style}{''.join(parts)}</svg>\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--labels", type=int, default=600, help="N")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--explore", type=float, default=0.0, help="share of the chosen pairs that is random")
    parser.add_argument("--svg", type=Path, help="file for the picture")
    parser.add_argument("--quick", action="store_true", help="one seed, N = 240: under a minute")
    args = parser.parse_args()
    seeds, labels = (1, 240) if args.quick else (args.seeds, args.labels)
    with Pool(min(args.workers, seeds)) as pool:
        found = pool.map(one_seed, [(s, labels, args.explore) for s in range(seeds)], chunksize=1)
    if args.svg:
        args.svg.write_text(draw(found, labels), encoding="utf-8")
    result: dict[str, object] = {"benchmark": "half_the_labels", "seeds": seeds, "N": labels}
    for features in ("attributes", "text"):
        for arm in ("reliability", "ours"):
            each = ratios(found, labels, features, arm)
            median = float(np.median(each))
            print(f"{features}, {arm}: labels over N, median {median:.3f}; seeds {[round(r, 3) for r in each]}")
            result[f"{features}_{arm}_ratio"] = round(median, 3) if np.isfinite(median) else None
    for name in found[0]:
        at = [s[name][-1] for s in found]
        result[name] = {"labels": at[0][0], "accuracy": round(float(np.mean([a for _, a in at])), 4)}
    gap = [s["attributes, clean, ours"][-1][1] - s["attributes, clean, plain"][-1][1] for s in found]
    print(f"clean labels, ours - plain at N: median {np.median(gap):+.4f}; seeds {[round(g, 4) for g in gap]}")
    print(json.dumps(result | {"clean_difference": round(float(np.median(gap)), 4)}))


if __name__ == "__main__":
    main()
