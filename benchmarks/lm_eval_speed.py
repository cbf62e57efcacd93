"""lm-eval's tasks by our engine beside lm-eval's own Hugging Face model: the same numbers, interleaved in one process.

    python benchmarks/lm_eval_speed.py [--quick] [--model smollm2] [--items 200] [--pairs 3]

Three layouts of multiple choice (a long context with four short options, as reading comprehension; five examples before the
question; a short question with four longer options), and rolling log-likelihood of text. Both have the same weights in float32
and read the same requests in turn. Also: the time that lm-eval's `evaluate` takes over the forward passes of our engine,
with the making of prompts apart.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np


def layouts(items: int) -> dict[str, list[tuple[str, list[str]]]]:
    rng = np.random.default_rng(0)
    words = sorted(set(files("harken").joinpath("sandbox", "prose.txt").read_text(encoding="utf-8").split()))

    def text(length: int) -> str:
        return " ".join(rng.choice(words, length))
    shots = "\n\n".join(f"Question: {text(14)}\nAnswer: {text(2)}" for _ in range(5))
    return {
        "passage": [(f"{text(120)}\nQuestion: {text(12)}\nAnswer:", [f" {text(2)}" for _ in range(4)]) for _ in range(items)],
        "five examples": [(f"{shots}\n\nQuestion: {text(14)}\nAnswer:", [f" {text(2)}" for _ in range(4)]) for _ in range(items)],
        "short question": [(f"{text(15)}", [f" {text(8)}" for _ in range(4)]) for _ in range(items)]}


def requests(rows: list[tuple[str, list[str]]]) -> list[Any]:
    from lm_eval.api.instance import Instance
    return [Instance("loglikelihood", {}, (context, option), i, ("t", d, 1))
            for d, (context, options) in enumerate(rows) for i, option in enumerate(options)]


def timed(work: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def beside(ours: Any, theirs: Any, given: list[Any], pairs: int) -> dict[str, float]:
    """Times in turn, and the largest difference of a log-prob."""
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(pairs):
        own, a = timed(lambda: ours.loglikelihood(given, disable_tqdm=True))
        other, b = timed(lambda: theirs.loglikelihood(given, disable_tqdm=True))
        times["ours"].append(own)
        times["theirs"].append(other)
    ratios = [o / w for w, o in zip(times["ours"], times["theirs"])]
    return {"ours_s": statistics.median(times["ours"]), "lm_eval_s": statistics.median(times["theirs"]),
            "times_as_fast": statistics.median(ratios), "largest_difference": max(abs(x[0] - y[0]) for x, y in zip(a, b)),
            "greedy_differs": sum(x[1] != y[1] for x, y in zip(a, b))}


def overhead(ours: Any, rows: list[tuple[str, list[str]]], pairs: int) -> dict[str, float]:
    """What `evaluate` costs over our forward passes of the same trees, and over the making of requests."""
    import datasets
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager
    task = {"task": "bench", "output_type": "multiple_choice", "test_split": "test",
            "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(
                [{"stem": c.removesuffix(" "), "options": [o.strip() for o in os_], "gold": 0} for c, os_ in rows])},
            "doc_to_text": "{{stem}}", "doc_to_choice": "{{options}}", "doc_to_target": "gold", "metadata": {"version": 1.0},
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
    spent, read = [], ours._read

    def reading(trees: Any) -> Any:
        seconds, found = timed(lambda: read(trees))
        spent.append(seconds)
        return found
    shares, template = [], []
    for _ in range(pairs):
        spent.clear()
        ours._read = reading
        built, whole = (timed(partial(evaluate, lm=lm, task_dict=TaskManager(include_defaults=False).load([task]),
                                      bootstrap_iters=0, log_samples=False))[0] for lm in (nothing(), ours))
        ours._read = read
        shares.append((whole - built) / sum(spent) - 1)
        template.append(built)
    return {"overhead": statistics.median(shares), "templates_s": statistics.median(template), "forward_s": sum(spent)}


def nothing() -> Any:
    """A model that answers at once: what remains of `evaluate` is templates and metrics."""
    from lm_eval.api.model import LM

    class Answers(LM):  # type: ignore[misc]
        def loglikelihood(self, given: Any, disable_tqdm: bool = False) -> Any:
            return [(-1.0, False)] * len(given)

        def loglikelihood_rolling(self, given: Any, disable_tqdm: bool = False) -> Any:
            return [-1.0] * len(given)

        def generate_until(self, given: Any, disable_tqdm: bool = False) -> Any:
            return [""] * len(given)
    return Answers()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 items, one pair")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()
    items, pairs = (4, 1) if args.quick else (args.items, args.pairs)
    import torch
    from lm_eval.models.huggingface import HFLM

    from harken.engines.loading import load
    from harken.launch.policies import open_sampler
    from harken.loops.items import Store, StoredModel
    from harken.loops.lm_eval import as_lm
    sampler = open_sampler(args.model, dtype="float32")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        ours = as_lm(StoredModel(sampler, Store(Path(folder) / "items.jsonl"), args.model, name=args.model))
        plain = load(args.model).model
        plain.set_attn_implementation("sdpa")  # transformers' default, in place of ours
        theirs = HFLM(pretrained=plain, tokenizer=sampler.engine.template.tokenizer, batch_size=16,
                      backend="causal")
        found = {name: beside(ours, theirs, requests(rows), pairs) for name, rows in layouts(items).items()}
        found["evaluate over forward"] = overhead(ours, layouts(items)["passage"], pairs)
    print(json.dumps({name: {k: float(f"{v:.3g}") for k, v in row.items()} for name, row in found.items()}, indent=1))


if __name__ == "__main__":
    main()
