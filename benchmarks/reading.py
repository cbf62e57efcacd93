"""What reading a file of feedback costs: CPU seconds for N comparisons in five layouts, against other sources where given.

    python benchmarks/reading.py [--quick] [--against ../other/src]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1] / "src"
WORDS = ("river", "stone", "light", "and", "the", "walks", "through", "open", "field", "a", "of")
TIMED = ("import sys, time; from harken.store.files import read_comparisons as r; t = time.process_time(); r(sys.argv[1]); "
         "print(time.process_time() - t)")


def rows(layout: str, n: int):
    draw = random.Random(0)
    for i in range(n):
        asked, one, two = f"Question {i}: {_text(draw, 12)}?", _text(draw, 25), _text(draw, 30)
        if layout == "own":
            yield {"prompt": asked, "completions": [one, two], "ranks": draw.choice([[1, 2], [2, 1]]), "labeler": f"a{i % 40}"}
        elif layout == "pairs":
            yield {"prompt": asked, "chosen": one, "rejected": two}
        elif layout == "scored":
            yield {"prompt": asked, "chosen": one, "rejected": two, "score_chosen": draw.choice([6.0, 7.5, 8.0]),
                   "score_rejected": draw.choice([1.0, 2.5, 3.0])}
        elif layout == "messages":
            yield {"prompt": [_said("user", asked)], "chosen": [_said("assistant", one)], "rejected": [_said("assistant", two)]}
        else:
            yield {side: f"\n\nHuman: {asked}\n\nAssistant: {text}" for side, text in (("chosen", one), ("rejected", two))}


def _text(draw: random.Random, n: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(n))


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--against", type=Path, help="the src folder of other sources")
    args = parser.parse_args()
    n, rounds = (5_000, 2) if args.quick else (100_000, 5)
    sources = {"now": HERE} | ({"other": args.against.resolve()} if args.against else {})
    with tempfile.TemporaryDirectory() as folder:
        for layout in ("own", "pairs", "scored", "messages", "transcripts"):
            path = Path(folder) / f"{layout}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows(layout, n)))
            took: dict[str, list[float]] = {name: [] for name in sources}
            for _ in range(rounds):
                for name, source in sources.items():
                    done = subprocess.run([sys.executable, "-c", TIMED, str(path)], env={**os.environ, "PYTHONPATH": str(source)},
                                          check=True, capture_output=True, text=True)
                    took[name].append(float(done.stdout))
            middle = {name: statistics.median(times) for name, times in took.items()}
            ratios = [now / other for now, other in zip(took["now"], took.get("other", []))]
            ratio = f"  ratio {statistics.median(ratios):.2f}" if ratios else ""
            print(f"{layout:12} " + "  ".join(f"{name} {seconds:.2f} s" for name, seconds in middle.items()) + ratio, flush=True)


if __name__ == "__main__":
    main()
