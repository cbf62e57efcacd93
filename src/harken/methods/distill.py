"""On-policy distillation: the student samples, and learns from what the teacher thinks of each of its tokens.

    harken train distill --model smollm2 --teacher runs/rloo --data prompts.jsonl --out runs/student

The reverse KL to the teacher, on the student's own samples (2306.13649; MiniLLM, 2306.08543), as a policy gradient in
which every token's advantage is its own log-ratio:

    loss = -mean over tokens of (log π_teacher(n) - log π_old(n)) ρ_n         ρ_n = π(n) / π_old(n)

1. A token is judged by its own ratio alone (discount 0): the part of the gradient that says how a token changes later
   ratios is left out, which is biased and of far lower variance.
2. --teacher-system gives the teacher a system prompt that the student does not see: context distillation (2112.00861),
   which writes a prompt into the weights. The teacher may then be the student's own starting point.
3. Teacher and student share a tokenizer; else it is refused.

Leaves out: forward KL, mixed sampling from the teacher.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from harken.core.config import SampleConfig
from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.core.records import Message, Prompt
from harken.core.run import Run, derive_seed
from harken.engines.hf import Engine
from harken.engines.loading import load, locate
from harken.engines.rollout import Gap, Rollout, fitting_prompts, weighted
from harken.engines.sampler import HFSampler
from harken.engines.schedule import Order, learning_rate
from harken.objectives.policy_gradient import clipped


@dataclass(frozen=True)
class Config(SampleConfig):
    teacher: str = ""
    """Whose distribution to learn: a run, a folder, a hub id; without it the model itself, with --teacher-system."""
    teacher_system: str = ""
    """A system prompt for the teacher alone: its effect is written into the student's weights."""
    prompts_per_step: int = 16
    """Prompts sampled in one step."""
    completions_per_prompt: int = 2
    """Completions of each prompt."""
    clip: float = 0.0
    """Clip range of the importance ratio; 0 does not clip."""


def train(config: Config, learner: Engine, sampler: HFSampler, reward: Any, run: Run) -> None:
    """Trains `learner` towards the teacher; `reward` is not used."""
    teacher = open_teacher(config, learner)
    kept = fitting_prompts(config, learner, run)
    seen = [learner.template.prompt_ids(taught(p, config.teacher_system)) for p, _ in kept]
    order = Order(len(kept), config.prompts_per_step, 1, config.seed)
    total = config.steps or order.total

    resumed = run.resume()
    start = resumed[0] if resumed else 0
    if resumed:
        learner.load_state(resumed[1])

    for step in run.track(start, total, "distill"):
        index = order(step)
        samples_PG = sampler.sample_ids([kept[i][1] for i in index], config.completions_per_prompt, max_tokens=config.max_tokens,
                                        temperature=config.temperature, seed=derive_seed(config.seed, "rollout", step))
        answers = [tuple(s.ids for s in group) for group in samples_PG]
        found = teacher.logprobs([Tree(seen[i], a) for i, a in zip(index, answers)], temperature=config.temperature)
        teacher_N = torch.cat([x.cpu() for tree in found for x in tree])
        kl = torch.tensor([sum(s.logps) - float(x.sum()) for s, x in zip((s for g in samples_PG for s in g),
                                                                      (x for tree in found for x in tree))])
        kl_PG = kl.view(len(index), -1)
        rolled = Rollout([kept[i][0] for i in index], [Tree(kept[i][1], a) for i, a in zip(index, answers)], samples_PG,
                         -kl_PG, teacher_N, kl_PG)
        data = weighted(rolled.data(teacher_N - rolled.old_N), "token_mean")
        gap = Gap()

        def objective(out: Any, x: Any, gap: Gap = gap) -> Any:
            gap.add(out.logps_N.detach() - x["old"])
            loss, _ = clipped(out.logps_N, x["old"], x["advantages"], x["weights"], config.clip)
            return loss, {"entropy": (x["weights"] * out.entropy_N).sum()}

        metrics = learner.forward_backward(data, objective, temperature=config.temperature, entropy=True)
        rate = learning_rate(step, total, config.learning_rate, schedule=config.schedule, warmup=config.warmup)
        metrics |= learner.step(rate)
        run.log(step + 1, **metrics, **rolled.describe(), **gap.check(learner.compute),
                kl_token=float(kl.sum()) / len(teacher_N))
        run.log_samples(step + 1, rolled.rows(config.samples_per_step))
        run.checkpoint(step + 1, learner.save_state)

    run.finish({"steps": total, "prompts": len(kept)}, lambda folder: learner.save(folder, base=run.config["base"]))


def taught(prompt: Prompt, system: str) -> Prompt:
    """The prompt as the teacher sees it: under its own system message, which takes the place of any other."""
    if not system:
        return prompt
    rest = tuple(m for m in prompt.messages if m.role != "system")
    return dataclasses.replace(prompt, messages=(Message("system", system), *rest))


def open_teacher(config: Config, learner: Engine) -> Engine:
    """The teacher's engine. Raises `UserError` if there is nothing to learn from it, or its tokenizer is another."""
    if config.temperature <= 0:
        raise UserError(f"--temperature {config.temperature} is out of range.", "Distillation samples at one above 0.")
    name = config.teacher or config.model
    if name == config.model and not config.teacher_system:
        raise UserError("The teacher is the student: there is nothing to learn.", "Give --teacher, or --teacher-system.")
    locate(name)
    loaded = load(name)
    if loaded.template.hash != learner.template.hash or loaded.model.config.vocab_size != learner.model.config.vocab_size:
        raise UserError(f"The teacher {name} has another tokenizer or template than {config.model}.",
                        "Token by token only models that share both can be compared.")
    return Engine(loaded, dtype=config.dtype, train=False, tokens_per_micro_batch=config.tokens_per_micro_batch,
                  shard=config.shard)
