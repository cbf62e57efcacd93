"""The whole loop on a small real model, offline: what `harken quickstart` runs.

The prompts, the labelers and the gold reward are the sandbox's: a world with a known truth, for showing that
the loop works and for measuring it. Every stage leaves a file; a stage whose file is there is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.progress import progress
from harken.core.protocols import Estimate
from harken.core.run import code_version
from harken.core.seeds import derive_seed
from harken.engines.hf import Engine
from harken.engines.places import locate
from harken.engines.precision import resolve_dtype
from harken.engines.sampler import HFSampler
from harken.evals.capability import document_nll
from harken.launch.find import find_method
from harken.launch.models import open_engine
from harken.launch.train import train as launch_train
from harken.sandbox import GoldReward, crowd, load_demonstrations, load_prompts, make_judgments
from harken.stats.intervals import mean_interval, paired_difference
from harken.stats.winrate import win_rate
from harken.store.database import open_database
from harken.store.files import write_jsonl
from harken.store.snapshots import snapshot
from harken.text.documents import read_documents

MAX_TOKENS = 48
PROMPTS = 168
"""Prompts whose answers are ranked."""
OVERLAP = 3
"""Labelers who rank each prompt's answers."""
SOURCES = {"base": 1, "sft": 2}
"""Completions of each model in a ranking; the written demonstration is one more."""
ANSWERS = 2
"""Answers of each model to each test prompt."""


