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

import math
from dataclasses import dataclass
from typing import Any

import torch

from harken.core.config import TrainConfig
from harken.core.errors import UserError
from harken.core.protocols import Datum, Reward, Sample, Tree
from harken.core.records import Prompt
from harken.core.run import Run, derive_seed
from harken.engines.hf import Engine
from harken.engines.sampler import HFSampler
from harken.engines.schedule import Order, learning_rate
from harken.objectives.policy_gradient import clipped, leave_one_out, token_weights
from harken.store.files import read_prompts


@dataclass(frozen=True)
class Config(TrainConfig):
    reward: str = ""
    """What to climb: a reward model's run directory, or gold (the sandbox's known truth)."""
    steps: int = 0
    """Optimiser steps; 0 is one pass over the prompts."""
    prompts_per_step: int = 8
    """Prompts sampled in one step."""
    completions_per_prompt: int = 4
    """Completions of each prompt (G, at least 2)."""
    max_tokens: int = 64
    """Longest completion in tokens."""
    temperature: float = 1.0
    """Sampling temperature, the same for scoring."""
    beta: float = 0.05
    """Weight of the KL to the starting model, per token, in the reward."""
    missing_eos_penalty: float = 1.0
    """Subtracted from the score of a completion that the token limit cut."""
    reward_clip: float = 0.0
    """Clip scores to plus or minus this; 0 does not clip."""
    clip: float = 0.2
    """Clip range of the importance ratio; 0 does not clip."""
    schedule: str = "constant"
    """Learning rate after warm-up: cosine (to 10 %), linear (to 0) or constant."""
    samples_per_step: int = 2
    """Completions of each step kept in samples.jsonl."""


def needs_reference(config: Config) -> bool:
    return True


def train(config: Config, learner: Engine, sampler: HFSampler, reward: Reward, run: Run) -> None:
    """Trains `learner` to raise `reward` on the prompts; `sampler` samples from the learner's weights."""
    if config.completions_per_prompt < 2 or config.temperature <= 0:
        raise UserError(f"RLOO needs at least 2 completions a prompt and a temperature above 0; found "
                        f"{config.completions_per_prompt} and {config.temperature}.",
                        "Raise --completions-per-prompt or --temperature.")
    loaded = read_prompts(config.data, skip_bad=config.skip_bad)
    if note := loaded.describe():
        run.note(note)
    kept = [(p, learner.template.prompt_ids(p)) for p in loaded.records]
    kept = [(p, ids) for p, ids in kept if len(ids) + config.max_tokens <= config.max_length]
    if len(kept) < len(loaded.records):
        run.note(f"Dropped {len(loaded.records) - len(kept)} of {len(loaded.records)} prompts: with {config.max_tokens} "
                 f"new tokens they exceed --max-length {config.max_length}.")
    order = Order(len(kept), config.prompts_per_step, 1, config.seed)
    total = config.steps or order.total

    resumed = run.resume()
    start = resumed[0] if resumed else 0
    if resumed:
        learner.load_state(resumed[1])

    for step in run.track(start, total, "rloo"):
        prompts, ids = zip(*(kept[i] for i in order(step)))
        samples_PG = sampler.sample_ids(ids, config.completions_per_prompt, max_tokens=config.max_tokens,
                                        temperature=config.temperature, seed=derive_seed(config.seed, "rollout", step))
        scores_PG = score(reward, list(prompts), samples_PG, config)
        trees = [Tree(p, tuple(s.ids for s in group)) for p, group in zip(ids, samples_PG)]
        ref_PG = learner.logprobs(trees, temperature=config.temperature, reference=True)
        kl_PG = torch.tensor([[sum(s.logps) - float(ref.sum()) for s, ref in zip(group, refs)]
                              for group, refs in zip(samples_PG, ref_PG)])
        advantages_PG = leave_one_out(scores_PG - config.beta * kl_PG)

        sequences = advantages_PG.numel()
        data = []
        weights = iter(token_weights([len(s.ids) for group in samples_PG for s in group], "sequence_sum"))
        for tree, group, advantages in zip(trees, samples_PG, advantages_PG.tolist()):
            tokens = [(logp, a) for s, a in zip(group, advantages) for logp in s.logps]
            data.append(Datum(tree, {"old": [o for o, _ in tokens], "advantages": [a for _, a in tokens],
                                     "weights": [next(weights) for _ in tokens]}))
        gap = Gap()

        def objective(out: Any, x: Any, gap: Gap = gap) -> Any:
            gap.add(out.logps_N.detach() - x["old"])
            loss, metrics = clipped(out.logps_N, x["old"], x["advantages"], x["weights"], config.clip)
            return loss, {**metrics, "entropy": (x["weights"] * out.entropy_N).sum()}

        metrics = learner.forward_backward(data, objective, temperature=config.temperature, entropy=True)
        rate = learning_rate(step, total, config.learning_rate, schedule=config.schedule, warmup=config.warmup)
        metrics |= learner.step(rate)
        length = sum(len(s.ids) for g in samples_PG for s in g) / sequences
        metrics["clip_fraction"] /= length
        metrics["entropy"] /= length
        metrics |= describe(scores_PG, kl_PG, samples_PG) | gap.check(learner.compute)
        run.log(step + 1, **metrics)
        run.log_samples(step + 1, [
            {**p.to_json(), "completion": s.text, "reward": r, "kl": k}
            for p, group, rs, ks in zip(prompts, samples_PG, scores_PG.tolist(), kl_PG.tolist())
            for s, r, k in zip(group, rs, ks)][: config.samples_per_step])
        run.checkpoint(step + 1, learner.save_state)

    run.finish({"steps": total, "prompts": len(kept)}, lambda folder: learner.save(folder, base=run.config["base"]))


