"""Distillation: a student learns what a teacher thinks, token by token, of what either of them writes.

    harken train distill --model smollm2 --teacher runs/rloo --data prompts.jsonl --out runs/student
    harken train distill --model smollm2 --teacher runs/prompted --direction forward --data prompts.jsonl --out runs/student

    reverse   KL(student ‖ teacher) on the student's own samples (2306.13649; MiniLLM, 2306.08543): it goes where the
              teacher is sure and leaves out what it cannot copy. A policy gradient in which every token's advantage is
              its own log-ratio less that of the other completions' tokens, b:
              loss = -mean over tokens of (log π_teacher(n) - log π_old(n) - b) ρ_n,   ρ_n = π(n) / π_old(n)
    forward   KL(teacher ‖ student) on the teacher's samples: it covers all that the teacher does.
              loss = -mean over tokens of log π(n), the teacher's entropy being a constant

1. In reverse a token is judged by its own ratio alone (discount 0): the part of the gradient that says how a token
   changes later ratios is left out, which is biased and of far lower variance.
2. A teacher that is a run of prompting, or --teacher-system, sees messages that the student does not: context
   distillation (2112.00861, which is forward), which writes a prompt into the weights. The teacher may then be the
   student's own starting point.
3. --replay mixes plain text into every step, so that what was known stays.
4. Teacher and student share a tokenizer; else it is refused.

Leaves out: the whole distribution at each token (2112.00861 takes the 50 likeliest), a mix of both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from harken.core.config import SampleConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import Datum, Learner, Loss, Rollouts, Tree
from harken.core.records import Message
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.engines.places import locate
from harken.engines.policies import read_policy, under
from harken.loops.replay import learn_text, open_replay
from harken.loops.rollout import Gap, PromptSteps, Rollout, learn, sample_step, weighted
from harken.objectives.policy_gradient import clipped, less_the_others
from harken.objectives.supervised import nll


@dataclass(frozen=True)
class Config(SampleConfig):
    teacher: str = setting("", names="model")
    """Whose distribution to learn: a run, a folder, a hub id; without it the model itself, with --teacher-system."""
    teacher_system: str = ""
    """A system prompt for the teacher alone: its effect is written into the student's weights."""
    direction: str = setting("reverse", one_of=("reverse", "forward"))
    """Which divergence: reverse (on the student's samples) or forward (on the teacher's)."""
    prompts_per_step: int = setting(16, least=1)
    """Prompts sampled in one step."""
    completions_per_prompt: int = setting(2, least=1)
    """Completions of each prompt."""
    clip: float = setting(0.0, least=0)
    """Clip range of the importance ratio, in reverse; 0 does not clip."""
    replay: str = setting("", names="file")
    """Plain text to go on learning (documents separated by blank lines, or JSON Lines with "text")."""
    replay_share: float = 0.1
    """Share of each step's tokens that are text, with --replay."""


TRIAL = {"data": "prompts", "teacher_system": "Be brief.", "max_tokens": 8, "steps": 7, "prompts_per_step": 4,
         "learning_rate": 1e-3}


def train(config: Config, learner: Learner, sampler: Rollouts, reward: Any, run: Run) -> None:
    """Trains `learner` towards the teacher; `reward` is not used."""
    teacher, context = open_teacher(config, learner)
    steps = PromptSteps(config, learner, run, "distill", seen=lambda prompt: under(context, prompt))
    forward = config.direction == "forward"
    source, other = (sampler.of(teacher), learner) if forward else (sampler, teacher)
    replay = open_replay(config, learner)

    for step, batch in steps:
        asked = [learner.template.prompt_ids(prompt) for prompt, _ in batch]
        seen = [ids for _, ids in batch]
        seen_by_source, seen_by_other = (seen, asked) if forward else (asked, seen)
        samples_PG = sample_step(config, source, seen_by_source, config.completions_per_prompt, step,
                                 derive_seed(config.seed, "rollout", step))
        answers = [tuple(s.ids for s in group) for group in samples_PG]
        logps = other.logprobs([Tree(ids, a) for ids, a in zip(seen_by_other, answers)], temperature=config.temperature)
        other_N = torch.cat([x.cpu() for tree in logps for x in tree])
        kl = torch.tensor([sum(s.logps) - float(x.sum()) for s, x in zip((s for g in samples_PG for s in g),
                                                                      (x for tree in logps for x in tree))])
        kl_PG = kl.view(len(batch), -1)
        rolled = Rollout([prompt for prompt, _ in batch], [Tree(ids, a) for ids, a in zip(asked, answers)], samples_PG,
                         -kl_PG, other_N, kl_PG)
        text = replay.batch(step, len(other_N)) if replay else []
        share = config.replay_share if text else 0.0
        metrics = (forward_loss if forward else reverse_loss)(learner, rolled, config, 1 - share)
        metrics |= learn_text(learner, text, share) if text else {}
        metrics |= learner.step(steps.rate(step))
        steps.log(step, rolled, metrics, kl_token=float(kl.sum()) / len(other_N))
    steps.finish()


def reverse_loss(learner: Learner, rolled: Rollout, config: Config, scale: float) -> dict[str, float]:
    """Adds the gradient on the student's samples: the advantage of a token is its own log-ratio to the teacher,
    less the mean of the other completions' tokens."""
    data = weighted(rolled.data(less_the_others(rolled.ref_N - rolled.old_N, rolled.lengths)), "token_mean")
    gap = Gap()

    def loss(out: Any, x: Any) -> Loss:
        return scale * clipped(out.logps_N, x["old"], x["advantages"], x["weights"], config.clip)[0], {}

    return learn(learner, data, loss, config, gap) | gap.check(learner.compute)


def forward_loss(learner: Learner, rolled: Rollout, config: Config, scale: float) -> dict[str, float]:
    """Adds the gradient on the teacher's samples: their mean negative log-likelihood under the student."""
    weight = 1 / len(rolled.ref_N)
    data = [Datum(t, {"weights": [weight] * sum(map(len, t.completions))}) for t in rolled.trees]

    def objective(out: Any, x: Any) -> Loss:
        loss, metrics = nll(out.logps_N, x["weights"])
        return scale * loss, metrics

    return learner.forward_backward(data, objective, temperature=config.temperature)


def open_teacher(config: Config, learner: Learner) -> tuple[Learner, tuple[Message, ...]]:
    """The teacher, and the messages that it alone sees. Raises `UserError` if there is nothing to learn from it,
    or its tokenizer is another."""
    if config.temperature <= 0:
        raise UserError(f"--temperature {config.temperature} is out of range.", "Distillation samples at one above 0.")
    name = config.teacher or config.model
    context: tuple[Message, ...] = (Message("system", config.teacher_system),) if config.teacher_system else ()
    locate(name)
    if policy := read_policy(name):
        if policy.kind != "prompting":
            raise UserError(f"{name} chooses among samples: it gives no token a probability to learn.",
                            "harken train expert_iteration learns from the best of n.")
        if context:
            raise UserError(f"{name} brings a prompt of its own.", "Leave --teacher-system out, or name the model below it.")
        name, context = policy.base, policy.messages
    if name == config.model and not context:
        raise UserError("The teacher is the student: there is nothing to learn.", "Give --teacher, or --teacher-system.")
    teacher = learner.beside(name, template=config.template)
    if policy:
        policy.check_base(config.teacher, teacher.lineage)
    if teacher.template.hash != learner.template.hash or teacher.vocabulary != learner.vocabulary:
        raise UserError(f"The teacher {name} has another tokenizer or template than {config.model}.",
                        "Token by token only models that share both can be compared.")
    return teacher, context
