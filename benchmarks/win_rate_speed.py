"""What a win rate costs over the sampling it needs: `harken eval win_rate` beside bare calls of the sampler.

    python benchmarks/win_rate_speed.py [--model smollm2] [--prompts 48] [--tokens 24] [--rounds 3] [--quick]

Both sides in turn in one process: all prompts at once through the sampler, twice (two models, here of the same weights); and
the evaluation with the sandbox's known truth for a judge, whose answers, verdicts, intervals and files come on top. A ratio is
of one round, in CPU seconds of the process: other programs slow both sides alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from harken.engines.sampler import HFSampler
from harken.evals import win_rate
from harken.launch.evaluate import evaluate
from harken.launch.models import open_engine
from harken.sandbox import load_prompts
from harken.store.writing import write_jsonl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--n", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="goes through every part in seconds, and measures nothing")
    args = parser.parse_args()
    if args.quick:
        args.model, args.prompts, args.tokens, args.rounds = "toy", 8, 4, 1
    engine = open_engine(args.model)
    prompts = load_prompts()[:args.prompts]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        write_jsonl(file, [p.to_json() for p in prompts])
        for round_ in range(args.rounds):
            begun = time.process_time()
            for _ in range(2):
                HFSampler(engine).sample(prompts, args.n, max_tokens=args.tokens, temperature=1.0, seed=round_)
            bare = time.process_time() - begun
            begun = time.process_time()
            config = win_rate.Config(model="my.a", against="my.b", prompts=str(file), judge="gold", n=args.n,
                                     max_tokens=args.tokens, seed=round_, out=str(Path(folder) / str(round_)))
            evaluate("win_rate", win_rate, config, quiet=True, given={"model": HFSampler(engine), "against": HFSampler(engine)})
            whole = time.process_time() - begun
            ratios.append(whole / bare)
            print(f"round {round_ + 1}: sampling {bare:.1f} s of CPU, win rate {whole:.1f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
