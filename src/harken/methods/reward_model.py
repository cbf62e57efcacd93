"""A reward model from rankings, as InstructGPT trains it (2203.02155, section 3.5 and App. C.2).

    harken train reward_model --model runs/sft --data comparisons.jsonl --out runs/rm

A ranking of K completions is one element: every completion is encoded once, in one row with its prompt
computed once, and all C(K, 2) comparisons share the weight 1 / C(K, 2). Several people's rankings of the same
completions share that row too, each ranking with its own weight. A scalar head reads the last token.
One epoch by default: more overfits. Scores are shifted so that demonstrations (or, without them, the
training completions) average 0. Held-out prompts are never trained on; with five or more known labelers
some labelers are held out as well, to see whether the reward speaks for people it never heard.

Leaves out: margins, centring losses, models of who the labelers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harken.core.config import TrainConfig
from harken.core.errors import UserError
from harken.core.protocols import Datum, Tree
from harken.core.records import Choice
from harken.core.run import Run
from harken.engines.hf import Engine
from harken.engines.schedule import Order, learning_rate
from harken.objectives.preference import TIES, k_wise
from harken.stats.pairs import PairScores, evaluate_pairs
from harken.store.files import read_comparisons, read_demonstrations
from harken.store.splits import held_out_labelers, in_share
from harken.text.template import fit


@dataclass(frozen=True)
class Config(TrainConfig):
    epochs: float = 1.0
    """Passes over the rankings."""
    batch_size: int = 16
    """Sets of completions in one optimiser step, with all their rankings."""
    ties: str = "davidson"
    """Ties: davidson or rao_kupper (a learnt tie parameter), or drop (as InstructGPT)."""
    demonstrations: str = ""
    """JSON Lines file of demonstrations whose scores shall average 0; without it the training completions do."""
    holdout: float = 0.15
    """Share of prompts kept out of training to measure accuracy on."""
    holdout_labelers: float = 0.1
    """Share of labelers kept out as well, at least one, where five or more are known; 0 trains on everybody."""


def head(config: Config) -> str:
    return "reward"


def train(config: Config, learner: Engine, sampler: Any, reward: Any, run: Run) -> None:
    """Trains `learner` (with a reward head) on comparisons; `sampler` and `reward` are not used."""
    if config.ties not in TIES:
        raise UserError(f"--ties {config.ties!r} is unknown.", f"Use one of {', '.join(TIES)}.")
    loaded = read_comparisons(config.data, skip_bad=config.skip_bad)
    fitted = fit([learner.template.tree(c.prompt, c.options) for c in loaded.records], config.max_length, config.overlong)
    for note in (loaded.describe(), fitted.describe("rankings", config.max_length)):
        if note:
            run.note(note)
    choices = [loaded.records[i] for i in fitted.kept]
    strangers = held_out_labelers(choices, config.holdout_labelers, config.seed)
    kept, prompts_out, labelers_out = [], [], []
    for choice, tree in zip(choices, fitted.trees):
        outside = in_share(choice.prompt.id, config.holdout, config.seed)
        if choice.labeler in strangers:
            labelers_out.append((choice, tree))
        elif outside:
            prompts_out.append((choice, tree))
        elif choice.has_preference or config.ties != "drop":
            kept.append((choice, tree))
    elements = _elements(kept)
    zero = _zero(config, learner, run)
    order = Order(len(elements), config.batch_size, config.epochs, config.seed)

    resumed = run.resume()
    start = resumed[0] if resumed else 0
    if resumed:
        learner.load_state(resumed[1])

    tie = learner.scalars["tie"] if config.ties != "drop" else None
    for step in run.track(start, order.total, "reward model"):
        batch = [elements[i] for i in order(step)]
        rankings = sum(len(ranks) for _, ranks in batch)
        data = [Datum(tree, {"ranks": [r for one in ranks for r in one], "rankings": [len(ranks)]}) for tree, ranks in batch]

        def objective(out: Any, x: Any, weight: float = 1 / rankings) -> Any:
            index, sizes = repeat(out.sizes, x["rankings"].int().tolist())
            return k_wise(out.scores_C[index], x["ranks"], torch.full_like(x["ranks"], weight), sizes, ties=config.ties, tie=tie)

        metrics = learner.forward_backward(data, objective)
        metrics["accuracy"] = metrics.pop("correct") / max(1.0, pairs := metrics.pop("pairs"))
        rate = learning_rate(step, order.total, config.learning_rate, schedule=config.schedule, warmup=config.warmup)
        metrics |= learner.step(rate)
        run.log(step + 1, **metrics, pairs=pairs, rankings=rankings)
        run.checkpoint(step + 1, learner.save_state)

    learner.shift -= float(torch.cat(learner.scores(zero or [tree for tree, _ in elements])).double().mean())
    result: dict[str, Any] = {"steps": order.total, "rankings": len(kept), "held_out_labelers": sorted(strangers)}
    if found := _figures(learner, prompts_out):
        result |= found.to_json()
    else:
        run.note("No prompt with a preference was held out: accuracy is not measured.")
    found = _figures(learner, labelers_out)
    result["accuracy_labelers"] = found.to_json()["accuracy"] if found else None
    run.finish(result, lambda folder: learner.save(folder, base=run.config["base"]))


def _elements(kept: list[tuple[Choice, Tree]]) -> list[tuple[Tree, list[tuple[int, ...]]]]:
    """Each set of completions once, with the ranks that everybody gave it."""
    found: dict[Tree, list[tuple[int, ...]]] = {}
    for choice, tree in kept:
        found.setdefault(tree, []).append(choice.ranks)
    return list(found.items())


def repeat(sizes: Sequence[int], rankings: Sequence[int]) -> tuple[list[int], list[int]]:
    """Indices into C that repeat each tree's completions once a ranking, and the sizes of the repeated trees."""
    index, at = [], 0
    for size, times in zip(sizes, rankings):
        index += list(range(at, at + size)) * times
        at += size
    return index, [size for size, times in zip(sizes, rankings) for _ in range(times)]


def _zero(config: Config, learner: Engine, run: Run) -> list[Tree]:
    """The demonstrations whose scores shall average 0 (P16); none where the training completions do."""
    if not config.demonstrations:
        run.note("Scores are shifted so that the training completions average 0; give --demonstrations to use those.")
        return []
    loaded = read_demonstrations(config.demonstrations, skip_bad=config.skip_bad)
    fitted = fit([learner.template.tree(d.prompt, [d.completion]) for d in loaded.records], config.max_length, "drop")
    for note in (loaded.describe(), fitted.describe("demonstrations", config.max_length)):
        if note:
            run.note(note)
    if not fitted.trees:
        raise UserError(f"No demonstration of {config.demonstrations} fits --max-length {config.max_length}.",
                        "Raise it, or leave --demonstrations out.")
    return fitted.trees


def _figures(learner: Engine, held: list[tuple[Choice, Tree]]) -> PairScores | None:
    """None where nobody preferred anything."""
    if not any(choice.has_preference for choice, _ in held):
        return None
    scores = learner.scores([tree for _, tree in held])
    return evaluate_pairs([choice for choice, _ in held], [s.tolist() for s in scores])
