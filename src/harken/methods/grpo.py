"""Group-relative policy optimisation (2402.03300), with the choices of Dr. GRPO, DAPO and GSPO as named options.

    harken train grpo --model runs/sft --reward runs/rm --data prompts.jsonl --out runs/grpo

Each step samples G completions of each prompt and scores them; A_g = (R_g - mean) / (deviation + ε) of the group holds
for every token of a completion. Then --epochs-per-step passes over the step's prompts in --minibatches, each a PPO-clipped
update with a KL term in the loss:

    loss = -Σ_n w_n min(ρ_n A_n, clip(ρ_n) A_n) + β Σ_n w_n k3_n

    GRPO      (default)  w of a token 1 / (B L_b)
    Dr. GRPO  --scale none --aggregation constant --beta 0       no division by deviation or length (2503.20783)
    DAPO      --aggregation token_mean --clip-high 0.28 --beta 0 --mask-truncated       (2503.14476; its sampling of prompts
              until no group is flat, and its length penalty, are left out)
    GSPO      --ratio sequence --clip 3e-4 --clip-high 4e-4 --beta 0      ρ of the whole completion (2507.18071, eq. 5 and 7)

1. k3 in the loss is GRPO's published form; its gradient is that of KL(π_ref ‖ π) (P5). --kl k2 has the gradient of
   KL(π ‖ π_ref), --kl reward puts k1 into the reward, where group means take part of it away.
2. Old log-probs are the sampler's; their distance from the trainer's is checked at the first update (P4).
3. Groups of equal rewards give no gradient and are counted (P25).

4. GSPO's ρ is exp of the completion's mean log-ratio and far nearer to 1: its clip range is some 10⁻⁴ (P28).

Leaves out: asynchronous rollouts, GSPO-token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harken.core.config import RolloutConfig, setting
from harken.core.protocols import Learner, Loss, Reward, Rollouts
from harken.core.run import Run
from harken.loops.rollout import Gap, PromptSteps, learn, mean_of, need_groups, passes, rollout, weighted
from harken.objectives import kl
from harken.objectives.policy_gradient import AGGREGATIONS, clipped, group_relative


@dataclass(frozen=True)
class Config(RolloutConfig):
    completions_per_prompt: int = setting(8, least=1)
    """Completions of each prompt (G, at least 2)."""
    beta: float = setting(0.04, least=0)
    """Weight of the KL to the starting model, in the loss."""
    clip: float = setting(0.2, least=0)
    """Clip range of the importance ratio; 0 does not clip."""
    kl: str = setting("k3", one_of=("k3", "k2", "reward"))
    """The KL's estimator in the loss: k3 (as published) or k2 (KL's own gradient); or reward, k1 in the reward."""
    scale: str = setting("group", one_of=("group", "batch", "none"))
    """What the centred rewards are divided by: group (its deviation), batch, or none (Dr. GRPO)."""
    aggregation: str = setting("sequence_mean", one_of=AGGREGATIONS)
    """How tokens weigh: sequence_mean (GRPO), token_mean (DAPO), constant (Dr. GRPO) or sequence_sum."""
    ratio: str = setting("token", one_of=("token", "sequence"))
    """What the importance ratio is of: token (GRPO), or sequence, the completion's mean log-ratio (GSPO)."""
    clip_high: float = 0.0
    """Upper clip range where it differs (DAPO: 0.28); 0 takes --clip."""
    mask_truncated: bool = False
    """Leave completions without an end out of the loss (DAPO)."""
    epochs_per_step: int = 1
    """Passes over the prompts of one step."""
    minibatches: int = 1
    """Optimiser steps of each pass."""


TRIAL = {"data": "prompts", "reward": "gold", "max_tokens": 8, "steps": 7, "prompts_per_step": 4, "learning_rate": 1e-3,
         "epochs_per_step": 2, "minibatches": 2}


def needs_reference(config: Config) -> bool:
    return True


def train(config: Config, learner: Learner, sampler: Rollouts, reward: Reward, run: Run) -> None:
    """Trains `learner` to raise `reward` on the prompts; `sampler` samples from the learner's weights."""
    _check(config)

    def loss(out: Any, x: Any) -> Loss:
        total, metrics = clipped(out.logps_N, x["old"], x["advantages"], x["weights"], config.clip, config.clip_high or None,
                                 out.lengths if config.ratio == "sequence" else None)
        if config.kl != "reward" and config.beta > 0:
            total = total + config.beta * (x["weights"] * getattr(kl, config.kl)(out.logps_N, x["ref"])).sum()
        return total, {**metrics, "weight": x["weights"].sum()}

    steps = PromptSteps(config, learner, run, "grpo")
    for step, batch in steps:
        rolled = rollout(config, learner, sampler, reward, batch, step)
        rewards_PG = rolled.scores_PG - (config.beta if config.kl == "reward" else 0.0) * rolled.kl_PG
        data = rolled.data(group_relative(rewards_PG, config.scale), ref=rolled.ref_N)
        finished = [[s.finished for s in group] for group in rolled.samples_PG]
        gap, updates = Gap(), list[dict[str, float]]()
        for part in passes(config, len(data), step):
            keep = [f for i in part for f in finished[i]] if config.mask_truncated else None
            weighed = weighted([data[i] for i in part], config.aggregation, config.max_tokens, keep)
            metrics = learn(learner, weighed, loss, config, None if updates else gap) | learner.step(steps.rate(step))
            weight = metrics.pop("weight") or 1.0
            updates.append({**metrics, **{n: metrics[n] / weight for n in ("clip_fraction", "entropy")}})
        steps.log(step, rolled, mean_of(updates), **gap.check(learner.compute))
    steps.finish()


def _check(config: Config) -> None:
    need_groups(config, "GRPO")
