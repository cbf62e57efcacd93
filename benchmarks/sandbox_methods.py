"""Every way to improve a policy, from the quickstart's SFT model, judgments and reward model, on the sandbox's gold reward.

    harken quickstart --out runs/quickstart
    python benchmarks/sandbox_methods.py --quickstart runs/quickstart --out runs/methods [--only dpo rloo …]

DPO learns from the quickstart's rankings; RLOO, GRPO, PPO and PPO-ptx climb its reward model; best-of-16 chooses by it. Then
each answers the test prompts, and the table says: gold win rate over SFT (interval over prompts), gold reward, the proxy's
change, KL to SFT, and the change in NLL of held-out text (the tax). PPO-ptx learns from one half of the Python reference manual
(its sections are in every Python), the tax is measured on the other half. What is finished is not done again.
--quick: the toy model, a minute. The last line is JSON.

With --rollouts URL (benchmarks/llama_cpp_rollouts.py, docs/rollouts.md) the completions of --only come from that server; how far
its log-probs are from the trainer's is told for the first, middle and last third of the steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "30000")
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import numpy as np

from harken.core.files import read_json, read_jsonl, write_json
from harken.core.protocols import Tree
from harken.core.seeds import derive_seed
from harken.engines.sampler import HFSampler
from harken.evals.capability import document_nll
from harken.launch.find import find_method
from harken.launch.models import open_engine
from harken.launch.rewards import open_reward
from harken.launch.train import train as launch_train
from harken.sandbox import GoldReward, crowd, load_demonstrations, load_prompts, make_judgments
from harken.stats.intervals import mean_interval, paired_difference
from harken.stats.winrate import win_rate
from harken.store.files import write_jsonl

TOKENS, ANSWERS, BEST_OF = 48, 4, 16
RL = {"steps": 30, "max_tokens": TOKENS, "learning_rate": 4e-4, "warmup": 0.1}
EIGHT = {"prompts_per_step": 8, "completions_per_prompt": 4}
PPO = {**EIGHT, "critic": "reward", "lam": 1.0, "minibatches": 2, "beta": 0.03}
PTX = {"ptx_coef": 1.0, "ptx_per_episode": 0.5, "ptx_length": 128}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo": ("dpo", {"learning_rate": 2e-4, "epochs": 2.0, "batch_size": 8, "beta": 0.1, "holdout": 0.0}),
    "rloo": ("rloo", {**RL, **EIGHT, "beta": 0.03}),
    "grpo": ("grpo", {**RL, **EIGHT, "beta": 0.03, "kl": "k2"}),
    "ppo": ("ppo", {**RL, **PPO}),
    "ppo-0.95": ("ppo", {**RL, **PPO, "lam": 0.95}),
    "ppo-0.95-shared": ("ppo", {**RL, **PPO, "lam": 0.95, "critic": "shared"}),
    "ppo-ptx": ("ppo", {**RL, **PPO, **PTX}),
    "ppo-ptx-0.95": ("ppo", {**RL, **PPO, **PTX, "lam": 0.95}),
}


class Comparison:
    """Stages in order, each leaving a file under `out`."""

    def __init__(self, quickstart: Path, out: Path, quick: bool, rollouts: str = "", correction: str = "token_truncate") -> None:
        self.out, self.quick, self.base = out, quick, quickstart
        self.served = {"rollouts": rollouts, "correction": correction, "stop_when": "mismatch>0.5", "checkpoint_seconds": 20.0}
        self.served = self.served if rollouts else {}
        self.dtype = "float32" if quick else "auto"
        out.mkdir(parents=True, exist_ok=True)
        self.test = load_prompts("test")
        if quick:
            self.test, self.base = self.test[:12], out
            self.toy()
        elif not (self.base / "summary.json").exists():
            sys.exit(f"{self.base} is no finished quickstart. Run: harken quickstart --out {self.base}")

    def toy(self) -> None:
        """What the quickstart leaves, of the toy model and a few prompts."""
        prompts = load_prompts("train")[:24]
        write_jsonl(self.out / "demos.jsonl", (d.to_json() for d in load_demonstrations()[:24]))
        write_jsonl(self.out / "prompts.jsonl", (p.to_json() for p in prompts))
        self.train("sft", "sft", "toy", self.out / "demos.jsonl", epochs=2.0, batch_size=8, learning_rate=3e-4)
        texts = [[s.text for s in group] for group in self.sampler("sft").sample(prompts, 4, max_tokens=TOKENS, seed=11)]
        judgments = make_judgments(prompts, texts, crowd(1), np.random.default_rng(1), overlap=3)
        write_jsonl(self.out / "comparisons.jsonl", (c.to_json() for j in judgments if (c := j.choice())))
        self.train("reward_model", "reward_model", self.out / "sft", self.out / "comparisons.jsonl", epochs=1.0, batch_size=8)

    def train(self, name: str, method: str, model: str | Path, data: Path, **settings: Any) -> None:
        if self.quick:
            settings |= {"steps": 2} if "steps" in settings else {}
        module = find_method(method)
        start = time.monotonic()
        done = (self.out / name / "result.json").exists()
        config = module.Config(model=str(model), data=str(data), out=str(self.out / name), dtype=self.dtype, **settings)
        launch_train(module, config)
        if not done:
            print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)

    def improve(self, name: str) -> None:
        method, settings = METHODS[name]
        if method == "dpo":
            self.train(name, method, self.base / "sft", self.base / "comparisons.jsonl", **settings)
            return
        if "ptx_coef" in settings:
            text = self.out / "ptx.jsonl"
            write_jsonl(text, ({"text": t} for t in manual(0)))
            settings = {**settings, "ptx_data": str(text)}
        reward, settings = str(self.base / "reward_model"), {**settings, **self.served}
        self.train(name, method, self.base / "sft", self.base / "prompts.jsonl", reward=reward, **settings)

    def sampler(self, name: str) -> HFSampler:
        return HFSampler(open_engine(str((self.base if name == "sft" else self.out) / name), dtype=self.dtype))

    def answer(self, name: str, base: HFSampler | None) -> dict[str, Any]:
        """Gold and proxy scores of the test answers, KL to SFT [P][A], NLL of the held-out half of the manual."""
        target = self.out / f"answers_{name}.json"
        if target.exists():
            return read_json(target)
        best = name == "best-of-16"
        sampler = base if best else self.sampler(name)
        assert sampler is not None
        n = BEST_OF * ANSWERS // 2 if best else ANSWERS
        found = sampler.sample(self.test, n, max_tokens=TOKENS, seed=derive_seed(0, "test", name))
        proxy, gold = open_reward(str(self.base / "reward_model"), dtype=self.dtype), GoldReward()
        scores = proxy.score(self.test, [[s.text for s in group] for group in found])
        if best:
            picks = [[max(range(a, a + BEST_OF), key=lambda i: row[i]) for a in range(0, n, BEST_OF)] for row in scores]
            found = [[group[i] for i in pick] for group, pick in zip(found, picks)]
            scores = [[row[i] for i in pick] for row, pick in zip(scores, picks)]
        texts = [[s.text for s in group] for group in found]
        kl, nll = [], []
        if base is not None and not best:
            template = sampler.engine.template
            trees = [Tree(template.prompt_ids(p), tuple(s.ids for s in group)) for p, group in zip(self.test, found)]
            ours, theirs = (e.logprobs(trees) for e in (sampler.engine, base.engine))
            kl = [[float((a - b).sum()) for a, b in zip(x, y)] for x, y in zip(ours, theirs)]
        if not best:
            nll = document_nll(sampler.engine, manual(1)[:4 if self.quick else None], 256)
        row = {"gold": gold.score(self.test, texts), "proxy": scores, "kl": kl, "nll": nll, "texts": texts,
               "words": float(np.mean([len(t.split()) for group in texts for t in group]))}
        write_json(target, row)
        return row

    def table(self, names: list[str]) -> dict[str, Any]:
        base = self.sampler("sft")
        sft = self.answer("sft", base)
        result: dict[str, Any] = {"sft": {"gold": mean(sft["gold"]), "words": round(sft["words"], 1)}}
        for name in names:
            row = self.answer(name, base)
            result[name] = {"win_rate": short(win_rate(row["gold"], sft["gold"]).value), "gold": mean(row["gold"]),
                            "proxy_gain": round(float(np.mean(row["proxy"]) - np.mean(sft["proxy"])), 3),
                            "kl": mean(row["kl"]) if row["kl"] else [round(float(np.log(BEST_OF) - 1 + 1 / BEST_OF), 2)],
                            "nll_change": short(paired_difference(row["nll"], sft["nll"])) if row["nll"] else [0.0],
                            "words": round(row["words"], 1), "seconds": seconds(self.out / name)}
            if self.served and name in METHODS:
                result[name] |= mismatch(self.out / name)
            print(name, json.dumps(result[name]), flush=True)
        return result


def manual(half: int) -> list[str]:
    """Every other section of the Python reference manual."""
    return [text for i, (_, text) in enumerate(sorted(topics.items())) if i % 2 == half]


def mean(rows: list[list[float]]) -> list[float]:
    return short(mean_interval([float(np.mean(row)) for row in rows]))


def short(e: Any) -> list[float]:
    return [round(e.value, 3), round(e.low, 3), round(e.high, 3)]


def seconds(run: Path) -> float:
    rows = read_jsonl(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
    return round(rows[-1]["seconds"], 1) if rows else 0.0


def mismatch(run: Path) -> dict[str, list[float]]:
    """The server's and the trainer's figures, by thirds of the run."""
    rows = read_jsonl(run / "metrics.jsonl")
    thirds = [rows[i * len(rows) // 3:(i + 1) * len(rows) // 3] for i in range(3)]
    return {name: [round(float(np.mean([row[name] for row in part])), 4) for part in thirds]
            for name in ("mismatch", "mismatch_kl", "correction", "correction_cut", "correction_ess")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quickstart", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--rollouts", default="", metavar="URL", help="a server that samples for the methods of --only")
    parser.add_argument("--correction", default="token_truncate")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Comparison(args.quickstart, Path(folder) if args.quick else args.out, args.quick, args.rollouts, args.correction)
        for name in args.only:
            work.improve(name)
        result = work.table([*([] if args.rollouts else ["best-of-16"]), *args.only])
        reward = read_json(work.base / "reward_model" / "result.json")
    print(json.dumps({"benchmark": "sandbox_methods", "reward_model": reward.get("accuracy"), **result}))


if __name__ == "__main__":
    main()