def score(reward: Reward, prompts: list[Prompt], samples_PG: list[list[Sample]], config: Config) -> torch.Tensor:
    """Scores [P, G], clipped if asked, less the penalty of completions without an end (P14)."""
    scores = reward.score(prompts, [[s.text for s in group] for group in samples_PG])
    if any(r is None or not math.isfinite(r) for group in scores for r in group):
        raise UserError("The reward gave no score, or one that is not finite, for a completion.",
                        "Lower --max-tokens, or use a reward of greater length.")
    scores_PG = torch.tensor(scores, dtype=torch.float32)
    if config.reward_clip > 0:
        scores_PG = scores_PG.clamp(-config.reward_clip, config.reward_clip)
    cut_PG = torch.tensor([[not s.finished for s in group] for group in samples_PG])
    return scores_PG - config.missing_eos_penalty * cut_PG


def describe(scores_PG: torch.Tensor, kl_PG: torch.Tensor, samples_PG: list[list[Sample]]) -> dict[str, float]:
    """Reward, KL (nats a sequence), length, share finished, groups without signal. A KL clearly below 0 is an error (P6)."""
    flat = [s for group in samples_PG for s in group]
    error = float(kl_PG.std()) / math.sqrt(kl_PG.numel())
    if float(kl_PG.mean()) < -3 * error - 0.01:
        raise UserError(f"The KL to the reference is estimated at {float(kl_PG.mean()):.3f} ± {error:.3f}, below 0.",
                        "Sampling and scoring disagree; run harken doctor and report this.")
    return {"reward": float(scores_PG.mean()), "reward_std": float(scores_PG.std()), "kl": float(kl_PG.mean()),
            "length": sum(len(s.ids) for s in flat) / len(flat), "eos_rate": sum(s.finished for s in flat) / len(flat),
            "flat_groups": float((scores_PG.std(1) == 0).sum())}


class Gap:
    """How far the trainer's log-probs are from the sampler's for the same tokens and weights (P4)."""

    def __init__(self) -> None:
        self.parts: list[torch.Tensor] = []

    def add(self, difference_N: torch.Tensor) -> None:
        self.parts.append(difference_N.cpu())

    def check(self, dtype: torch.dtype) -> dict[str, float]:
        ratio = torch.cat(self.parts).exp()
        gap = torch.cat(self.parts).abs()
        allowed = 1e-3 if dtype is torch.float32 else 0.1
        mean = float(gap.mean())
        if mean > allowed:
            raise UserError(f"Sampler and trainer disagree: mean |log-prob gap| {mean:.4f} over {allowed}.",
                            "Training on would be silently off-policy. Use --dtype float32, and report this.")
        return {"logprob_gap": mean, "logprob_gap_max": float(gap.max()),
                "ratio_outside": float(((ratio > 1.1) | (ratio < 0.9)).float().mean())}
