"""Expert iteration, or rejection sampling: sample, keep the best of each prompt, imitate it, again.

    harken train expert_iteration --model runs/sft --reward runs/rm --data prompts.jsonl --out runs/expert

Each step samples G completions of each prompt from the current policy, keeps the --keep best that score above their
prompt's mean and have an end, and takes SFT steps on them (STaR, ReST, RAFT: 2203.14465, 2308.08998, 2304.06767):

    loss = -Σ_n log π(n) / tokens kept

No ratio, no KL term: how far it goes is bounded by what the policy can sample. The KL is measured and logged.

Leaves out: fresh copies of the base model for each round, filtering by a fixed threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

from harken.core.config import RolloutConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import Datum, Learner, Reward, Rollouts, Tree
from harken.core.run import Run
from harken.loops.rollout import PromptSteps, Rollout, mean_of, passes, rollout
from harken.objectives.supervised import nll


@dataclass(frozen=True)
class Config(RolloutConfig):
    completions_per_prompt: int = setting(8, least=1)
    """Completions of each prompt (G, at least 2)."""
    keep: int = 1
    """Completions kept of each prompt."""
    epochs_per_step: int = 1
    """Passes over the completions kept in one step."""
    minibatches: int = 1
    """Optimiser steps of each pass."""


TRIAL = {"data": "prompts", "reward": "gold", "max_tokens": 8, "steps": 7, "prompts_per_step": 4, "learning_rate": 1e-3}


def needs_reference(config: Config) -> bool:
    return True


def train(config: Config, learner: Learner, sampler: Rollouts, reward: Reward, run: Run) -> None:
    """Trains `learner` on the best of its own completions; `sampler` samples from the learner's weights."""
    if config.completions_per_prompt < 2 or not 1 <= config.keep < config.completions_per_prompt or config.temperature <= 0:
        raise UserError(f"There is nothing to choose: --completions-per-prompt {config.completions_per_prompt}, --keep "
                        f"{config.keep}, --temperature {config.temperature}.", "Sample more than are kept, above temperature 0.")

    steps = PromptSteps(config, learner, run, "expert iteration")
    for step, batch in steps:
        rolled = rollout(config, learner, sampler, reward, batch, step)
        best = best_of(rolled, config.keep)
        updates = []
        for part in passes(config, len(best), step):
            data = imitation([best[i] for i in part])
            metrics = learner.forward_backward(data, lambda out, x: nll(out.logps_N, x["weights"]))
            updates.append(metrics | learner.step(steps.rate(step)))
        steps.log(step, rolled, mean_of(updates), kept=sum(len(t.completions) for t in best))
    steps.finish()


def imitation(trees: list[Tree]) -> list[Datum]:
    """The mean over all their tokens."""
    tokens = sum(len(c) for tree in trees for c in tree.completions)
    return [Datum(tree, {"weights": [1 / tokens for c in tree.completions for _ in c]}) for tree in trees]


def best_of(rolled: Rollout, keep: int) -> list[Tree]:
    """Each prompt with its best completions: finished, scored above the prompt's mean, at most `keep`."""
    chosen = []
    for tree, group, scores in zip(rolled.trees, rolled.samples_PG, rolled.scores_PG.tolist()):
        mean = sum(scores) / len(scores)
        ranked = sorted(range(len(scores)), key=lambda g: -scores[g])
        best = [g for g in ranked if scores[g] > mean and group[g].finished][:keep]
        if best:
            chosen.append(Tree(tree.prompt, tuple(tree.completions[g] for g in best)))
    return chosen
