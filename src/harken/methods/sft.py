"""Supervised finetuning: the model learns to write what people demonstrated.

    harken train sft --model smollm2 --data demos.jsonl --out runs/sft
    harken train sft --model smollm2 --data demos.jsonl --mix more.jsonl:0.5 --replay text.txt --epochs 4
                     --select reward --reward runs/rm --out runs/sft

The loss is the mean negative log-likelihood of the demonstrations' tokens, the end-of-turn token
included, averaged over the tokens of the optimiser step. Prompts are context, never learnt; of a dialogue the last answer is
learnt, or with --turns all each of them, in one row.
Rows are packed without padding and examples never see each other.

--mix adds files, each with its weight; --replay goes on learning plain text, a share of every step's tokens (InstructGPT
2203.02155, App. C.3: 10 %). --select keeps the weights of the epoch whose answers to held-out prompts the reward likes
best: the held-out loss rises after one epoch while answers still get better (App. C.1).

Leaves out: InstructGPT's dropout of 0.2 (here 0, P18). Its 16 epochs, cosine to 10 %, no warm-up are settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harken.core.config import MAX_TOKENS, HeldOutConfig, setting
from harken.core.errors import UserError
from harken.core.files import read_json, read_jsonl, write_json
from harken.core.protocols import Datum, Learner, Reward, Rollouts
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.engines.policies import penalised
from harken.loops.held_out import HeldOut
from harken.loops.replay import learn_text, open_replay
from harken.loops.rollout import awake
from harken.loops.steps import Steps
from harken.objectives.supervised import nll
from harken.stats.intervals import mean_interval
from harken.store.files import read_demonstrations
from harken.store.splits import in_share
from harken.text.fitting import fit
from harken.text.turns import Example, describe, dialogue


@dataclass(frozen=True)
class Config(HeldOutConfig):
    epochs: float = setting(2.0, above=0)
    """Passes over the data."""
    batch_size: int = setting(16, least=1)
    """Demonstrations in one optimiser step."""
    learning_rate: float = setting(2e-4, least=0, full=1e-5)
    """Peak learning rate of AdamW; 1e-5 by default where every parameter is trained (--lora-rank 0)."""
    turns: str = setting("last", one_of=("last", "all"))
    """Which answers of a dialogue are learnt: the last, or all; what is not learnt is context."""
    holdout: float = setting(0.1, least=0, most=1)
    """Share of prompts kept out of training to measure the loss on; 0 trains on everything."""
    mix: str = ""
    """Further demonstrations, FILE:WEIGHT with commas between; a weight is how often an epoch sees each (without: once)."""
    replay: str = setting("", names="file")
    """Plain text to go on learning (documents separated by blank lines, or JSON Lines with "text")."""
    replay_share: float = 0.1
    """Share of each step's tokens that are text, with --replay."""
    select: str = setting("last", one_of=("last", "loss", "reward"))
    """Whose weights are kept: of the last epoch, or of the best by held-out loss or reward."""
    reward: str = setting("", names="reward")
    """What selects, with --select reward: a reward model's run directory, a scorer, or gold."""
    aggregate: str = ""
    """How a reward model with groups makes one score: mean, group:NAME, worst or quantile:Q; empty is its shared head."""
    n: int = setting(1, least=1)
    """Answers to each held-out prompt after each epoch, with --select reward."""
    max_tokens: int = setting(MAX_TOKENS, least=1)
    """Longest such answer in tokens."""
    missing_eos_penalty: float = setting(1.0, least=0)
    """Subtracted from the score of such an answer that the token limit cut."""


TRIAL = {"data": "demonstrations", "epochs": 0.5, "batch_size": 4, "learning_rate": 1e-3}


@dataclass(frozen=True)
class Split:
    """A file's demonstrations: to learn from, and held out with their prompts."""

    training: list[Example] = field(default_factory=list)
    held: list[Example] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)


def needs_reward(config: Config) -> bool:
    return config.select == "reward"


def files(config: Config) -> dict[str, str]:
    """Further files that a resumed run must find unchanged, by option."""
    return {f"mix {name}": name for name, _ in mixed(config)}


