"""REINFORCE on text, as in the lecture: the gradient of the expected reward, sampled (Williams 1992).

    harken train reinforce --model runs/sft --reward runs/rm --data prompts.jsonl --out runs/reinforce

    ∇J = E[ Σ_t ∇log π(y_t | y_<t) R(y) ]          loss = -mean over completions of A Σ_t log π(y_t)

With --baseline none the advantage A is the return itself: unbiased, and so noisy that it mostly shows why baselines
exist. With --baseline batch it is the return less the mean of the step's other completions, of whatever prompt; the
mean leaves the completion's own return out, so it stays unbiased. Completions of the same prompt make a better
baseline: that is rloo. R = score - β Σ_t (log π - log π_ref) - penalty if it has no end.

Leaves out: clipping and importance ratios; each sample is used once, by the policy that made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harken.core.config import RolloutConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import Learner, Loss, Reward, Rollouts
from harken.core.run import Run
from harken.loops.rollout import Gap, PromptSteps, learn, rollout, weighted
from harken.objectives.policy_gradient import clipped, leave_one_out


@dataclass(frozen=True)
class Config(RolloutConfig):
    prompts_per_step: int = setting(32, least=1)
    """Prompts sampled in one step."""
    completions_per_prompt: int = setting(1, least=1)
    """Completions of each prompt."""
    baseline: str = setting("batch", one_of=("batch", "none"))
    """What is subtracted from the return: batch (mean of the step's others) or none."""
    beta: float = setting(0.05, least=0)
    """Weight of the KL to the starting model, per token, in the reward."""


TRIAL = {"data": "prompts", "reward": "gold", "max_tokens": 8, "steps": 7, "prompts_per_step": 4, "learning_rate": 1e-3}


def needs_reference(config: Config) -> bool:
    return True


def train(config: Config, learner: Learner, sampler: Rollouts, reward: Reward, run: Run) -> None:
    """Trains `learner` to raise `reward` on the prompts; `sampler` samples from the learner's weights."""
    if config.temperature <= 0:
        raise UserError(f"--temperature {config.temperature} is out of range.", "REINFORCE needs one above 0.")

    steps = PromptSteps(config, learner, run, "reinforce")
    for step, batch in steps:
        rolled, gap = rollout(config, learner, sampler, reward, batch, step), Gap()
        returns_PG = rolled.scores_PG - config.beta * rolled.kl_PG
        advantages_PG = less_baseline(returns_PG, config.baseline)
        data = weighted(rolled.data(advantages_PG), "sequence_sum")
        metrics = learn(learner, data, surrogate, config, gap) | learner.step(steps.rate(step))
        metrics["entropy"] /= rolled.mean_length  # from a sum over tokens to their mean
        metrics["advantage_std"] = float(advantages_PG.std()) if advantages_PG.numel() > 1 else 0.0
        steps.log(step, rolled, metrics, **gap.check(learner.compute))
    steps.finish()


def less_baseline(returns_PG: Tensor, baseline: str) -> Tensor:
    """The returns themselves, or each less the mean of all others of the step."""
    if baseline == "none" or returns_PG.numel() < 2:
        return returns_PG
    return leave_one_out(returns_PG.reshape(1, -1)).view_as(returns_PG)


def surrogate(out: Any, x: Any) -> Loss:
    """A loss whose gradient is -A ∇ Σ_t log π(y_t): the ratio to the policy itself is 1."""
    return clipped(out.logps_N, out.logps_N.detach(), x["advantages"], x["weights"], 0.0)[0], {}
