"""REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, 2402.14740).

    harken train rloo --model runs/sft --reward runs/rm --data prompts.jsonl --out runs/rloo

Each step samples G completions of each prompt, scores them, and takes one policy-gradient step:

    R_g = score_g - beta * sum_t (log pi(y_t) - log pi_ref(y_t)) - penalty if y_g has no end
    A_g = R_g - mean of the other completions' R          loss = -mean_g A_g * log pi(y_g)

1. The KL term is k1, a token's log-ratio, in the reward and nowhere else: its gradient is that of KL (P5).
2. A sequence counts as one action: the log-prob is summed over its tokens, end-of-turn included (P26),
   and the loss is a mean over sequences (P8).
3. The sampler's log-probs are the old policy's: no second pass. How far the trainer's are from them is
   logged every step, and too far is an error (P4).
4. Sampling is at the full distribution of one temperature, and scoring at the same one (P2, P3).
5. Rewards are not clipped or whitened unless asked; equal rewards in a group give no gradient (P25).

Leaves out: several epochs a rollout, asynchronous rollouts, an adaptive beta.
"""

from __future__ import annotations

from dataclasses import dataclass

from harken.core.config import RolloutConfig, setting
from harken.core.protocols import Learner, Reward, Rollouts
from harken.core.run import Run
from harken.loops.rollout import Gap, PromptSteps, learn, need_groups, rollout, weighted
from harken.objectives.policy_gradient import clipped, leave_one_out


@dataclass(frozen=True)
class Config(RolloutConfig):
    completions_per_prompt: int = setting(4, least=1)
    """Completions of each prompt (G, at least 2)."""
    beta: float = setting(0.05, least=0)
    """Weight of the KL to the starting model, per token, in the reward."""
    clip: float = setting(0.2, least=0)
    """Clip range of the importance ratio; 0 does not clip."""


TRIAL = {"data": "prompts", "reward": "gold", "max_tokens": 8, "steps": 7, "prompts_per_step": 4, "learning_rate": 1e-3}


def needs_reference(config: Config) -> bool:
    return True


def train(config: Config, learner: Learner, sampler: Rollouts, reward: Reward, run: Run) -> None:
    """Trains `learner` to raise `reward` on the prompts; `sampler` samples from the learner's weights."""
    need_groups(config, "RLOO")
    steps = PromptSteps(config, learner, run, "rloo")
    for step, batch in steps:
        rolled = rollout(config, learner, sampler, reward, batch, step)
        advantages_PG = leave_one_out(rolled.scores_PG - config.beta * rolled.kl_PG)
        gap = Gap()
        metrics = learn(learner, weighted(rolled.data(advantages_PG), "sequence_sum"),
                        lambda out, x: clipped(out.logps_N, x["old"], x["advantages"], x["weights"], config.clip), config, gap)
        metrics |= learner.step(steps.rate(step))
        for name in ("clip_fraction", "entropy"):
            metrics[name] /= rolled.mean_length  # from sums over tokens to means
        steps.log(step, rolled, metrics, **gap.check(learner.compute))
    steps.finish()
