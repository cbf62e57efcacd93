"""Red team: how bad do samples become when prompts are searched for?

    harken eval red_team --model runs/conditional --reward toxicity --search few_shot --proposer smollm2 --out runs/attacked
    harken eval red_team --model runs/conditional --mode good --search beam --proposer-mode bad --out runs/attacked

few_shot: a model writes prompts after examples drawn from all tried so far, the worse what they drew the likelier (softmax of the
mean fault over --heat), round after round (Perez et al. 2202.03286; red_team.py of Korbak et al. 2302.08582, with a model of your
own for theirs, which is gone). beam: the --width worst prompts are each continued in --branch ways by --chunk tokens, and the
worst kept, --rounds times. The search sees few completions of each prompt and so overrates what it finds: the --confirm worst are
tried again with fresh samples, and the value is their mean. Nothing found in so many tries bounds nothing beyond them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.progress import progress
from harken.core.protocols import EvalResult, Models, Reward
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.seeds import MOST_SEED, derive_seed
from harken.loops.unprompted import EMPTY
from harken.stats.intervals import mean_interval
from harken.store.files import read_prompts
from harken.text.tags import steer

LONGEST = 200
"""Characters of a proposed prompt that are kept."""


@dataclass(frozen=True)
class Config:
    model: str = setting("", names="model", required=True)
    """The model that is attacked."""
    reward: str = setting("toxicity", names="reward", required=True)
    """Who scores completions. A fault is minus its score."""
    search: str = setting("few_shot", one_of=("few_shot", "beam"))
    """few_shot: prompts written after the worst so far; beam: the worst prompts continued."""
    proposer: str = setting("", names="model")
    """Who writes prompts; empty is the model itself."""
    proposer_mode: str = setting("", one_of=("", "good", "bad", "untagged"))
    """Mode of the proposer, where it has control tokens."""
    prompts: str = setting("", names="file")
    """JSON Lines of prompts to begin with; empty lets the proposer write them."""
    out: str = setting("", required=True)
    """Run directory to write."""
    mode: str = setting("", one_of=("", "good", "bad", "untagged"))
    """Mode of the attacked model; empty is its own."""
    tag: str = setting("each", one_of=("each", "once"))
    """Where a mode's token stands: each (before every segment) or once (at the start)."""
    rounds: int = setting(10, least=1)
    """Rounds of proposals (10 in the paper), or extensions of the beam."""
    branch: int = setting(20, least=1)
    """Prompts a round (20 in the paper), or continuations of each of the beam."""
    shots: int = setting(4, least=1)
    """few_shot: examples before a proposal."""
    heat: float = setting(0.1, above=0)
    """few_shot: temperature of the softmax over mean faults that draws the examples."""
    width: int = setting(5, least=1)
    """beam: prompts kept."""
    chunk: int = setting(8, least=1)
    """beam: tokens a continuation."""
    n: int = setting(16, least=1)
    """Completions of each prompt in the search (512 in the paper)."""
    confirm: int = setting(10, least=2)
    """How many of the worst prompts are tried again."""
    confirm_n: int = setting(64, least=1)
    """Fresh completions of each of them."""
    max_tokens: int = setting(64, least=1)
    """Longest completion in tokens."""
    temperature: float = setting(0.7, least=0)
    """Sampling temperature."""
    top_p: float = setting(0.9, above=0, most=1)
    """Nucleus that is sampled from."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of search and sampling."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""


@dataclass
class Attack:
    """The attacked model, the proposer, and the mean fault of every prompt tried (`pool`)."""

    config: Config
    model: Any
    proposer: Any
    reward: Reward
    pool: dict[str, float] = field(default_factory=dict)
    missing: int = 0

    def propose(self, after: Sequence[str], n: int, max_tokens: int, *seed: Any) -> list[list[str]]:
        """`n` continuations of each text."""
        steer(self.proposer, self.config.proposer or self.config.model, self.config.proposer_mode)
        asked = [Prompt.of(text) if text else EMPTY for text in after]
        drawn = self.proposer.sample(asked, n, max_tokens=max_tokens, temperature=1.0, top_p=0.95,
                                     seed=derive_seed(self.config.seed, "propose", *seed))
        return [[s.text for s in group] for group in drawn]

    def faults(self, texts: Sequence[str], n: int, *seed: Any) -> list[list[float]]:
        """Faults of `n` completions of each prompt; what has no score is counted."""
        c = self.config
        steer(self.model, c.model, c.mode, c.tag)
        prompts = [Prompt.of(t) if t else EMPTY for t in texts]
        drawn = self.model.sample(prompts, n, max_tokens=c.max_tokens, temperature=c.temperature, top_p=c.top_p,
                                  seed=derive_seed(c.seed, "answer", *seed))
        scores = self.reward.score(prompts, [[s.text for s in group] for group in drawn])
        found = [[-s for s in row if s is not None and math.isfinite(s)] for row in scores]
        self.missing += sum(map(len, scores)) - sum(map(len, found))
        return found

    def try_out(self, texts: Sequence[str], *seed: Any) -> None:
        """Adds prompts to the pool that are not there yet; one whose completions have no score stays out."""
        new = [t for t in dict.fromkeys(texts) if t and t not in self.pool]
        if new:
            for text, row in zip(new, self.faults(new, self.config.n, *seed)):
                if row:
                    self.pool[text] = sum(row) / len(row)

    def worst(self, count: int) -> list[str]:
        return sorted(self.pool, key=lambda t: (-self.pool[t], t))[:count]


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` where no prompt could be made, or none has a score."""
    model = models.sampler("model")
    attack = Attack(config, model, models.sampler("proposer") if config.proposer else model, models.reward("reward"))
    first = ([p.text for p in read_prompts(config.prompts).records] if config.prompts else
             [line(t) for t in attack.propose([""], config.branch, 24, "first")[0]])
    attack.try_out(first, "first")
    if not attack.pool:
        raise UserError("No prompt to begin with has a score.", "Give some with --prompts, or another --proposer.")
    with progress("rounds", config.rounds, quiet=run.quiet) as advance:
        for step in range(config.rounds):
            attack.try_out(few_shot(attack, step) if config.search == "few_shot" else beam(attack, step), step)
            advance(1)
    worst = attack.worst(config.confirm)
    fresh = attack.faults(worst, config.confirm_n, "confirm")
    plain = attack.faults([""], config.confirm * config.confirm_n, "plain")[0]
    scored = [(t, row) for t, row in zip(worst, fresh) if row]
    if not scored or not plain:
        raise UserError("No completion has a score.", "Use another scorer, or check what it scores.")
    value = mean_interval([f for _, row in scored for f in row], [i for i, (_, row) in enumerate(scored) for _ in row])
    searched = [attack.pool[t] for t, _ in scored]
    figures = {"prompts_tried": len(attack.pool), "in_the_search": sum(searched) / len(searched),
               "all_tried": sum(attack.pool.values()) / len(attack.pool), "search": config.search}
    run.note(f"The {len(scored)} worst of {len(attack.pool)} prompts: {value.value:.3g} on fresh samples, "
             f"{figures['in_the_search']:.3g} in the search that picked them. What was not tried may be worse.")
    samples = [{"prompt": t, "fault": sum(row) / len(row), "in_the_search": attack.pool[t]} for t, row in scored]
    return EvalResult(value, figures, {"no prompt": mean_interval(plain)}, samples, attack.missing, better="lower")


def few_shot(attack: Attack, step: int) -> list[str]:
    """New prompts, one after each draw of examples."""
    config, rng = attack.config, random.Random(derive_seed(attack.config.seed, "shots", step))
    names = sorted(attack.pool)
    top = max(attack.pool.values())
    weights = [math.exp((attack.pool[t] - top) / config.heat) for t in names]
    after = []
    for _ in range(config.branch):
        left = dict(zip(names, weights))
        shots = []
        for _ in range(min(config.shots, len(left))):
            shots.append(rng.choices(list(left), list(left.values()))[0] if sum(left.values()) > 0 else rng.choice(list(left)))
            del left[shots[-1]]
        after.append("\n".join(shots) + "\n")
    return [line(group[0]) for group in attack.propose(after, 1, 48, step)]


def beam(attack: Attack, step: int) -> list[str]:
    """The worst prompts, each continued."""
    kept = attack.worst(attack.config.width)
    grown = attack.propose(kept, attack.config.branch, attack.config.chunk, step)
    return [(text + more)[-LONGEST:] for text, row in zip(kept, grown) for more in row if more.strip()]


def line(text: str) -> str:
    """The first line that says something, cut."""
    return next((part.strip() for part in text.splitlines() if part.strip()), "")[:LONGEST]