class Quickstart:
    """Stages in order; each is skipped if its result is there."""

    def __init__(self, out: Path, model: str, seed: int, dtype: str) -> None:
        self.out, self.model, self.seed = out, model, seed
        self.dtype = "bfloat16" if str(resolve_dtype(dtype)).endswith("bfloat16") else "float32"
        self.engines: dict[str, Engine] = {}

    def run(self) -> dict[str, Any]:
        """Runs what is missing, prints the figures, and returns the summary."""
        locate(self.model)
        if self.out.exists() and (not self.out.is_dir() or (any(self.out.iterdir()) and not (self.out / "config.json").exists())):
            raise UserError(f"{self.out} is not a quickstart's folder.", "Choose another --out.")
        self.out.mkdir(parents=True, exist_ok=True)
        settings = {"command": "quickstart", "model": self.model, "seed": self.seed, "dtype": self.dtype}
        config = self.out / "config.json"
        if config.exists() and read_json(config) != settings:
            raise UserError(f"{self.out} holds a quickstart with other settings.", "Choose another --out, or remove it.")
        if not config.exists():
            created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            write_json(self.out / "lineage.json", {"model": self.model, "prompts, labelers, gold": "sandbox",
                                                   "code": code_version(), "created": created})
            write_json(config, settings)
        if (self.out / "summary.json").exists():
            print(f"{self.out} is finished; here are its figures. Remove the folder to run it again.")
            return self._show(read_json(self.out / "summary.json"))
        print(f"Quickstart: {self.model}, {self.dtype}, into {self.out}. Prompts and labelers are simulated (docs/sandbox.md).")
        self._stage("demonstrations", self.out / "demos.jsonl", self._demonstrations)
        self._train("sft", data="demos.jsonl", epochs=2.0, batch_size=8, learning_rate=3e-4, holdout=0.1)
        self._stage("people rank answers", self.out / "comparisons.jsonl", self._feedback)
        self._train("reward_model", model="sft", data="comparisons.jsonl", epochs=2.0, batch_size=8, learning_rate=6e-4,
                    demonstrations="demos.jsonl", holdout=0.2, warmup=0.1)
        self._train("rloo", model="sft", reward="reward_model", data="prompts.jsonl", steps=12, prompts_per_step=8,
                    completions_per_prompt=4, max_tokens=MAX_TOKENS, learning_rate=4e-4, beta=0.03, warmup=0.1)
        self._stage("test answers", self.out / "comparison.jsonl", self._compare)
        summary = self._summary()
        write_json(self.out / "summary.json", summary)
        runs = [self.out, *(self.out / n for n in ("sft", "reward_model", "rloo"))]
        from harken.report.build import build_report
        build_report(runs, self.out / "report.html")
        return self._show(summary)

    def _stage(self, label: str, target: Path, make: Callable[[Path], None]) -> None:
        if target.exists():
            print(f"  {label}: reusing {target}")
            return
        start = time.monotonic()
        print(f"  {label} …", flush=True)
        make(target)
        print(f"  {label}: {target} ({self._spend(label, start):.0f} s)")

    def _train(self, name: str, *, model: str = "", **settings: Any) -> None:
        self.engines.clear()
        method = find_method(name)
        paths = {k: str(self.out / settings.pop(k)) for k in ("data", "reward", "demonstrations") if k in settings}
        config = method.Config(model=str(self.out / model) if model else self.model, out=str(self.out / name),
                               seed=self.seed, dtype=self.dtype, checkpoint_seconds=30.0, **paths, **settings)
        start, before = time.monotonic(), (self.out / name / "result.json").exists()
        print(f"  train {name} …", flush=True)
        launch_train(method, config)
        print(f"  train {name}: " + ("reused" if before else f"{self._spend(name, start):.0f} s"))

    def _engine(self, name: str) -> Engine:
        if name not in self.engines:
            spec = self.model if name == "base" else str(self.out / name)
            self.engines[name] = open_engine(spec, dtype=self.dtype)
        return self.engines[name]

    def _demonstrations(self, target: Path) -> None:
        write_jsonl(self.out / "prompts.jsonl", (p.to_json() for p in load_prompts("train")))
        write_jsonl(target, (d.to_json() for d in load_demonstrations()))

    def _feedback(self, target: Path) -> None:
        """Samples, lets the crowd rank, stores the judgments, and takes a snapshot: the loop's own path."""
        demonstrations = load_demonstrations()[:PROMPTS]
        prompts, options = [d.prompt for d in demonstrations], [[d.completion] for d in demonstrations]
        for name, count in SOURCES.items():
            with progress(f"answers of {name}", len(prompts)) as advance:
                sampled = HFSampler(self._engine(name)).sample(prompts, count, max_tokens=MAX_TOKENS,
                                                             seed=derive_seed(self.seed, "feedback", name), advance=advance)
            for row, samples in zip(options, sampled):
                row += [s.text for s in samples]
        rng = np.random.default_rng(self.seed)
        judgments = make_judgments(prompts, options, crowd(self.seed), rng, overlap=OVERLAP)
        database = self.out / "feedback.db"
        for part in self.out.glob("feedback.db*"):
            part.unlink()
        with open_database(database) as db:
            db.add_judgments(judgments)
            snapshot(db, "comparisons", target)

    def _compare(self, target: Path) -> None:
        """The same test prompts answered by base, SFT and RLOO, with gold scores."""
        prompts, gold = load_prompts("test"), GoldReward()
        texts, kl = {}, []
        for name in ("base", "sft", "rloo"):
            sampler = HFSampler(self._engine(name))
            with progress(f"test answers of {name}", len(prompts)) as advance:
                sampled = sampler.sample(prompts, ANSWERS, max_tokens=MAX_TOKENS, seed=derive_seed(self.seed, "test"),
                                       advance=advance)
            texts[name] = [[s.text for s in group] for group in sampled]
            if name == "rloo":
                kl = self._kl(sampler, sampled, prompts)
        scores = {name: gold.score(prompts, t) for name, t in texts.items()}
        nll = {name: document_nll(self._engine(name), read_documents(str(_prose()))) for name in texts}
        write_json(self.out / "evaluation.json", {"scores": scores, "nll": nll, "kl": kl})
        write_jsonl(target, ({**p.to_json(), **{n: texts[n][i][0] for n in texts},
                              "gold": {n: scores[n][i][0] for n in texts}} for i, p in enumerate(prompts)))

    def _kl(self, sampler: HFSampler, samples: Any, prompts: Any) -> list[list[float]]:
        """log π(y) - log π_SFT(y) of every RLOO answer, in nats, both by the same forward pass."""
        from harken.core.protocols import Tree
        template = sampler.engine.template
        trees = [Tree(template.prompt_ids(p), tuple(s.ids for s in group)) for p, group in zip(prompts, samples)]
        ours, theirs = (e.logprobs(trees) for e in (sampler.engine, self._engine("sft")))
        return [[float((a - b).sum()) for a, b in zip(x, y)] for x, y in zip(ours, theirs)]

    def _summary(self) -> dict[str, Any]:
        evaluation = read_json(self.out / "evaluation.json")
        reward = read_json(self.out / "reward_model" / "result.json")
        scores, nll = evaluation["scores"], evaluation["nll"]
        summary: dict[str, Any] = {"reward_model": {k: reward[k] for k in ("accuracy", "accuracy_labelers", "baselines")},
                                   "base": {"gold": _mean(scores["base"])}}
        for name in ("sft", "rloo"):
            summary[name] = {"gold": _mean(scores[name]),
                             "gold_win_rate": win_rate(scores[name], scores["base"]).value.to_json(),
                             "nll_change": paired_difference(nll[name], nll["base"]).to_json()}
        summary["rloo"]["gold_win_rate_over_sft"] = win_rate(scores["rloo"], scores["sft"]).value.to_json()
        summary["rloo"]["kl"] = _mean(evaluation["kl"])
        summary["seconds"] = round(sum(read_json(self.out / "stages.json").values()), 1)
        return summary

    def _spend(self, label: str, start: float) -> float:
        """Records a stage's seconds, so that the total survives an interruption."""
        path = self.out / "stages.json"
        stages = read_json(path) if path.exists() else {}
        stages[label] = round(time.monotonic() - start, 1)
        write_json(path, stages)
        return float(stages[label])

    def _show(self, summary: dict[str, Any]) -> dict[str, Any]:
        def line(label: str, estimate: dict[str, Any]) -> None:
            print(f"  {label:38} {Estimate.from_json(estimate)}")

        print("\nReward model")
        line("accuracy, held-out prompts", summary["reward_model"]["accuracy"])
        if summary["reward_model"]["accuracy_labelers"]:
            line("accuracy, held-out labelers", summary["reward_model"]["accuracy_labelers"])
        for name, estimate in summary["reward_model"]["baselines"].items():
            line(f"  beside it: {name} wins", estimate)
        print("Gold reward (the sandbox's truth; 1 is best)")
        for name in ("base", "sft", "rloo"):
            line(name, summary[name]["gold"])
        print("Gold win rate")
        line("sft over base", summary["sft"]["gold_win_rate"])
        line("rloo over base", summary["rloo"]["gold_win_rate"])
        line("rloo over sft", summary["rloo"]["gold_win_rate_over_sft"])
        print("What it cost")
        line("KL(rloo ‖ sft), nats a completion", summary["rloo"]["kl"])
        line("sft: NLL of other text, nats a token", summary["sft"]["nll_change"])
        line("rloo: NLL of other text, nats a token", summary["rloo"]["nll_change"])
        print(f"\n{summary['seconds']:.0f} s. {self.out / 'report.html'} shows it, {self.out / 'summary.json'} has the figures.")
        return summary


def _mean(rows: list[list[float]]) -> dict[str, float | None]:
    return mean_interval([sum(row) / len(row) for row in rows]).to_json()


def _prose() -> Path:
    from importlib.resources import files
    return Path(str(files("harken.sandbox").joinpath("prose.txt")))


