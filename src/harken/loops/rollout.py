"""One step's experience: completions sampled from the learner, scored, and compared with the reference.

    steps = PromptSteps(config, learner, run, "rloo")
    for step, batch in steps:
        rolled = rollout(config, learner, sampler, reward, batch, step)
        data = weighted(rolled.data(leave_one_out(rolled.scores_PG)), "sequence_sum")
        gap = Gap()
        metrics = learn(learner, data, loss, config, gap) | learner.step(steps.rate(step))
        steps.log(step, rolled, metrics, **gap.check(learner.compute))
    steps.finish()

Shape suffixes: P prompts, G completions a prompt, N completion tokens of all of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from harken.core import processes
from harken.core.config import RolloutConfig, SampleConfig
from harken.core.errors import UserError
from harken.core.protocols import Datum, Ensemble, Learner, Loss, Resumable, Reward, Rollouts, Sample, Tree
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.engines.policies import less_penalty
from harken.engines.profile import timed
from harken.loops import ahead
from harken.loops.foreign import corrected, foreign
from harken.loops.steps import Steps
from harken.objectives.policy_gradient import token_weights
from harken.store.files import read_prompts

Tokenised = tuple[Prompt, tuple[int, ...]]


@dataclass
class Rollout:
    """`scores_PG` are the reward's less the penalties of no end and of no text; `kl_PG` is Σ_t log π - log π_ref;
    `spread_PG` is how far an ensemble's members disagree, None of one reward."""

    prompts: list[Prompt]
    trees: list[Tree]
    samples_PG: list[list[Sample]]
    scores_PG: Tensor
    ref_N: Tensor
    kl_PG: Tensor
    spread_PG: Tensor | None = None
    unscored: int = 0
    """Completions that the reward could not score: their prompts' groups are left out of the step."""
    trainer_N: Tensor | None = None
    """The trainer's own log-probs, where another engine sampled; None where the sampler's are the trainer's."""
    correction_N: Tensor | None = None
    """The weight that corrects the difference (objectives/mismatch.py)."""
    compared: bool = True
    """False where the reference was not computed, as nothing asked for it: `ref_N` and `kl_PG` are 0 then, and not logged."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What is to be logged of it."""

    def only(self, whole: Tensor) -> Rollout:
        """The groups where `whole` ([P], bool) is true. Of the others nothing is learnt: a comparison within a group needs every
        score, and none is made up."""
        index = whole.nonzero().flatten().tolist()
        sizes = [sum(len(s.ids) for s in group) for group in self.samples_PG]

        def of(values: list[Any]) -> list[Any]:
            return [values[i] for i in index]

        def tokens(values_N: Tensor | None) -> Any:
            return None if values_N is None else torch.cat(of(list(values_N.split(sizes))))

        return replace(self, prompts=of(self.prompts), trees=of(self.trees), samples_PG=of(self.samples_PG),
                       scores_PG=self.scores_PG[index], ref_N=tokens(self.ref_N), kl_PG=self.kl_PG[index],
                       spread_PG=None if self.spread_PG is None else self.spread_PG[index],
                       unscored=int(self.scores_PG.isnan().sum()), trainer_N=tokens(self.trainer_N),
                       correction_N=tokens(self.correction_N))

    @property
    def samples(self) -> list[Sample]:
        return [s for group in self.samples_PG for s in group]

    @property
    def lengths(self) -> list[int]:
        return [len(s.ids) for s in self.samples]

    @property
    def mean_length(self) -> float:
        return sum(self.lengths) / len(self.samples)

    @property
    def old_N(self) -> Tensor:
        """Log-probs of the policy that sampled: the sampler's own, or the trainer's where another engine sampled for it."""
        return self.trainer_N if self.trainer_N is not None else torch.tensor([logp for s in self.samples for logp in s.logps])

    def data(self, advantages: Tensor, **tokens: Tensor) -> list[Datum]:
        """What a policy loss needs, a datum a prompt: `old`, `advantages` ([P, G], or [N] where they differ by token),
        and further [N] `tokens`. `weighted` adds the weights."""
        if advantages.dim() == 2:
            advantages = advantages.reshape(-1).repeat_interleave(torch.tensor(self.lengths))
        if self.correction_N is not None:  # a weight above 0 of a token's advantage is that of its loss, clipped or not
            advantages = advantages * self.correction_N
        flat = {"old": self.old_N, "advantages": advantages, **tokens}
        sizes = [sum(len(s.ids) for s in group) for group in self.samples_PG]
        parts = {name: torch.split(value, sizes) for name, value in flat.items()}
        return [Datum(tree, {name: part[i].tolist() for name, part in parts.items()}) for i, tree in enumerate(self.trees)]

    def describe(self) -> dict[str, float]:
        """Reward, KL (nats a completion, where the reference was computed), length, share finished, groups without signal,
        repetition, r(reward, length), and an ensemble's disagreement.

        Raises `UserError` on a KL clearly below 0 (P6).
        """
        samples, kl = self.samples, self.kl_PG
        error = float(kl.std()) / math.sqrt(kl.numel()) if kl.numel() > 1 else math.inf
        # Student's t: few completions often agree on a small negative number by chance. One false alarm in a million steps.
        stale = self.figures.get("staleness", 0.0) > 0  # of what older weights said, log π - log π_ref may be below 0
        if not stale and float(kl.mean()) < float(stdtrit(max(1, kl.numel() - 1), 1e-6)) * error - 0.01:
            raise UserError(f"The KL to the reference is estimated at {float(kl.mean()):.3f} ± {error:.3f}, below 0.",
                            "Sampling and scoring disagree; run harken doctor and report this.")
        spread = self.scores_PG.std() if self.scores_PG.numel() > 1 else torch.zeros(())
        flat = (self.scores_PG == self.scores_PG[:, :1]).all(1) if self.scores_PG.shape[1] > 1 else torch.zeros(1)
        return {"reward": float(self.scores_PG.mean()), "reward_std": float(spread),
                **({"kl": float(kl.mean())} if self.compared else {}),
                "length": self.mean_length, "eos_rate": sum(s.finished for s in samples) / len(samples),
                "repetition": sum(map(repetition, samples)) / len(samples), "flat_groups": float(flat.sum()),
                "flat_share": float(flat.float().mean()), **self._beside_reward(), **self.figures}

    def _beside_reward(self) -> dict[str, float]:
        """What only some steps have: a correlation needs both to vary, disagreement an ensemble."""
        figures: dict[str, float] = {"unscored": float(self.unscored)} if self.unscored else {}
        pair = torch.stack([self.scores_PG.reshape(-1).double(), torch.tensor(self.lengths).double()])
        if pair.shape[1] > 2 and bool((pair.std(1) > 0).all()):
            figures["reward_length_r"] = float(torch.corrcoef(pair)[0, 1])
        if self.spread_PG is not None:
            figures["disagreement"] = float(self.spread_PG.mean())
        return figures

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The first `count` completions for samples.jsonl."""
        return [{**p.to_json(), "completion": s.text, "reward": r, "kl": k if self.compared else None}
                for p, group, rs, ks in zip(self.prompts, self.samples_PG, self.scores_PG.tolist(), self.kl_PG.tolist())
                for s, r, k in zip(group, rs, ks)][:count]


def weighted(data: Sequence[Datum], aggregation: str, max_tokens: int = 0, keep: Sequence[bool] | None = None) -> list[Datum]:
    """The data of one optimiser step with `weights`: what the loss divides by counts this step's completions and tokens."""
    weights = iter(token_weights([len(c) for d in data for c in d.tree.completions], aggregation, max_tokens, keep))
    return [Datum(d.tree, {**d.inputs, "weights": list(islice(weights, sum(map(len, d.tree.completions))))}) for d in data]