def mixed(config: Config) -> list[tuple[str, float]]:
    """(file, weight) of --mix. Raises `UserError` for a weight that is none."""
    mixture = []
    for part in filter(None, (p.strip() for p in config.mix.split(","))):
        name, colon, weight = part.rpartition(":")
        try:
            value = float(weight) if colon else 1.0
        except ValueError:
            name, value = part, 1.0
        if not 0 < value < math.inf:
            raise UserError(f"--mix {part}: the weight must be above 0.", "Write FILE:WEIGHT, like more.jsonl:0.5.")
        mixture.append((name if colon and name else part, value))
    return mixture


def train(config: Config, learner: Learner, sampler: Rollouts, reward: Reward | None, run: Run) -> None:
    """Trains `learner` on demonstrations; `sampler` answers and `reward` scores where the reward selects."""
    check(config)
    splits = [read_split(config, name, learner, run) for name in (config.data, *(name for name, _ in mixed(config)))]
    training = [example for split in splits for example in split.training]
    weights = [1.0, *(weight for _, weight in mixed(config))]
    replay = open_replay(config, learner)
    judge = Judge(config, learner, sampler, reward, splits[0], run)
    held = splits[0].held
    run.watch = watch = HeldOut(config, learner, run, (lambda: {"heldout_nll": mean_nll(learner, held)}) if held else None)
    steps = Steps(run, learner, training, config, "sft", size=config.batch_size, epochs=config.epochs,
                  parts=[(len(s.training), w) for s, w in zip(splits, weights)], state=judge, begin=judge.begin)
    per_epoch = steps.order.per_epoch

    for step, batch in steps:
        tokens = sum(e.tokens for e in batch)
        text = replay.batch(step, tokens) if replay else []
        share = config.replay_share if text else 0.0
        weight = (1 - share) / tokens
        data = [Datum(e.tree, {"weights": [weight if m else 0.0 for mask in e.learnt for m in mask]}) for e in batch]
        metrics = learner.forward_backward(data, lambda out, x: nll(out.logps_N, x["weights"]))
        if text:
            metrics = {"loss": metrics["loss"], "nll": metrics["nll"] / (1 - share), **learn_text(learner, text, share)}
            metrics["loss"] += share * metrics["replay_nll"]
        metrics |= learner.step(steps.rate(step))
        run.log(step + 1, **metrics, tokens=tokens)
        if config.select != "last" and (step + 1 == steps.total or (step + 1) % per_epoch == 0):
            judge.offer(step + 1, (step + 1) / per_epoch)

    result: dict[str, Any] = {"demonstrations": len(training), "heldout": len(splits[0].held)}
    if config.mix:
        result["files"] = {name: len(s.training) for name, s in zip((config.data, *(n for n, _ in mixed(config))), splits)}
    steps.finish(**result, **judge.conclude(watch.stopped.get("step", steps.total)))


def check(config: Config) -> None:
    if config.reward and config.select != "reward":
        raise UserError(f"--reward does nothing with --select {config.select}.", "Add --select reward, or leave --reward out.")


def read_split(config: Config, name: str, learner: Learner, run: Run) -> Split:
    """A file's demonstrations that fit; held out are those of a prompt that falls into the share, in whichever file."""
    loaded = read_demonstrations(name, **(config.reading if name == config.data else {"skip_bad": config.skip_bad}))
    examples = [dialogue(learner.template, d, config.turns) for d in loaded.records]
    fitted = fit([e.tree for e in examples], config.max_length, config.overlong)
    fitted.keep([examples[i].cut(tree).tokens > 0 for i, tree in zip(fitted.kept, fitted.trees)])
    notes = [loaded.describe(), describe(loaded.records, config.turns), fitted.describe("demonstrations", config.max_length)]
    for note in (*filter(None, notes), *learner.template.counted()):
        run.note(note if name == config.data else f"{name}: {note}")
    split = Split()
    for i, tree in zip(fitted.kept, fitted.trees):
        example = examples[i].cut(tree)
        prompt = loaded.records[i].prompt
        if in_share(prompt.id, config.holdout, config.seed):
            split.held.append(example)
            split.prompts.append(prompt)
        else:
            split.training.append(example)
    return split


