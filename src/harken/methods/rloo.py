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
    completions_per_prompt: int = setting(4, least=1)
    """Completions of each prompt (G, at least 2)."""
    beta: float = setting(0.05, least=0)
    """Weight of the KL to the starting model, per token, in the reward."""
    clip: float = setting(0.2, least=0)
    """Clip range of the importance ratio; 0 does not clip."""


def needs_reference(config: Config) -> bool:
    return True


def train(config: Config, learner: Engine, sampler: HFSampler, reward: Reward, run: Run) -> None:
    """Trains `learner` to raise `reward` on the prompts; `sampler` samples from the learner's weights."""
    if config.completions_per_prompt < 2 or config.temperature <= 0:
        raise UserError(f"RLOO needs at least 2 completions a prompt and a temperature above 0; found "
                        f"{config.completions_per_prompt} and {config.temperature}.",
                        "Raise --completions-per-prompt or --temperature.")
    kept = fitting_prompts(config, learner, run)
    order = Order(len(kept), config.prompts_per_step, 1, config.seed)
    total = config.steps or order.total

    resumed = run.resume()
    start = resumed[0] if resumed else 0
    if resumed:
        learner.load_state(resumed[1])

    for step in run.track(start, total, "rloo"):
        rolled = rollout(config, learner, sampler, reward, [kept[i] for i in order(step)], step)
        advantages_PG = leave_one_out(rolled.scores_PG - config.beta * rolled.kl_PG)
        data = weighted(rolled.data(advantages_PG), "sequence_sum")
        gap = Gap()

        def objective(out: Any, x: Any, gap: Gap = gap) -> Any:
            gap.add(out.logps_N.detach() - x["old"])
            loss, metrics = clipped(out.logps_N, x["old"], x["advantages"], x["weights"], config.clip)
            return loss, {**metrics, "entropy": (x["weights"] * out.entropy_N).sum()}

        metrics = learner.forward_backward(data, objective, temperature=config.temperature, entropy=True)
        rate = learning_rate(step, total, config.learning_rate, schedule=config.schedule, warmup=config.warmup)
        metrics |= learner.step(rate)
        described = rolled.describe()
        metrics["clip_fraction"] /= described["length"]  # from sums over tokens to means
        metrics["entropy"] /= described["length"]
        run.log(step + 1, **metrics, **described, **gap.check(learner.compute))
        run.log_samples(step + 1, rolled.rows(config.samples_per_step))
        run.checkpoint(step + 1, learner.save_state)

    run.finish({"steps": total, "prompts": len(kept)}, lambda folder: learner.save(folder, base=run.config["base"]))
