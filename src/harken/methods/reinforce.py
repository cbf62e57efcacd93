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

from harken.core.config import RolloutConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import Reward
from harken.core.run import Run
from harken.engines.hf import Engine
from harken.engines.sampler import HFSampler
from harken.loops.rollout import Gap, fitting_prompts, rollout, weighted
from harken.loops.schedule import Order, learning_rate
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


def needs_reference(config: Config) -> bool:
    return True


def train(config: Config, learner: Engine, sampler: HFSampler, reward: Reward, run: Run) -> None:
    """Trains `learner` to raise `reward` on the prompts; `sampler` samples from the learner's weights."""
    if config.temperature <= 0:
        raise UserError(f"--temperature {config.temperature} is out of range.", "REINFORCE needs one above 0.")
    kept = fitting_prompts(config, learner, run)
    order = Order(len(kept), config.prompts_per_step, 1, config.seed)
    total = config.steps or order.total

    resumed = run.resume()
    start = resumed[0] if resumed else 0
    if resumed:
        learner.load_state(resumed[1])

    for step in run.track(start, total, "reinforce"):
        rolled = rollout(config, learner, sampler, reward, [kept[i] for i in order(step)], step)
        returns_PG = rolled.scores_PG - config.beta * rolled.kl_PG
        advantages_PG = returns_PG
        if config.baseline == "batch" and returns_PG.numel() > 1:
            advantages_PG = leave_one_out(returns_PG.reshape(1, -1)).view_as(returns_PG)
        data = weighted(rolled.data(advantages_PG), "sequence_sum")
        gap = Gap()

        def objective(out: Any, x: Any, gap: Gap = gap) -> Any:
            gap.add(out.logps_N.detach() - x["old"])
            loss, _ = clipped(out.logps_N, out.logps_N.detach(), x["advantages"], x["weights"], 0.0)
            return loss, {"entropy": (x["weights"] * out.entropy_N).sum()}

        metrics = learner.forward_backward(data, objective, temperature=config.temperature, entropy=True)
        rate = learning_rate(step, total, config.learning_rate, schedule=config.schedule, warmup=config.warmup)
        metrics |= learner.step(rate)
        described = rolled.describe()
        metrics["entropy"] /= described["length"]  # from sums over tokens to means
        run.log(step + 1, **metrics, advantage_std=float(advantages_PG.std()) if advantages_PG.numel() > 1 else 0.0,
                **described, **gap.check(learner.compute))
        run.log_samples(step + 1, rolled.rows(config.samples_per_step))
        run.checkpoint(step + 1, learner.save_state)

    run.finish({"steps": total, "prompts": len(kept)}, lambda folder: learner.save(folder, base=run.config["base"]))
