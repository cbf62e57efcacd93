"""How often a brigade is named and an honest person flagged, in planted crowds of many kinds.

    python benchmarks/campaigns.py            # 20 seeds of each; minutes
    python benchmarks/campaigns.py --quick    # 4 seeds of each

The crowds are the tests' (tests/brigade_worlds.py): 40 people of 30 votes on 160 answers with three features, a tenth of whom
vote for what is rude.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from brigade_worlds import brigade_world
from harken.labelers.campaigns.audit import fit_campaigns

KINDS = {"plain": {}, "with ties": {"nu": 0.5}, "tastes of sd 0.3": {"tastes": 0.3},
         "tastes of sd 1, 60 people": {"tastes": 1.0, "people": 60}}


def rates(seeds: range, brigade: int, **kind: float) -> dict[str, float | None]:
    named, wrongly = [], []
    for seed in seeds:
        votes, phi, _ = brigade_world(seed, brigade=brigade, **kind)
        flagged = {votes.labelers.index(name) for name in fit_campaigns(votes, phi=phi, draws=39).flagged}
        named.append(sum(k < brigade for k in flagged) / max(1, brigade))
        wrongly.append(sum(k >= brigade for k in flagged) / (len(votes.labelers) - brigade))
    whole = float(np.mean(np.array(named) >= 0.75)) if brigade else None
    return {"named": whole, "flagged_honest": float(np.mean(wrongly))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    seeds = range(4 if parser.parse_args().quick else 20)
    for name, kind in KINDS.items():
        people = int(kind.get("people", 40))
        row = {"crowd": name, "brigade": rates(seeds, people // 10, **kind), "honest": rates(seeds, 0, **kind)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
