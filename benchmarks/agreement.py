"""Agreement and reliability: CPU seconds for what the lead's view asks, coverage of the intervals, and real sets.

    python benchmarks/agreement.py --data SHARED/data        # --quick: fewer judgments and worlds
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from harken.core.records import Choice, Prompt
from harken.labelers.agreement.coefficients import agreement
from harken.labelers.agreement.pairwise import by_rater, matrix, self_consistency
from harken.labelers.models.dawid_skene import fit_dawid_skene
from harken.labelers.models.glad import fit_glad
from harken.labelers.ratings import Ratings, ratings_of, ratings_of_matrix, ratings_of_votes
from harken.labelers.votes import votes_of


def seconds(work, rounds=5):
    """Median CPU time of a few runs (the machine may be busy), and what the last returned."""
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        found = work()
        taken.append(time.process_time() - started)
    return round(statistics.median(taken), 4), found


def speed(judgments: int) -> dict[str, float]:
    """Pairs judged by three of 40 people who are right on 60 to 90 %, or tie on 20 %."""
    rng = np.random.default_rng(0)
    ranks, pairs = ((1, 2), (2, 1), (1, 1)), judgments // 3
    prompts, best = [Prompt.of(f"question {i}") for i in range(pairs)], rng.integers(2, size=pairs)
    able = rng.uniform(0.6, 0.9, size=40)
    said = []
    for i in range(judgments):
        who = rng.integers(40)
        answer = 2 if rng.random() < 0.2 else int(best[i % pairs] ^ (rng.random() > able[who]))
        said.append(Choice(prompts[i % pairs], ("x", "y"), ranks[answer], f"p{who}"))
    taken = {}
    taken["votes_of"], votes = seconds(lambda: votes_of(said))
    taken["ratings"], ratings = seconds(lambda: ratings_of_votes(votes))
    taken["four measures, 2000 draws"], _ = seconds(lambda: agreement(ratings))
    taken["matrix"], _ = seconds(lambda: matrix(ratings))
    taken["by labeler"], _ = seconds(lambda: by_rater(ratings))
    taken["self-consistency"], _ = seconds(lambda: self_consistency(votes))
    taken["dawid_skene"], model = seconds(lambda: fit_dawid_skene(ratings), 1)
    taken["its intervals"], _ = seconds(model.reliability, 1)
    taken["glad"], _ = seconds(lambda: fit_glad(ratings), 1)
    return taken


def coverage(worlds: int) -> dict[str, float]:
    """Share of 95 % intervals that hold the planted coefficient: 120 items of three classes, two people right on 80 %."""
    rng = np.random.default_rng(0)
    truth, inside = (0.66 - 1 / 3) / (2 / 3), {"fleiss": 0, "alpha": 0, "gwet": 0}
    for seed in range(worlds):
        right = rng.integers(3, size=(120, 1))
        said = np.where(rng.random((120, 2)) < 0.8, right, (right + rng.integers(1, 3, size=(120, 2))) % 3)
        for name, found in agreement(ratings_of_matrix(said.tolist()), tuple(inside), seed=seed).items():
            inside[name] += found is not None and found.value.low <= truth <= found.value.high
    return {name: round(n / worlds, 3) for name, n in inside.items()}


def real_sets(data: Path) -> dict[str, Ratings]:
    def rows(*path):
        with data.joinpath(*path).open(encoding="utf-8") as file:
            yield from csv.DictReader(file)

    classes = ("hate_speech", "offensive_language", "neither")
    return {
        "hatecheck": ratings_of([(r["case_id"], str(k), r[f"label_{k}"]) for r in rows("hatecheck", "test_suite_annotations.csv")
                                 for k in range(1, 11) if r[f"label_{k}"]]),
        "davidson_hate": ratings_of_matrix([[c for c in classes for _ in range(int(r[c]))]
                                            for r in rows("davidson_hate", "labeled_data.csv")], classes),
        "llmfao": ratings_of([(r["id"], r["worker"], {"left": 1, "tie": 0, "right": -1}[r["winner"]])
                              for r in rows("llmfao", "crowd-comparisons.csv")])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 judgments and 100 worlds")
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    args = parser.parse_args()
    found: dict[str, object] = {}
    for judgments in (10_000,) if args.quick else (10_000, 100_000):
        found[f"CPU seconds, {judgments} judgments"] = speed(judgments)
        print(json.dumps(found[f"CPU seconds, {judgments} judgments"]), flush=True)
    found["coverage of 95 % intervals"] = coverage(100 if args.quick else 1000)
    print(json.dumps(found["coverage of 95 % intervals"]), flush=True)
    if args.data:
        sets = {name: {k: a and a.to_json() for k, a in agreement(r).items()} for name, r in real_sets(args.data).items()}
        for name, table in sets.items():
            print(name, {k: (round(a["value"], 3), round(a["low"], 3), round(a["high"], 3), round(a["chance"], 3)) for k, a in
                         table.items()})
        found["real sets"] = sets
    print(json.dumps(found))


if __name__ == "__main__":
    main()
