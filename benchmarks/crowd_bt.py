"""A million comparisons of ten thousand items by a thousand labelers: Crowd-BT and the beta model, beside crowd-kit.

    python benchmarks/crowd_bt.py                                     # our side
    python benchmarks/crowd_bt.py --peer-python PATH/TO/PYTHON        # and crowd-kit 1.4.2 in an environment of its own

Seconds and peak memory of each fit in a fresh process, and what it recovered: Kendall's tau with the planted scores, the
correlation with the planted betas, the share of planted adversaries found. crowd-kit has no Crowd-BT; its NoisyBradleyTerry
(a skill and a bias for each labeler) is the nearest. Its gradient is shifted by one index in 1.4.2, which stops its
optimiser early, so its seconds are not those of a converged fit.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

FULL, QUICK = (1_000_000, 10_000, 1_000), (100_000, 1_000, 100)


def world(votes: int, items: int, people: int, seed: int = 0):
    """Scores N(0, 1), betas: 70 % N(2, 0.4), 20 % near 0, 10 % adversaries; no ties (crowd-kit has none)."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=items)
    kind = rng.random(people)
    beta = np.where(kind < 0.7, rng.normal(2, 0.4, people), np.where(kind < 0.9, rng.normal(0, 0.1, people), -1.5))
    a = rng.integers(items, size=votes)
    b = (a + 1 + rng.integers(items - 1, size=votes)) % items
    who = rng.integers(people, size=votes)
    won = np.where(rng.random(votes) < 1 / (1 + np.exp(-beta[who] * (scores[a] - scores[b]))), 1, -1)
    return scores, beta, a, b, won, who


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def report(name: str, start: tuple[float, float], scores, truth, beta=None, planted=None) -> None:
    from scipy.stats import kendalltau
    wall, cpu = (now - then for now, then in zip(clock(), start))
    found = {"name": name, "seconds": round(wall, 2), "cpu_seconds": round(cpu, 2),
             "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
             "tau": round(float(kendalltau(scores, truth)[0]), 4)}
    if beta is not None:
        bad = planted < -0.5
        found |= {"corr_beta": round(float(np.corrcoef(beta, planted)[0, 1]), 4),
                  "adversaries_found": round(float((beta[bad] < 0).mean()), 4),
                  "good_called_bad": round(float((beta[planted > 1] < 0).mean()), 4)}
    print(json.dumps(found), flush=True)


def ours(model: str, size: tuple[int, int, int], draws: int) -> None:
    from harken.labelers.models.reliability import fit_reliability
    from harken.labelers.votes import Votes
    scores, beta, a, b, won, who = world(*size)
    votes = Votes(a, b, won, who, np.zeros_like(a), np.arange(len(a)), tuple(("", str(i)) for i in range(size[1])),
                  np.zeros(size[1], dtype=np.int64), tuple(map(str, range(size[2]))), ({},) * size[2])
    start = clock()
    found = fit_reliability(votes, model=model, draws=draws)
    report(f"harken {model}" + (f", {draws} draws" if draws else ""), start, found.scores, scores,
           None if model == "plain" else found.beta, beta)


def peer(size: tuple[int, int, int], iterations: int) -> None:
    """Runs under --peer-python: crowd-kit and pandas, no Harken."""
    import pandas as pd
    from crowdkit.aggregation import NoisyBradleyTerry
    scores, beta, a, b, won, who = world(*size)
    frame = pd.DataFrame({"worker": who, "left": a, "right": b, "label": np.where(won > 0, a, b)})
    start = clock()
    model = NoisyBradleyTerry(n_iter=iterations).fit(frame)
    name = f"crowd-kit NoisyBradleyTerry, at most {iterations} iterations"
    report(name, start, model.scores_.sort_index().to_numpy(), scores,
           2 * model.skills_.sort_index().to_numpy() - 1, beta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of each number")
    parser.add_argument("--peer-python", help="a Python with crowd-kit 1.4.2")
    parser.add_argument("--peer-iterations", type=int, default=100, help="crowd-kit's n_iter, of which 100 is its default")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    if args.one:
        name, _, draws = args.one.partition(":")
        if name == "peer":
            peer(size, args.peer_iterations)
        else:
            ours(name, size, int(draws or 0))
        return
    results = []
    for job in ["plain", "crowd", "beta", "beta:64", *(["peer"] if args.peer_python else [])]:
        python = args.peer_python if job == "peer" else sys.executable
        command = [python, __file__, "--one", job, "--peer-iterations", str(args.peer_iterations), *["--quick"] * args.quick]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{job} failed:\n{run.stderr}")
        results.append(json.loads(run.stdout.splitlines()[-1]))
        print(results[-1], file=sys.stderr)
    print(json.dumps({"votes": size[0], "items": size[1], "labelers": size[2], "results": results}))


if __name__ == "__main__":
    main()
