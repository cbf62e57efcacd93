"""The memory of one step on one text as long as the model's context: `harken train sft --checkpoint-activations`, in a process.

    python benchmarks/long_context.py [--quick] [--tokens 8192] [--lora-rank 16] [--kept]

Up to SmolLM2's context of 8,192 tokens the model is SmolLM2; beyond, a Llama of its size with random weights and --tokens
positions. The text is random words, cut to --tokens; it is one row and one optimiser step. Measured: the highest resident
memory of the whole process (Python and its libraries are in it) and its CPU seconds. --kept leaves out
--checkpoint-activations. --quick shows on 512 tokens of the toy model that it runs.
The last line is JSON: tokens, lora_rank, peak (bytes), cpu_seconds, loss.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SMOLLM2_CONTEXT = 8192


def random_llama(folder: Path, positions: int) -> str:
    """SmolLM2's shape and tokenizer, `positions` long, with random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from harken.engines.loading import load
    loaded = load("smollm2")
    config = loaded.model.config
    config.max_position_embeddings = positions
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    loaded.template.tokenizer.save_pretrained(folder)
    return str(folder)


def text_of(tokens: int) -> str:
    """Words that come to more than so many tokens."""
    words = ["the", "river", "ran", "past", "a", "mill", "and", "under", "bridges", "of", "old", "stone", "while", "people"]
    drawn = random.Random(0)
    return " ".join(drawn.choice(words) for _ in range(2 * tokens))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model = "toy" if args.quick else "smollm2"
    if not args.quick and args.tokens > SMOLLM2_CONTEXT:
        model = random_llama(folder / "llama", args.tokens)
    data = folder / "long.jsonl"
    data.write_text(json.dumps({"prompt": "Tell me a long story.", "completion": text_of(args.tokens)}) + "\n")
    options = {"model": model, "data": data, "out": folder / "run", "max-length": args.tokens, "epochs": 1, "batch-size": 1,
               "tokens-per-micro-batch": args.tokens, "overlong": "truncate", "lora-rank": args.lora_rank, "dtype": args.dtype}
    command = [sys.executable, "-m", "harken", "train", "sft", *[w for n, v in options.items() for w in (f"--{n}", str(v))],
               *([] if args.kept else ["--checkpoint-activations"])]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    unit = 1 if sys.platform == "darwin" else 1024
    return {"tokens": args.tokens, "lora_rank": args.lora_rank, "dtype": args.dtype, "kept": args.kept, "loss": row.get("loss"),
            "peak": after.ru_maxrss * unit,
            "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--kept", action="store_true")
    args = parser.parse_args()
    args.tokens = args.tokens or (512 if args.quick else SMOLLM2_CONTEXT)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    print(f"{result['tokens']:,} tokens, rank {result['lora_rank']}: {result['peak'] / 1e9:.2f} GB, "
          f"{result['cpu_seconds']} CPU s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
