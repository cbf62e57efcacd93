"""The memory that `harken train … --plan` says beside what training takes on SmolLM2, a process for each setting.

    python benchmarks/plan.py [--quick] [--method dpo] [--only lora,float32] [--tokens 1024]

Measured is the process's resident high-water mark less that before the model is loaded (Python with torch, transformers, peft).
A step of one packed row, then one of two, so that gradients of the first are held while the second learns beside the moments.
One text of --tokens is one micro-batch, for lora (rank 16) and full training, float32 and bfloat16, activations kept or computed
anew. On a CPU Harken keeps freed memory in the process (engines/cpu.py), in pieces of which not all fit what comes next;
--given-back returns it at once, which is slower, and shows what is held.
Of --method dpo, reward_model and rloo two steps of `harken train` are measured: dpo and reward_model on pairs that fill
--tokens together, rloo on 8 sandbox prompts x 4 x 48 tokens and the gold reward.
--quick shows on the toy model that it runs: its peak is fixed costs.
The last line is JSON: plan, measured (bytes), ratio plan / measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS = [(rank, dtype, anew) for rank in (16, 0) for dtype in ("float32", "bfloat16") for anew in (False, True)]


def words(setting: tuple[int, str, bool]) -> str:
    rank, dtype, anew = setting
    return f"{'lora' if rank else 'full'},{dtype},{'anew' if anew else 'kept'}"


def high_water() -> int:
    """Bytes. Linux's `ru_maxrss` begins at what the process that started this one held, VmHWM does not."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def settings_of(method: str, model: str, tokens: int, folder: Path) -> dict[str, Any]:
    """What a method is given, with data in `folder`: pairs as long as may be, or the sandbox's prompts."""
    from harken.core.records import Prompt
    from harken.engines.loading import load
    from harken.sandbox import load_prompts
    prompt = "Go on."
    if method == "rloo":
        rows = [p.to_json() for p in load_prompts("train")[:16]]
        further: dict[str, Any] = {"reward": "gold", "max_tokens": 48, "prompts_per_step": 8, "completions_per_prompt": 4,
                                   "steps": 2, "max_length": 256}
    else:
        length = tokens // 2
        words = length - len(load(model).template.tree(Prompt.of(prompt), ["the"]).prompt) - 1
        texts = ["the" + f" {word}" * (words - 1) for word in ("the", "of")]
        rows = [{"prompt": prompt, "completions": texts, "ranks": [1, 2]}] * 2
        further = {"epochs": 1.0, "batch_size": 1, "max_length": length, "overlong": "truncate"}
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(data), "out": str(folder / "run"), **further}


def command(method: str, model: str, setting: tuple[int, str, bool], tokens: int, given: str) -> None:
    """Two steps of the method, whole, with the settings `given`."""
    from harken.engines.loading import load
    from harken.launch.find import find_method
    from harken.launch.plan import plan_of
    from harken.launch.train import train
    rank, dtype, anew = setting
    module = find_method(method)
    config = module.Config(model=model, lora_rank=rank, dtype=dtype, checkpoint_activations=anew, tokens_per_micro_batch=tokens,
                           **json.loads(given))
    plan = plan_of(module, config)
    load("toy")
    before, start = high_water(), time.perf_counter()
    train(module, config, quiet=True)
    print(json.dumps({"loading": plan.peak("loading"), "loaded": 0, "plan": plan.total, "measured": high_water() - before,
                      "before": before, "seconds": round(time.perf_counter() - start, 1)}))


def child(model: str, setting: tuple[int, str, bool], tokens: int, given_back: bool, name: str, given: str) -> None:
    import peft  # noqa: F401
    import torch
    from transformers import AutoModelForCausalLM  # noqa: F401

    from harken.core.protocols import Datum, Tree
    from harken.engines import cpu
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    from harken.launch.find import find_method
    from harken.launch.plan import plan_of
    rank, dtype, anew = setting
    if given_back:
        cpu.tune = lambda: None  # type: ignore[assignment]
    if name != "sft":
        command(name, model, setting, tokens, given)
        return
    method = find_method("sft")
    plan = plan_of(method, method.Config(model=model, lora_rank=rank, dtype=dtype, checkpoint_activations=anew, max_length=tokens,
                                         tokens_per_micro_batch=tokens))
    load("toy")
    before, start = high_water(), time.perf_counter()
    engine = Engine(load(model), lora_rank=rank, dtype=dtype, tokens_per_micro_batch=tokens, recompute_layers=anew)
    loaded = high_water()
    ids = torch.randint(5, engine.vocabulary - 1, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    datum = Datum(Tree(tuple(ids[:16]), (tuple(ids[16:]),)), {"weight": [1.0 / tokens] * (tokens - 16)})
    for rows in (1, 2):
        engine.forward_backward([datum] * rows, lambda out, given: (-(out.logps_N * given["weight"]).sum(), {}))
        engine.step(1e-6)
    print(json.dumps({"loading": plan.peak("loading"), "loaded": loaded - before, "plan": plan.total,
                      "measured": high_water() - before, "before": before, "seconds": round(time.perf_counter() - start, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="settings whose name begins so")
    parser.add_argument("--method", default="sft", choices=["sft", "dpo", "reward_model", "rloo"])
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--given-back", action="store_true", help="let the system have freed memory back")
    parser.add_argument("--child", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--given", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    model, tokens = ("toy", args.tokens or 512) if args.quick else ("smollm2", args.tokens or 1024)
    if args.child >= 0:
        child(model, SETTINGS[args.child], tokens, args.given_back, args.method, args.given)
        return
    results: dict[str, Any] = {}
    print(f"{args.method}, {model}, {tokens} tokens")
    print(f"{'':24}{'plan GB':>10}{'measured':>10}{'ratio':>8}{'loading':>10}{'measured':>10}{'seconds':>9}")
    for index, setting in enumerate(SETTINGS[:3] if args.quick else SETTINGS):
        name = words(setting)
        if not name.startswith(args.only):
            continue
        asked = [sys.executable, __file__, "--child", str(index), "--tokens", str(tokens), "--method", args.method,
                 *(["--quick"] if args.quick else []), *(["--given-back"] if args.given_back else [])]
        with tempfile.TemporaryDirectory() as folder:
            if args.method != "sft":  # here, for it loads the model
                asked += ["--given", json.dumps(settings_of(args.method, model, tokens, Path(folder)))]
            done = subprocess.run(asked, capture_output=True, text=True, env={
                **os.environ, "HF_HUB_OFFLINE": "1", **({"MALLOC_MMAP_THRESHOLD_": "65536"} if args.given_back else {})})
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        found["ratio"] = round(found["plan"] / max(1, found["measured"]), 3)
        results[name] = found
        print(f"{name:24}{found['plan'] / 1e9:10.3f}{found['measured'] / 1e9:10.3f}{found['ratio']:8.2f}"
              f"{found['loading'] / 1e9:10.3f}{found['loaded'] / 1e9:10.3f}{found['seconds']:9.1f}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
