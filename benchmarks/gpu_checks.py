"""Everything that Harken does otherwise on a card, checked and timed in one go: under ten minutes on one GPU.

    python benchmarks/gpu_checks.py [--quick] [--only attention,sampler]

attention   FlexAttention's block mask: outputs and gradients beside the masked kernels', for a ranking of nine texts
sampler     many tokens between two looks, a step as a CUDA graph: the looking sampler's tokens, and tokens a second of both
training    SFT with adapters in bfloat16 on a random Llama of 1.2 B weights: share of the card's peak by Harken's own
            counter, the highest memory beside what --plan says

--quick is the toy model, and what a CPU can do of it: the script runs, its figures say nothing. A part that fails says why,
and the others go on. The last line is JSON: a part's figures or its error.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

CARD = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CARD else "cpu")


def clock() -> float:
    if CARD:
        torch.cuda.synchronize()
    return time.perf_counter()


def model(quick: bool) -> Any:
    """The toy model, or Llama 3.2 1B's sizes with random weights in bfloat16."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from harken.engines.attention import NAME
    from harken.engines.pretrained import Loaded
    from harken.engines.toy import toy_model, toy_tokenizer
    from harken.launch.shapes import EXAMPLES
    from harken.text.template import Template
    if quick:
        made = toy_model()
    else:
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=128256, max_position_embeddings=8192, **EXAMPLES["llama-1b"])
        with DEVICE:
            made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    made.config._attn_implementation = NAME
    return Loaded(made.to(DEVICE).eval(), Template(toy_tokenizer()), {})


def attention(quick: bool) -> dict[str, Any]:
    """float32, so that differences are of the method; without gradients where there is no card, which alone has them."""
    from harken.core.protocols import Tree
    from harken.engines import flex
    from harken.engines.attention import _Kind, _product, row_of
    length = 32 if quick else 1024
    row = row_of([Tree((5,) * length, ((6,) * length,) * 9)], DEVICE, keep_last=True)
    generator = torch.Generator(DEVICE).manual_seed(0)
    parts = [torch.randn(1, heads, row.ids.shape[1], 64, device=DEVICE, generator=generator, requires_grad=CARD)
             for heads in (8, 2, 2)]
    mask = row.span_masks(None, DEVICE)[0]
    runs: dict[str, Callable[[], torch.Tensor]] = {
        "masked": lambda: _product(*parts, mask, _Kind(None, None, None, None), causal=False),
        "blocks": lambda: flex.attend(*parts, row, scaling=None, window=None, cap=None)}
    results, seconds = {}, {}
    for name, run in runs.items():
        for _ in range(3):
            start = clock()
            out = run()
            grads = torch.autograd.grad(out.square().sum(), parts) if CARD else ()
            seconds[name] = round(clock() - start, 4)
        results[name] = [out.detach(), *grads]
    error = max(float((a - b).abs().max()) for a, b in zip(results["masked"], results["blocks"]))
    assert error < 1e-2, f"the two differ by {error}"
    return {"row": row.ids.shape[1], "largest_difference": error, "seconds": seconds}


def sampler(quick: bool) -> dict[str, Any]:
    from harken.engines.batch import Batch
    from harken.engines.hf import Engine
    from harken.engines.sampler import HFSampler
    from harken.engines.stepping import DeviceBatch
    engine = Engine(model(quick), lora_rank=16, dtype="float32" if quick else "bfloat16", train=False)
    tokens, prompts = (16, [(2, 20 + i) for i in range(4)]) if quick else (256, [(2, 20 + i, 5, 6, 7) for i in range(24)])
    rows: dict[str, Any] = {}
    said = {}
    for name, kind in (("looking", Batch), ("stepping", DeviceBatch), ("graphs", DeviceBatch)):
        os.environ["HARKEN_CUDA_GRAPHS"] = str(int(name == "graphs"))
        HFSampler._kind = lambda self, texts, kind=kind: kind  # type: ignore[method-assign,misc]
        for _ in range(2):  # the second is timed: kernels are chosen
            start = clock()
            groups = HFSampler(engine).sample_ids(prompts, 4, max_tokens=tokens, seed=1)
            took = clock() - start
        said[name] = [s.ids for g in groups for s in g]
        rows[name] = {"tokens_per_second": round(sum(map(len, said[name])) / took)}
    for name in ("stepping", "graphs"):
        same = rows[name]["same_texts"] = sum(a == b for a, b in zip(said["looking"], said[name])) / len(said["looking"])
        assert same > (0.99 if quick else 0.5), f"{name}: bfloat16 may part texts late, but not half of them"
    return rows


def training(quick: bool) -> dict[str, Any]:
    from harken.core.protocols import Datum, Tree
    from harken.engines.hf import Engine
    from harken.engines.profile import gemm_peak, profiling
    from harken.launch.find import find_method
    from harken.launch.plan import plan_of
    length, rows = (64, 2) if quick else (2048, 8)
    engine = Engine(model(quick), lora_rank=16, dtype="float32" if quick else "bfloat16", tokens_per_micro_batch=length * 2)
    datum = Datum(Tree((5,) * 16, ((6,) * (length - 16),)), {"weight": [1.0 / length] * (length - 16)})

    def step() -> None:
        engine.forward_backward([datum] * rows, lambda out, given: (-(out.logps_N * given["weight"]).sum(), {}))
        engine.step(1e-6)
    step()
    if CARD:
        torch.cuda.reset_peak_memory_stats()
    with profiling(True, DEVICE, engine.compute) as profile:
        start = clock()
        for _ in range(1 if quick else 5):
            step()
        seconds = clock() - start
    assert profile is not None
    flops = sum(profile.flops.values())
    peak = gemm_peak(DEVICE, engine.compute)
    method = find_method("sft")
    plan = plan_of(method, method.Config(model="toy" if quick else "llama-1b", dtype="float32" if quick else "bfloat16",
                                         max_length=length, tokens_per_micro_batch=2 * length))
    return {"share_of_peak": round(flops / seconds / peak, 3), "tflops": round(flops / seconds / 1e12, 2),
            "plan_GB": plan.total / 1e9, "measured_GB": torch.cuda.max_memory_allocated() / 1e9 if CARD else None}


PARTS = {"attention": attention, "sampler": sampler, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    args = parser.parse_args()
    if not (CARD or args.quick):
        raise SystemExit("There is no GPU here; --quick shows that the script runs.")
    results: dict[str, Any] = {"device": torch.cuda.get_device_name() if CARD else "CPU"}
    for name in args.only.split(","):
        try:
            results[name] = PARTS[name](args.quick)
        except Exception as error:  # the others are worth having
            traceback.print_exc()
            results[name] = {"error": f"{type(error).__name__}: {error}"}
        print(name, json.dumps(results[name]), flush=True)
    print(json.dumps(results))
    if any("error" in r for r in results.values() if isinstance(r, dict)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