def minibatches(n: int, parts: int, seed: int) -> list[list[int]]:
    """0 … n - 1 in random order, cut into `parts` of nearly equal size (fewer where n is smaller)."""
    order = list(range(n))
    random.Random(seed).shuffle(order)
    parts = min(parts, n)
    return [order[k * n // parts:(k + 1) * n // parts] for k in range(parts)]


def passes(config: Any, n: int, step: int) -> Iterator[list[int]]:
    """The `minibatches` of --epochs-per-step passes over the step's `n` prompts, each pass in an order of its own."""
    for epoch in range(config.epochs_per_step):
        yield from minibatches(n, config.minibatches, derive_seed(config.seed, "minibatch", step, epoch))


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each metric's mean over the optimiser steps that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row[name] for row in rows if name in row) / sum(name in row for row in rows) for name in names}


def repetition(sample: Sample) -> float:
    """Share of a completion's 3-grams of tokens that occurred in it before."""
    grams = list(zip(sample.ids, sample.ids[1:], sample.ids[2:]))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def fitting_prompts(config: Any, learner: Learner, run: Run, seen: Callable[[Prompt], Prompt] = lambda p: p) -> list[Tokenised]:
    """The prompts of `config.data` that leave room for `config.max_tokens` more, with the ids of what the model sees of
    them; what was dropped is said (P29)."""
    loaded = read_prompts(config.data, **config.reading)
    if note := loaded.describe():
        run.note(note)
    every = [(p, learner.template.prompt_ids(seen(p))) for p in loaded.records]
    for note in learner.template.counted():
        run.note(note)
    fitting = [(p, ids) for p, ids in every if len(ids) + config.max_tokens <= config.max_length]
    if len(fitting) < len(every):
        run.note(f"Dropped {len(every) - len(fitting)} of {len(every)} prompts: with {config.max_tokens} new tokens they exceed "
                 f"--max-length {config.max_length}.")
    return run.watch.set_aside(fitting) if run.watch else fitting


def need_groups(config: SampleConfig, method: str) -> None:
    """Raises `UserError` where a prompt's completions have nothing to be compared with, or are all the same."""
    if config.completions_per_prompt < 2 or config.temperature <= 0:
        raise UserError(f"{method} needs at least 2 completions a prompt and a temperature above 0; found "
                        f"{config.completions_per_prompt} and {config.temperature}.",
                        "Raise --completions-per-prompt or --temperature.")


@contextmanager
def awake(sampler: Rollouts, version: int) -> Iterator[Rollouts]:
    """The sampler, ready to speak with the learner's present weights, which have learnt `version` steps."""
    sampler.wake()
    sampler.update(version)
    yield sampler
    sampler.sleep()


def sample_step(config: SampleConfig, sampler: Rollouts, prompts: Sequence[tuple[int, ...]], n: int, version: int,
                seed: int) -> list[list[Sample]]:
    """`n` completions of each prompt at the temperature that the learner scores them at (P2). Raises `UserError` where weights
    spoke that are more than `config.max_staleness` versions older than `version`: their log-probs are not the learner's (P4)."""
    with awake(sampler, version):
        samples_PG = sampler.sample_ids(prompts, n, max_tokens=config.max_tokens, temperature=config.temperature, seed=seed)
    oldest = version - getattr(config, "max_staleness", 0)
    if stale := [s.version for group in samples_PG for s in group if not oldest <= s.version <= version]:
        raise UserError(f"{len(stale)} completions are of the weights after step {stale[0]}, and the learner is at {version}.",
                        "Training on would be silently off-policy: report this.")
    return samples_PG


def rollout(config: RolloutConfig, learner: Learner, sampler: Rollouts, reward: Reward, batch: Sequence[Tokenised],
            step: int) -> Rollout:
    """Samples, scores, and takes the reference's log-probs, at one temperature throughout (P2)."""
    prompts, ids = [p for p, _ in batch], [i for _, i in batch]
    samples_PG = sample_step(config, sampler, ids, config.completions_per_prompt, step, derive_seed(config.seed, "rollout", step))
    trees = [Tree(p, tuple(s.ids for s in group)) for p, group in zip(ids, samples_PG)]
    samples = [s for g in samples_PG for s in g]
    other = corrected(config, learner, trees, samples, step) if foreign(sampler) or config.max_staleness else {}
    logps = [x.tolist() for x in other["trainer_N"].split([len(s.ids) for s in samples])] if other else [s.logps for s in samples]
    compared = asks_reference(config, step)
    if compared:
        ref = [x.cpu() for tree in learner.logprobs(trees, temperature=config.temperature, reference=True) for x in tree]
        kl = [sum(said) - float(x.sum()) for said, x in zip(logps, ref)]
    else:
        ref, kl = [torch.zeros(len(s.ids)) for s in samples], [0.0] * len(samples)
    scores_PG, spread_PG = score(reward, prompts, samples_PG, config)
    whole = (~scores_PG.isnan()).all(1)
    kl_PG = torch.tensor(kl).view_as(scores_PG)
    rolled = Rollout(prompts, trees, samples_PG, scores_PG, torch.cat(ref), kl_PG, spread_PG, compared=compared, **other)
    return rolled if bool(whole.all()) else rolled.only(whole)


def asks_reference(config: RolloutConfig, step: int) -> bool:
    """Whether a step computes the reference: where β weighs the KL or may come to (PPO's --kl-target), where a rule or the method
    (one without β) watches it, and else only every --monitor-every steps, to log it."""
    if getattr(config, "beta", 1.0) > 0 or getattr(config, "kl_target", 0.0) > 0 or "kl" in config.stop_when:
        return True
    return step % config.monitor_every == 0


@timed("scoring")
def score(reward: Reward, prompts: list[Prompt], samples_PG: list[list[Sample]],
          config: RolloutConfig) -> tuple[Tensor, Tensor | None]:
    """Scores [P, G], NaN where there is none, clipped if asked, less the penalties of no end (P14) and of no text; and an
    ensemble's disagreement. Raises `UserError` where no prompt has all its scores."""
    texts = [[s.text for s in group] for group in samples_PG]
    scores: Sequence[Sequence[float | None]]
    if isinstance(reward, Ensemble):
        scores, spread = processes.group().agree(reward.score_and_disagreement(prompts, texts))
    else:
        scores, spread = processes.group().agree(reward.score(prompts, texts)), None
    scores_PG = torch.tensor([[math.nan if r is None or not math.isfinite(r) else r for r in group] for group in scores],
                             dtype=torch.float32)
    if not bool((~scores_PG.isnan()).all(1).any()):
        raise UserError("The reward gave no score, or none that is finite, for a completion of every prompt of this step.",
                        "Lower --max-tokens, correct the function, or use a reward of greater length.")
    if config.reward_clip > 0:
        scores_PG = scores_PG.clamp(-config.reward_clip, config.reward_clip)
    cut_PG = torch.tensor([[not s.finished for s in group] for group in samples_PG])
    if config.empty_penalty > 0:
        scores_PG -= config.empty_penalty * torch.tensor([[not s.text.strip() for s in group] for group in samples_PG])
    spread_PG = None if spread is None else torch.tensor([[math.nan if s is None else s for s in group] for group in spread],
                                                         dtype=torch.float32)
    return less_penalty(scores_PG, cut_PG, config.missing_eos_penalty), spread_PG


class Gap:
    """How far the trainer's log-probs are from the sampler's for the same tokens and weights (P4)."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []

    def add(self, difference_N: Tensor) -> None:
        self.parts.append(difference_N.cpu())

    def check(self, dtype: torch.dtype) -> dict[str, float]:
        gap_N = torch.cat(processes.group().gather(torch.cat([torch.empty(0), *self.parts])))
        ratio, gap = gap_N.exp(), gap_N.abs()
        allowed = 1e-3 if dtype is torch.float32 else 0.1
        mean = float(gap.mean())
        if mean > allowed:
            raise UserError(f"Sampler and trainer disagree: mean |log-prob gap| {mean:.4f} over {allowed}.",
                            "Training on would be silently off-policy. Use --dtype float32, and report this.")
        return {"logprob_gap": mean, "logprob_gap_max": float(gap.max()),
                "ratio_outside": float(((ratio > 1.1) | (ratio < 0.9)).float().mean())}


PolicyLoss = Callable[[Any, Any], Loss]


def learn(learner: Learner, data: Sequence[Datum], loss: PolicyLoss, config: SampleConfig, gap: Gap | None = None
          ) -> dict[str, float]:
    """Adds the gradient of a policy's loss over sampled completions, at the temperature of sampling. Further metrics: the
    weighted sum of the tokens' `entropy`; and `gap` hears how far the log-probs are from the sampler's."""
    def objective(out: Any, x: Any) -> Loss:
        if gap is not None:
            gap.add(out.logps_N.detach() - x["old"])
        value, metrics = loss(out, x)
        return value, {**metrics, "entropy": (x["weights"] * out.entropy_N).sum()}

    return learner.forward_backward(data, objective, temperature=config.temperature, entropy=True)


class PromptSteps(Steps[Tokenised]):
    """Steps over the prompts of --data that fit: (step, [(prompt, the ids of what the model sees of it)])."""

    def __init__(self, config: SampleConfig, learner: Learner, run: Run, label: str, *, state: Resumable | None = None,
                 seen: Callable[[Prompt], Prompt] = lambda p: p) -> None:
        if run.ahead is not None:
            run.ahead.coming = self._coming
            state = ahead.State(state or learner, run.ahead)
        super().__init__(run, learner, fitting_prompts(config, learner, run, seen), config, label, size=config.prompts_per_step,
                         state=state)
        self.samples_per_step = config.samples_per_step
        if isinstance(config, RolloutConfig) and not all(asks_reference(config, step) for step in range(config.monitor_every)):
            run.note(f"β is 0: the reference is computed every {config.monitor_every} steps alone, to log the KL.")

    def _coming(self, step: int) -> ahead.Coming | None:
        """What `rollout` will sample at a step."""
        if step >= self.total:
            return None
        return [self.items[i][1] for i in self.order(step)], derive_seed(self.config.seed, "rollout", step)

    def log(self, step: int, rolled: Rollout, metrics: dict[str, float], **further: float) -> None:
        """The row of a step, and some of its completions."""
        self.run.log(step + 1, **metrics, **rolled.describe(), **further)
        self.run.log_samples(step + 1, rolled.rows(self.samples_per_step))

    def finish(self, **result: Any) -> None:
        super().finish(prompts=len(self.items), **result)
