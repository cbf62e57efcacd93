"""Proximal policy optimisation with a value function, and PPO-ptx: RLHF as InstructGPT did it (1707.06347, 2203.02155).

    harken train ppo --model runs/sft --reward runs/rm --data prompts.jsonl --out runs/ppo

Each step samples completions, gives every token the reward -β (log π - log π_ref) and the last one the score as well,
estimates advantages by GAE from a value function, and takes clipped updates in minibatches:

    loss = -Σ_n w_n min(ρ_n A_n, clip(ρ_n) A_n) + c ½ Σ_n w_n max((V - R)², (clip(V) - R)²)        w = 1 / tokens
    PPO-ptx adds  γ · mean NLL of pretraining text, its gradient accumulated before the step  (2203.02155, eq. 2)

1. `--critic shared`: a value head on the policy's own network. `separate`: its own network from --model. `reward`: from
   the reward model, head and shift included, as InstructGPT. Value heads read the state before each token.
2. β is fixed, or with --kl-target the adaptive controller of Ziegler et al. (1909.08593, section 2.2).
3. γ = 1, no discount. λ < 1 hears a critic that knows where an answer is going; before it does, a token t places before the
   end learns from λ^t of the score. Advantages are whitened over the tokens of the whole step; rewards are not, unless asked.
4. --ema keeps a moving average of the trained parameters, which is what is saved at the end.
5. Old log-probs are the sampler's; their distance from the trainer's is checked at the first update (P4).

Leaves out: dual clipping, value-function warm-up, asynchronous rollouts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harken.core.config import RolloutConfig, setting
from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.protocols import Datum, Learner, Loss, Reward, Rollouts, Tree, ValueLearner
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.engines.places import locate_reward
from harken.loops.rollout import Gap, PromptSteps, Rollout, mean_of, passes, rollout, weighted
from harken.objectives.kl import k3
from harken.objectives.policy_gradient import clipped
from harken.objectives.supervised import nll
from harken.objectives.value import explained_variance, gae, value_loss, whiten
from harken.text.documents import read_documents, windows


@dataclass(frozen=True)
class Config(RolloutConfig):
    prompts_per_step: int = setting(32, least=1)
    """Prompts sampled in one step."""
    completions_per_prompt: int = setting(1, least=1)
    """Completions of each prompt; more share the prompt's computation."""
    beta: float = setting(0.02, least=0)
    """Weight of the KL to the starting model, per token, in the reward; the first one where --kl-target adapts it."""
    clip: float = setting(0.2, least=0)
    """Clip range of the importance ratio; 0 does not clip."""
    kl_target: float = 0.0
    """KL a completion, in nats, that an adaptive beta steers to; 0 keeps beta fixed."""
    kl_horizon: float = setting(10000.0, least=1)
    """Completions over which the adaptive beta moves by a factor of e at most a fifth (Ziegler et al.)."""
    lam: float = setting(0.95, least=0, most=1)
    """GAE's λ."""
    critic: str = setting("shared", one_of=("shared", "separate", "reward"))
    """The value function: shared (a head on the policy), separate (its own network), or reward (from the reward model)."""
    critic_learning_rate: float = 1e-4
    """Peak learning rate of a separate critic."""
    value_weight: float = 0.1
    """Weight of the value loss in a shared network."""
    value_clip: float = 0.2
    """Clip range of the value function's change; 0 does not clip."""
    whiten_rewards: bool = False
    """Divide the tokens' rewards by their standard deviation."""
    epochs_per_step: int = setting(1, least=1)
    """Passes over the completions of one step (InstructGPT: 1)."""
    minibatches: int = setting(4, least=1)
    """Optimiser steps of each pass."""
    ptx_data: str = setting("", names="file")
    """Pretraining text for PPO-ptx: a .txt file, or JSON Lines with "text"."""
    ptx_coef: float = 1.0
    """PPO-ptx's γ (InstructGPT: 27.8)."""
    ptx_per_episode: float = 1.0
    """Windows of pretraining text learnt from for each completion (InstructGPT: 8)."""
    ptx_length: int = setting(128, least=2)
    """Tokens of a window of pretraining text."""
    temperature: float = setting(1.0, least=1e-6)
    """Sampling temperature, the same for scoring."""
    ema: float = setting(0.0, least=0, most=0.9999999)
    """Decay of the moving average of the weights, an optimiser step (InstructGPT: 0.992); 0 saves the last weights."""


TRIAL = {"data": "prompts", "reward": "gold", "max_tokens": 8, "steps": 7, "prompts_per_step": 4, "learning_rate": 1e-3,
         "epochs_per_step": 2, "minibatches": 2, "critic": "separate", "ema": 0.9, "kl_target": 1.0}
