"""Pilot data: how many examples of the target's own kind close the gap that a shift of the distribution opened?

    harken eval pilot --model runs/sft --target natural.jsonl --n 8,32,128 --out runs/pilot
    harken eval pilot --model runs/sft --against runs/on_natural --target natural.jsonl --source benchmark.jsonl --out runs/pilot

A copy of the model is finetuned on n demonstrations of the target distribution (the first n of one drawn order) and read on
others that none of them saw: log-loss a token, paired by demonstration. The gap is from the model to --against (what was
trained on the target), or to the copy of the largest n; `closed` is the share of it that n close. --source says what it costs on
the distribution that the model came from. Enough is the smallest n shown to be within --margin of the largest. The model is not
changed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harken.core.config import EvalConfig, setting
from harken.core.errors import UserError
from harken.core.progress import progress
from harken.core.protocols import Estimate, EvalResult, Models, Tree
from harken.core.records import Demonstration
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.loops.tuned import numbers, tuned
from harken.stats.intervals import Floats, bootstrap, mean_interval, paired_difference
from harken.stats.testing import equivalence
from harken.store.files import read_demonstrations


@dataclass(frozen=True)
class Config(EvalConfig):
    target: str = setting("", names="file", required=True)
    """Demonstrations of the target distribution: prompt and completion."""
    source: str = setting("", names="file")
    """Demonstrations of the distribution that the model was trained on, for what the pilot data cost there."""
    n: str = "8,32,128"
    """How many pilot demonstrations, in turn."""
    held_out: int = setting(200, least=2)
    """Demonstrations that are read and never trained on; at most half of --target."""
    epochs: int = setting(2, least=1)
    """Passes over the pilot demonstrations, 8 a step."""
    learning_rate: float = setting(1e-5, above=0)
    """Constant learning rate of AdamW, on all weights."""
    margin: float = setting(0.05, above=0)
    """Nats a token within which n is enough."""
    limit: int = setting(200, least=0)
    """Most demonstrations of --source, drawn at random with the seed; 0 is all."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` where --target has fewer demonstrations than the largest n and those held out."""
    counts = numbers(config.n, "--n")
    engine = models.engine("model")
    pilots, held = parted(read_demonstrations(config.target).records, counts[-1], config)
    source = read_demonstrations(config.source).records if config.source else []
    source = random.Random(derive_seed(config.seed, "source")).sample(source, min(len(source), config.limit or len(source)))
    losses: dict[int, Floats] = {}
    costs: dict[int, Floats] = {}
    with progress("pilots", len(counts) + 1, quiet=run.quiet) as advance:
        for n in (0, *counts):
            trees = trees_of(engine, pilots[:n], run)
            steps = config.epochs * -(-n // 8)
            copy = tuned(engine, trees, steps, config.learning_rate, config.seed, derive_seed(config.seed, "pilot", n))
            losses[n] = log_loss(copy, trees_of(engine, held, run))
            if source:
                costs[n] = log_loss(copy, trees_of(engine, source, run))
            advance(1)
    ceiling = losses[counts[-1]]
    if config.against:
        other = models.engine("against")
        ceiling = log_loss(other, trees_of(other, held, run))
    figures: dict[str, Any] = {f"n {n}": of_count(losses[n], losses[0], ceiling, n) for n in losses}
    for n, cost in costs.items():
        if n:
            figures[f"n {n}"]["cost_on_source"] = paired_difference(cost, costs[0])
    if config.against:
        figures["against"] = {"log_loss": mean_interval(ceiling)}
    enough = next((n for n in losses if equivalence(losses[n] - losses[counts[-1]], config.margin).equivalent), None)
    figures["enough"] = counts[-1] if enough is None else enough
    figures["margin"] = config.margin
    run.note(f"{figures['enough']} pilot demonstrations are within {config.margin:g} nats a token of {counts[-1]}"
             if enough not in (None, counts[-1]) else
             f"No n below {counts[-1]} is shown to be within {config.margin:g} nats a token of it: more may help still.")
    samples = [{"prompt": d.prompt.text, "answer": d.completion, "score": float(losses[0][i] - losses[counts[-1]][i]),
                **{f"log-loss, n {n}": float(x[i]) for n, x in losses.items()}} for i, d in enumerate(held)]
    return EvalResult(paired_difference(losses[counts[-1]], losses[0]), {**figures, "paired": True},
                      {"no pilot data": mean_interval(np.zeros(len(held)))}, samples, better="lower")


def parted(target: Sequence[Demonstration], largest: int, config: Config) -> tuple[list[Demonstration], list[Demonstration]]:
    """The pilots, in an order drawn with the seed, and those held out: different prompts."""
    groups: dict[str, list[Demonstration]] = {}
    for d in target:
        groups.setdefault(d.prompt.id, []).append(d)
    order = list(groups.values())
    random.Random(derive_seed(config.seed, "pilots")).shuffle(order)
    size = min(config.held_out, len(order) // 2)
    held, pilots = [g[0] for g in order[:size]], [d for g in order[size:] for d in g]
    if len(pilots) < largest or size < 2:
        raise UserError(f"{config.target} has {len(target)} demonstrations of {len(order)} prompts: {size} held out, and "
                        f"{len(pilots)} left for n = {largest}.", "Give more, or lower --n or --held-out.")
    return pilots, held


def trees_of(engine: Any, demonstrations: Sequence[Demonstration], run: Run) -> list[Tree]:
    """Raises `UserError` where one is longer than the model's context."""
    trees = [engine.template.tree(d.prompt, [d.completion]) for d in demonstrations]
    limit = getattr(engine, "context", None)
    if limit and (long := sum(t.size > limit for t in trees)):
        raise UserError(f"{long} demonstrations are longer than the model's context of {limit} tokens.", "Shorten them.")
    return trees


def log_loss(engine: Any, trees: Sequence[Tree]) -> Floats:
    """-log p a token of each completion, in nats: [D]."""
    return np.array([-float(group[0].double().mean()) for group in engine.logprobs(trees)])


def of_count(loss: Floats, none: Floats, ceiling: Floats, n: int) -> dict[str, Estimate]:
    """Log-loss, its change, and the share of the gap that is closed, with a bootstrap interval over the demonstrations; left
    out where the gap itself is not told from 0."""
    found = {"log_loss": mean_interval(loss)}
    if n:
        found["change"] = paired_difference(loss, none)
        if paired_difference(none, ceiling).low > 0:
            found["closed"] = bootstrap(lambda i: float((none[i] - loss[i]).mean() / (none[i] - ceiling[i]).mean()), len(loss))
    return found
