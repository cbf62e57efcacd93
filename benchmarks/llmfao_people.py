"""Does it help to know who voted? Plain, reliability and group models on real votes by named people, held out five ways.

    python benchmarks/llmfao_people.py DATA [--quick]

DATA holds crowd-comparisons.csv, pairs-crowd.jsonl and models.jsonl of llmfao (CC-BY-4.0, github.com/dustalov/llmfao): 124
people, 8,931 votes on 2,139 pairs of answers by 59 models to 13 prompts, 39 % ties. All models know the place on the screen.

What is held out (5 folds; prompts one by one):
  vote      votes at random: other people's votes on the pair, and the person's other votes, are seen
  pair      all votes on a pair: its two answers are seen in other pairs
  labeler   all votes of a person
  item      all votes on an answer; scores are linear in features (the model that wrote it, its length and form)
  prompt    all votes on a prompt; the same features

Models: plain (one score, ties as an outcome), care (and each person's rationality and indifference), groups (and two
groups of people found by EM), reliability (`fit_reliability`: as care, and each person's pull towards a place).
A difference is against plain on the same votes, in nats a vote and in points of accuracy. Its 95 % interval is the wider of
two: clustered by labeler, and clustered by what was held out. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np

from harken.core.protocols import Estimate
from harken.core.records import Judgment, Prompt
from harken.labelers.groups.disagreement import fit_disagreement
from harken.labelers.groups.heldout import folds_of
from harken.labelers.groups.mixture import find_groups
from harken.labelers.groups.scores import features, fit_groups
from harken.labelers.models.reliability import fit_reliability
from harken.labelers.votes import Votes, votes_of
from harken.stats.intervals import cluster_index, paired_difference

FOLDS = 5
MODELS = ("plain", "care", "groups", "reliability")


def read(folder: Path) -> tuple[Votes, list[str], list[str]]:
    """The votes, the model that wrote each item, and each item's type of prompt."""
    def rows(name: str) -> list[dict]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    names = {row["id"]: row["name"] for row in rows("models.jsonl")}
    pairs = {str(row["id"]): row for row in rows("pairs-crowd.jsonl")}
    author, kind, judgments = {}, {}, []
    with (folder / "crowd-comparisons.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pair, prompt = pairs[row["id"]], Prompt.of(pairs[row["id"]]["text"])
            texts = {names[pair[f"model_{side}"]]: pair[f"result_{side}"] for side in "xy"}
            ranks = {"left": [1, 2], "right": [2, 1], "tie": [1, 1]}[row["winner"]]
            shown = {"completions": [texts[row["left"]], texts[row["right"]]], "ranks": ranks}
            judgments.append(Judgment(prompt, "ranking", shown, row["worker"], order=(0, 1)))
            kind[prompt.id] = pair["type"]
            for name, text in texts.items():
                author.setdefault((prompt.id, text), name)
    votes = votes_of(judgments)
    return votes, [author[item] for item in votes.items], [kind[prompt] for prompt, _ in votes.items]


def form(votes: Votes, author: list[str], kind: list[str]) -> np.ndarray:
    """[I, F] who wrote it, and what its text looks like; length by type of prompt."""
    texts = [text for _, text in votes.items]
    size = np.log1p(votes.lengths)
    size = (size - size.mean()) / size.std()
    columns = [size, size**2, [("```" in t) for t in texts], [t.count("\n") > 3 for t in texts],
               [t.rstrip().endswith((".", "!", "?", "```", "}", '"')) for t in texts], [not t.strip() for t in texts],
               [t.lower().lstrip().startswith(("i'm sorry", "i am sorry", "as an ai", "i cannot")) for t in texts]]
    columns += [size * np.array([k == one for k in kind]) for one in sorted(set(kind))]
    models = sorted(set(author))
    return np.column_stack([np.array(c, dtype=float) for c in columns] + [np.array([a == m for a in author]) for m in models])


def plan(votes: Votes, quick: bool) -> dict[str, tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, bool]]:
    """Name -> (train and test rows of each fold, the unit held out of each vote, whether features are needed)."""
    rng = np.random.default_rng(0)
    most = 1 if quick else FOLDS
    pair = cluster_index(list(map(tuple, np.sort(np.stack([votes.a, votes.b], 1), 1).tolist())), len(votes))
    prompt = votes.prompt[votes.a]

    def by(unit: np.ndarray, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
        fold = rng.permutation(np.arange(unit.max() + 1) % folds)[unit]
        return [(fold != f, fold == f) for f in range(folds)]

    item_fold = rng.permutation(np.arange(len(votes.items)) % FOLDS)
    items, done = [], np.zeros(len(votes), bool)
    for f in range(FOLDS):  # a vote on items of two folds is tested once
        out = (item_fold[votes.a] == f) | (item_fold[votes.b] == f)
        items.append((~out, out & ~done))
        done |= out
    vote_fold = folds_of(votes, FOLDS)
    splits = {"vote": ([(vote_fold != f, vote_fold == f) for f in range(FOLDS)], pair, False),
              "pair": (by(pair, FOLDS), pair, False), "labeler": (by(votes.labeler, FOLDS), votes.labeler, False),
              "item": (items, np.where(item_fold[votes.a] == 0, votes.a, votes.b), True),
              "prompt": (by(prompt, len(set(prompt.tolist()))), prompt, True)}
    splits["prompt"] = (splits["prompt"][0][:3 if quick else None], prompt, True)
    return {name: (folds if name == "prompt" else folds[:most], unit, needs) for name, (folds, unit, needs) in splits.items()}


def fitted(train: Votes, phi: np.ndarray | None, quick: bool) -> dict[str, Callable[[Votes], np.ndarray]]:
    """Each model's predictor: log P(b preferred, tie, a preferred), [N, 3]."""
    plain, care = fit_groups(train, phi=phi, noise=False), fit_groups(train, phi=phi)
    groups, _ = find_groups(train, 2, shared=care, starts=1 if quick else 2, steps=8 if quick else 20)
    options = {"position": True, "indifference": True, "draws": 0}
    people = fit_reliability(train, **options) if phi is None else fit_reliability(train, phi=phi, **options)

    def reliability(votes: Votes) -> np.ndarray:
        return np.log(people.probability(votes)[:, ::-1])

    assert groups.phi.shape == features(train, phi).shape
    return {"plain": plain.log_probabilities, "care": care.log_probabilities, "groups": groups.log_probabilities,
            "reliability": reliability}


def wider(a: np.ndarray, b: np.ndarray, *clusters: np.ndarray) -> Estimate:
    return max((paired_difference(a, b, c) for c in clusters), key=lambda e: e.high - e.low)


def run(votes: Votes, phi: np.ndarray, quick: bool, only: str | None = None) -> dict[str, dict]:
    result = {}
    for name, (folds, unit, needs) in plan(votes, quick).items():
        if only not in (None, name):
            continue
        start, tested = time.monotonic(), np.zeros(len(votes), bool)
        logps = {model: np.full((len(votes), 3), np.nan) for model in MODELS}
        for train, test in folds:
            part = votes.take(test)
            for model, predict in fitted(votes.take(train), phi if needs else None, quick).items():
                logps[model][test] = predict(part)
            tested |= test
        rows = np.flatnonzero(tested)
        won, clusters = votes.won[rows], (votes.labeler[rows], unit[rows])
        fit = {m: np.take_along_axis(logps[m][rows], (won + 1)[:, None], 1)[:, 0] for m in MODELS}
        right = {m: (logps[m][rows].argmax(1) - 1 == won).astype(float) for m in MODELS}
        untied = won != 0
        gap = {m: (logps[m][rows][:, 2] - logps[m][rows][:, 0])[untied] * won[untied] for m in MODELS}
        sides = {m: (g > 0) + 0.5 * (g == 0) for m, g in gap.items()}
        result[name] = {"votes": len(rows), "seconds": round(time.monotonic() - start, 1), "models": {}}
        for m in MODELS:
            row = {"log_likelihood": fit[m].mean(), "accuracy": right[m].mean(), "untied_accuracy": sides[m].mean()}
            if m != "plain":
                row["more_nats"] = wider(fit[m], fit["plain"], *clusters).to_json()
                row["more_accuracy"] = wider(right[m], right["plain"], *clusters).to_json()
                row["more_untied"] = wider(sides[m], sides["plain"], *(c[untied] for c in clusters)).to_json()
            result[name]["models"][m] = row
        show(name, result[name])
    return result


def show(name: str, found: dict) -> None:
    print(f"\n{name}: {found['votes']} held-out votes, {found['seconds']} s")
    for model, row in found["models"].items():
        line = (f"  {model:12} {row['log_likelihood']:.4f} nats  {row['accuracy']:.3f} of three  "
                f"{row['untied_accuracy']:.3f} of untied")
        if "more_nats" in row:
            n, a, u = row["more_nats"], row["more_accuracy"], row["more_untied"]
            line += (f"   nats {n['value']:+.4f} [{n['low']:+.4f}, {n['high']:+.4f}]  points {100 * a['value']:+.1f} "
                     f"[{100 * a['low']:+.1f}, {100 * a['high']:+.1f}]  untied {100 * u['value']:+.1f} "
                     f"[{100 * u['low']:+.1f}, {100 * u['high']:+.1f}]")
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--quick", action="store_true", help="one fold of each, in under a minute")
    parser.add_argument("--only", choices=("vote", "pair", "labeler", "item", "prompt"), help="one way to hold out")
    args = parser.parse_args()
    votes, author, kind = read(args.data)
    cast = np.sort(np.bincount(votes.labeler))[::-1]
    fifth = float(cast[:len(cast) // 5].sum() / cast.sum())
    print(f"{len(votes)} votes by {len(cast)} people on {len(votes.items)} texts, {np.mean(votes.won == 0):.0%} ties; "
          f"a fifth of the people cast {fifth:.0%} of the votes (F17)")
    result = {"splits": run(votes, form(votes, author, kind), args.quick, args.only), "a_fifth_cast": fifth}
    if not (args.quick or args.only):
        found = fit_disagreement(votes, most=3, starts=2)
        print(f"\nGroups the votes support: {len(found.model.names)}. Gains a held-out vote of 2, 3 groups: "
              f"{', '.join(map(str, found.discovery.gains))}")
        result["groups"] = {"supported": len(found.model.names), "gains": [g.to_json() for g in found.discovery.gains],
                            "icl": found.discovery.icl, "observed": found.observed}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