OPTIMUM = {"minibatches": 2}
PRESETS: dict[str, dict[str, Any]] = {
    # 2203.02155, App. C.4. Sizes are for a cluster. Unreported there: λ, the normalisation behind γ, and the policy's learning
    # rate, scanned from 2.55e-6 to 2.55e-5 (above 8.05e-6 it diverged without ptx).
    "instructgpt-1.3b": {"lora_rank": 0, "prompts_per_step": 512, "minibatches": 8, "epochs_per_step": 1, "beta": 0.02,
                         "critic": "reward", "critic_learning_rate": 9e-6, "learning_rate": 5e-6, "ptx_coef": 27.8,
                         "ptx_per_episode": 8.0, "ptx_length": 1024, "ema": 0.992, "max_tokens": 1024, "max_length": 2048,
                         "clip": 0.2, "missing_eos_penalty": 0.0},
    # TRL's TL;DR run of Pythia 1B: 1M episodes at 3e-6, missing-EOS penalty 1.
    "tldr-1b": {"lora_rank": 0, "prompts_per_step": 512, "minibatches": 1, "epochs_per_step": 4, "beta": 0.05,
                "critic": "reward", "critic_learning_rate": 3e-6, "learning_rate": 3e-6, "max_tokens": 53,
                "missing_eos_penalty": 1.0, "temperature": 0.7},
    "laptop": {"prompts_per_step": 8, "completions_per_prompt": 4, "minibatches": 2, "critic": "reward", "lam": 1.0,
               "learning_rate": 4e-4, "beta": 0.03, "max_tokens": 48, "warmup": 0.1},
}


def needs_reference(config: Config) -> bool:
    return True


def head(config: Config) -> str | None:
    return "value" if config.critic == "shared" else None


def train(config: Config, learner: ValueLearner, sampler: Rollouts, reward: Reward, run: Run) -> None:
    """Trains `learner` to raise `reward` on the prompts; `sampler` samples from the learner's weights."""
    state = State(config, learner, open_critic(config, learner))
    steps = PromptSteps(config, learner, run, "ppo", state=state)
    text = pretraining_text(config, learner, run)

    for step, batch in steps:
        rolled = rollout(config, learner, sampler, reward, batch, step)
        rewards_N = token_rewards(rolled, state.beta, config.whiten_rewards)
        values_N = torch.cat((state.critic or learner).values(rolled.trees))
        advantages_N, returns_N = gae(rewards_N, values_N, rolled.lengths, 1.0, config.lam)
        data = rolled.data(whiten(advantages_N), values=values_N, returns=returns_N)
        scale = steps.rate(step, peak=1.0)
        gap, updates = Gap(), list[dict[str, float]]()
        for part in passes(config, len(data), step):
            weighed = weighted([data[i] for i in part], "token_mean")
            ptx = pretraining_batch(config, text, weighed, derive_seed(config.seed, "ptx", step, len(updates)))
            updates.append(update(config, state, weighed, ptx, scale, None if updates else gap))
        steps.log(step, rolled, mean_of(updates), **gap.check(learner.compute), beta=state.beta, value=float(values_N.mean()),
                  explained_variance=explained_variance(values_N, returns_N))
        state.adapt(float(rolled.kl_PG.mean()), len(rolled.lengths))

    state.use_average()
    steps.finish(beta=state.beta)


def token_rewards(rolled: Rollout, beta: float, whitened: bool = False) -> Tensor:
    """[N]: -β (log π - log π_ref) at every token, plus the completion's score at its last (P14)."""
    rewards = -beta * (rolled.old_N - rolled.ref_N)
    last = torch.tensor(rolled.lengths).cumsum(0) - 1
    rewards[last] += rolled.scores_PG.reshape(-1)
    return whiten(rewards, shift_mean=False) if whitened else rewards


def update(config: Config, state: State, batch: list[Datum], ptx: list[Datum], scale: float, gap: Gap | None) -> dict[str, float]:
    """One optimiser step of the policy, its value function, and, in PPO-ptx, the pretraining text; `gap` at the first."""
    def policy(out: Any, x: Any) -> Loss:
        if gap is not None:
            gap.add(out.logps_N.detach() - x["old"])
        loss, metrics = clipped(out.logps_N, x["old"], x["advantages"], x["weights"], config.clip)
        metrics = {**metrics, "entropy": (x["weights"] * out.entropy_N).sum(),
                   "approx_kl": (x["weights"] * k3(x["old"], out.logps_N.detach())).sum()}
        if out.values_N is None:
            return loss, metrics
        error, value_metrics = value(out, x)
        return loss + config.value_weight * error, {**metrics, **value_metrics}

    def value(out: Any, x: Any) -> Loss:
        return value_loss(out.values_N, x["values"], x["returns"], x["weights"], config.value_clip)

    learner, critic = state.learner, state.critic
    figures = learner.forward_backward(batch, policy, temperature=config.temperature, entropy=True)
    if ptx:
        text = learner.forward_backward(ptx, lambda out, x: nll(out.logps_N, x["weights"]))
        figures["ptx_nll"] = text["nll"] / config.ptx_coef
    figures |= learner.step(config.learning_rate * scale)
    if critic is not None:
        figures |= critic.forward_backward(batch, value, logps=False) | {"loss": figures["loss"]}
        figures["critic_grad_norm"] = critic.step(config.critic_learning_rate * scale)["grad_norm"]
    state.average()
    return figures


