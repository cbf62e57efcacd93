"""Supervised finetuning: the model learns to write what people demonstrated.

    harken train sft --model smollm2 --data demos.jsonl --out runs/sft

The loss is the mean negative log-likelihood of the demonstrations' tokens, the end-of-turn token
included, averaged over the tokens of the optimiser step. Prompts are context, never learnt.
Rows are packed without padding and examples never see each other.

Leaves out: mixing several data sets, replay of pretraining text, choosing the epoch by reward.
InstructGPT (2203.02155, App. C.1) uses 16 epochs, cosine to 10 %, no warm-up, dropout 0.2 (here 0, P18).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from harken.core.config import TrainConfig
from harken.core.errors import UserError
from harken.core.protocols import Datum, Tree
from harken.core.run import Run
from harken.engines.hf import Engine
from harken.engines.schedule import Order, learning_rate
from harken.objectives.supervised import nll
from harken.store.files import read_demonstrations
from harken.store.splits import in_share
from harken.text.template import fit


@dataclass(frozen=True)
class Config(TrainConfig):
    epochs: float = 2.0
    """Passes over the data."""
    batch_size: int = 16
    """Demonstrations in one optimiser step."""
    learning_rate: float = 2e-4
    """Peak learning rate of AdamW; about 1e-5 when training every parameter (--lora-rank 0)."""
    holdout: float = 0.1
    """Share of prompts kept out of training to measure the loss on; 0 trains on everything."""


def train(config: Config, learner: Engine, sampler: Any, reward: Any, run: Run) -> None:
    """Trains `learner` on demonstrations; `sampler` and `reward` are not used."""
    loaded = read_demonstrations(config.data, skip_bad=config.skip_bad)
    trees = [learner.template.tree(d.prompt, [d.completion]) for d in loaded.records]
    fitted = fit(trees, config.max_length, config.overlong)
    for note in (loaded.describe(), fitted.describe("demonstrations", config.max_length)):
        if note:
            run.note(note)
    held = [in_share(loaded.records[i].prompt.id, config.holdout, config.seed) for i in fitted.kept]
    kept = [t for t, out in zip(fitted.trees, held) if not out]
    outside = [t for t, out in zip(fitted.trees, held) if out]
    order = Order(len(kept), config.batch_size, config.epochs, config.seed)

    resumed = run.resume()
    start = resumed[0] if resumed else 0
    if resumed:
        learner.load_state(resumed[1])
    elif outside:
        run.log(0, heldout_nll=mean_nll(learner, outside))

    for step in run.track(start, order.total, "sft"):
        batch = [kept[i] for i in order(step)]
        tokens = sum(len(t.completions[0]) for t in batch)
        data = [Datum(t, {"weights": [1 / tokens] * len(t.completions[0])}) for t in batch]
        metrics = learner.forward_backward(data, lambda out, x: nll(out.logps_N, x["weights"]))
        rate = learning_rate(step, order.total, config.learning_rate, schedule=config.schedule, warmup=config.warmup)
        metrics |= learner.step(rate)
        run.log(step + 1, **metrics, tokens=tokens)
        run.checkpoint(step + 1, learner.save_state)

    after = mean_nll(learner, outside) if outside else None
    if after is not None:
        run.log(order.total, heldout_nll=after)
    run.finish({"steps": order.total, "demonstrations": len(kept), "heldout": len(outside), "heldout_nll": after},
               lambda folder: learner.save(folder, base=run.config["base"]))


def mean_nll(learner: Engine, trees: list[Tree]) -> float:
    """Mean negative log-likelihood per completion token, in nats."""
    logps = [x for tree in learner.logprobs(trees) for x in tree]
    found = -float(sum(x.sum() for x in logps)) / sum(map(len, logps))
    if not math.isfinite(found):
        raise UserError(f"The held-out loss is {found}.", "The model is broken: lower --learning-rate, or check --model.")
    return found