class Judge:
    """Measures the held-out prompts of --data, and keeps the weights of the epoch that --select likes best."""

    def __init__(self, config: Config, learner: Learner, sampler: Rollouts, reward: Reward | None, split: Split,
                 run: Run) -> None:
        self.config, self.learner, self.sampler, self.reward = config, learner, sampler, reward
        self.held, self.run = split.held, run
        room = config.max_length - config.max_tokens
        once = {p.id: p for p in split.prompts if len(learner.template.prompt_ids(p)) <= room}
        self.prompts = list(once.values())
        self.best: dict[str, Any] = {}
        self.weights: dict[str, torch.Tensor] = {}
        if config.select != "last" and not (self.prompts if reward is not None else self.held):
            raise UserError("No prompt is held out to select the epoch by.", "Raise --holdout, or give more demonstrations.")

    def begin(self) -> None:
        """Measures the model before its first step."""
        if self.held:
            self.run.log(0, **self.measure(0))

    def measure(self, step: int) -> dict[str, Any]:
        """`heldout_nll` after `step` steps, and of a reward the mean score of sampled answers, which all epochs draw by the same
        numbers."""
        figures: dict[str, Any] = {"heldout_nll": mean_nll(self.learner, self.held)}
        if self.reward is None:
            return figures
        with awake(self.sampler, step) as sampler:
            samples = sampler.sample(self.prompts, self.config.n, max_tokens=self.config.max_tokens,
                                     seed=derive_seed(self.config.seed, "select"))
        scores = penalised(self.reward, self.prompts, samples, self.config.missing_eos_penalty)
        means = [sum(row) / len(row) for group in scores if (row := [r for r in group if r is not None])]
        if not means:
            raise UserError("The reward gave none of the answers to held-out prompts a score.", "Lower --max-tokens.")
        self.estimate = mean_interval(means).to_json()
        return {**figures, "heldout_reward": self.estimate["value"]}

    def offer(self, step: int, epoch: float) -> None:
        """Measures the epoch that ended, and keeps its weights if none was better."""
        figures = self.measure(step)
        self.run.log(step, epoch=epoch, **figures)
        value = figures["heldout_reward"] if self.config.select == "reward" else -figures["heldout_nll"]
        if not self.best or value > self.best["value"]:
            self.best = {"value": value, "epoch": epoch, "heldout_nll": figures["heldout_nll"]}
            if self.reward is not None:
                self.best["heldout_reward"] = self.estimate
            self.weights = {n: p.detach().clone() for n, p in self.learner.parts.items()}

    def conclude(self, step: int) -> dict[str, Any]:
        """The held-out figures of the weights that are kept; puts the best epoch's back."""
        if self.config.select == "last":
            if self.held:
                self.run.log(step, heldout_nll=(after := mean_nll(self.learner, self.held)))
            return {"heldout_nll": after if self.held else None}
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.learner.parts[name].copy_(weight)
        rows = [r for r in read_jsonl(self.run.path / "metrics.jsonl") if "epoch" in r]
        epochs = {f"{r['epoch']:g}": {k: r[k] for k in ("heldout_nll", "heldout_reward") if k in r} for r in rows}
        return {**{k: v for k, v in self.best.items() if k != "value"}, "epochs": epochs}

    def save_state(self, folder: Path) -> None:
        self.learner.save_state(folder)
        if self.best:
            write_json(folder / "best.json", self.best)
            torch.save(self.learner.whole(self.weights), folder / "best.pt")

    def load_state(self, folder: Path) -> None:
        self.learner.load_state(folder)
        if (folder / "best.json").exists():
            self.best = read_json(folder / "best.json")
            self.weights = self.learner.cut(torch.load(folder / "best.pt", map_location="cpu", weights_only=True))


def mean_nll(learner: Learner, examples: list[Example]) -> float:
    """Mean negative log-likelihood per learnt token, in nats."""
    logps = learner.logprobs([e.tree for e in examples])
    masked = [(x, mask) for tree, e in zip(logps, examples) for x, mask in zip(tree, e.learnt)]
    parts = [x if all(mask) else x[torch.tensor(mask, device=x.device)] for x, mask in masked]
    loss = -float(sum(x.sum() for x in parts)) / sum(map(len, parts))
    if not math.isfinite(loss):
        raise UserError(f"The held-out loss is {loss}.", "The model is broken: lower --learning-rate, or check --model.")
    return loss