def pretraining_text(config: Config, learner: Learner, run: Run) -> list[Tree]:
    """PPO-ptx's windows of text; none without --ptx-data."""
    if not config.ptx_data or config.ptx_coef == 0:
        return []
    texts = windows(learner.template, read_documents(config.ptx_data, "--ptx-data"), min(config.ptx_length, config.max_length))
    if not texts:
        raise UserError(f"{config.ptx_data} is too short to learn from.", "Give --ptx-data more text.")
    run.note(f"PPO-ptx: {len(texts)} windows of at most {config.ptx_length} tokens, gradient weight {config.ptx_coef}.")
    return texts


def pretraining_batch(config: Config, text: Sequence[Tree], batch: Sequence[Datum], seed: int) -> list[Datum]:
    """`ptx_per_episode` windows for each completion of the batch, drawn by the seed; the loss is γ × their mean NLL."""
    if not text:
        return []
    count = max(1, round(config.ptx_per_episode * sum(len(d.tree.completions) for d in batch)))
    drawn = random.Random(seed).choices(text, k=count)
    tokens = sum(len(t.completions[0]) for t in drawn)
    return [Datum(t, {"weights": [config.ptx_coef / tokens] * len(t.completions[0])}) for t in drawn]


def open_critic(config: Config, learner: Learner) -> ValueLearner | None:
    """A value network of its own, or None where the policy carries the head."""
    if config.critic == "shared":
        return None
    if config.critic == "reward":
        locate_reward(config.reward)
        if config.reward == "gold":
            raise UserError("--critic reward needs a reward model's run; gold is none.", "Use --critic shared or separate.")
    critic = learner.critic(config.reward if config.critic == "reward" else config.model, lora_rank=config.lora_rank,
                            seed=config.seed)
    if critic.template.hash != learner.template.hash or critic.vocabulary != learner.vocabulary:
        raise UserError(f"The reward model {config.reward} has another tokenizer than {config.model}.",
                        "Use --critic shared or separate.")
    return critic


class State:
    """What changes beside the policy's weights: the critic, β, and the moving average. Saved with every checkpoint."""

    def __init__(self, config: Config, learner: ValueLearner, critic: ValueLearner | None) -> None:
        self.config, self.learner, self.critic, self.beta = config, learner, critic, config.beta
        self.shadow = {n: p.detach().clone() for n, p in learner.parts.items()} if config.ema > 0 else {}

    def adapt(self, kl: float, completions: int) -> None:
        """β ← β (1 + clip(KL / target - 1, ±0.2) · completions / horizon) (1909.08593, section 2.2)."""
        if self.config.kl_target > 0:
            error = min(0.2, max(-0.2, kl / self.config.kl_target - 1))
            self.beta *= 1 + error * completions / self.config.kl_horizon

    @torch.no_grad()
    def average(self) -> None:
        for name, mean in self.shadow.items():
            mean.lerp_(self.learner.parts[name], 1 - self.config.ema)

    @torch.no_grad()
    def use_average(self) -> None:
        for name, mean in self.shadow.items():
            self.learner.parts[name].copy_(mean)

    def save_state(self, folder: Path) -> None:
        self.learner.save_state(folder)
        write_json(folder / "ppo.json", {"beta": self.beta})
        if self.critic is not None:
            (folder / "critic").mkdir()
            self.critic.save_state(folder / "critic")
        if self.shadow:
            torch.save(self.learner.whole(self.shadow), folder / "average.pt")

    def load_state(self, folder: Path) -> None:
        self.learner.load_state(folder)
        self.beta = read_json(folder / "ppo.json")["beta"]
        if self.critic is not None:
            self.critic.load_state(folder / "critic")
        if self.shadow:
            saved = self.learner.cut(torch.load(folder / "average.pt", map_location="cpu", weights_only=True))
            self.shadow = {name: mean.to(self.learner.parts[name].device) for name, mean in saved.items()}
