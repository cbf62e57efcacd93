"""How time and memory grow: context 128 to 2,048, G 2 to 32 completions a prompt, K 2 to 9 answers a ranking.

    python benchmarks/scaling.py [--model llama|smollm2] [--rounds 3] [--quick]

One optimiser step a point, in a fresh process: SFT of 4 rows of that context; a rollout of 4 prompts of 64 tokens × G × 32 new
tokens with its policy update; a reward model on 4 rankings of K answers of 64 tokens after prompts of 256. Seconds are the least
of the rounds, memory is the process's peak. Beside the achieved FLOP/s (2 a weight and token forward, 6 with the backward pass,
attention left out) stands this machine's best on a large matrix product. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "30000")
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
POINTS = {"context": (128, 256, 512, 1024, 2048), "G": (2, 4, 8, 16, 32), "K": (2, 4, 6, 9)}


def engine(model: str, head: str | None) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from harken.engines.attention import NAME
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    from harken.engines.pretrained import Loaded
    from harken.engines.toy import toy_tokenizer
    from harken.text.template import Template
    if model != "llama":
        return Engine(load(model), lora_rank=16, dtype="auto", head=head)
    torch.manual_seed(0)
    found = LlamaForCausalLM(LlamaConfig(vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
                                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2304,
                                         tie_word_embeddings=True, bos_token_id=1, eos_token_id=3, pad_token_id=0)).eval()
    found.set_attn_implementation(NAME)
    return Engine(Loaded(found, Template(toy_tokenizer()), {}), head=head)


def point(kind: str, size: int, model: str) -> dict[str, float]:
    """Seconds and tokens learnt from in one step, the second of two; peak memory in MB."""
    from harken.core.protocols import Datum, Tree
    from harken.engines.sampler import HFSampler
    from harken.objectives.preference import k_wise
    made, rng = engine(model, "reward" if kind == "K" else None), random.Random(0)
    ids = lambda n: tuple(rng.randrange(5, 4000) for _ in range(n))  # noqa: E731

    def negative(out: Any, x: Any) -> Any:
        return -out.logps_N.mean(), {}

    def ranked(out: Any, x: Any) -> Any:
        import torch
        ranks = torch.tensor([float(i) for n in out.sizes for i in range(n)])
        return k_wise(out.scores_C, ranks, torch.ones_like(ranks), out.sizes, ties="drop")

    for _ in range(2):
        start = time.perf_counter()
        sampled = 0
        if kind == "context":
            trees = [Tree(ids(size // 2), (ids(size // 2),)) for _ in range(4)]
        elif kind == "K":
            trees = [Tree(ids(256), tuple(ids(64) for _ in range(size))) for _ in range(4)]
        else:
            prompts = [ids(64) for _ in range(4)]
            found = HFSampler(made).sample_ids(prompts, size, max_tokens=32, min_tokens=31, seed=1)
            trees = [Tree(p, tuple(s.ids for s in group)) for p, group in zip(prompts, found)]
            sampled = sum(t.size for t in trees)
        made.forward_backward([Datum(t) for t in trees], ranked if kind == "K" else negative)
        made.step(1e-5)
        seconds = time.perf_counter() - start
    weights = sum(p.numel() for p in made.model.parameters())
    tokens = sum(t.size for t in trees)
    return {"s": seconds, "tokens": tokens, "flop": weights * (6 * tokens + 2 * sampled),
            "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def peak(dtype: str) -> float:
    """GFLOP/s of a 2,048³ matrix product, the best of ten."""
    import torch
    a, b = (torch.randn(2048, 2048, dtype=getattr(torch, dtype)) for _ in range(2))
    best = 9.0
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return round(2 * 2048**3 / best / 1e9, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two points of each, one round")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        print(json.dumps(point(args.point[0], int(args.point[1]), args.model)))
        return
    result: dict[str, Any] = {"gemm_gflops": {d: peak(d) for d in ("float32", "bfloat16")}}
    for kind, sizes in POINTS.items():
        for size in sizes[::len(sizes) - 1] if args.quick else sizes:
            runs = []
            for _ in range(1 if args.quick else args.rounds):
                found = subprocess.run([sys.executable, __file__, "--model", args.model, "--point", kind, str(size)],
                                       capture_output=True, text=True, check=True).stdout
                runs.append(json.loads(found.splitlines()[-1]))
            best = min(runs, key=lambda r: r["s"])
            row = {"s": round(best["s"], 3), "mb": round(best["mb"]), "tokens": best["tokens"],
                   "tokens_per_s": round(best["tokens"] / best["s"]), "gflops": round(best["flop"] / best["s"] / 1e9, 1)}
            result[f"{kind}={size}"] = row
            print(kind, size, row, flush=True)
    print(json.dumps({"benchmark": "scaling", "model": args.model, **result}))


if __name__ == "__main__":
    main()
