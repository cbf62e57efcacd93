"""A model under a prompt: an instruction, worked examples, or both; chosen by a reward. No gradient, no new weights.

    harken train prompting --model smollm2 --prompt hhh --out runs/hhh
    harken train prompting --model smollm2 --prompt hhh,mine.txt --shots demos.jsonl --n-shots 3 --search greedy
                           --reward runs/rm --data prompts.jsonl --out runs/prompted

The first thing to try. The run is a model for any command that samples, and a teacher whose prompt
`harken train distill --teacher runs/prompted` writes into weights. With --reward every candidate answers the prompts of
--data beside the bare model. One half of the prompts chooses; the figures come from the other half, which nothing was
chosen by: the best of many looks better than it is on what chose it.

--search greedy goes coordinate by coordinate through instruction, example 1 … k, takes the best value of each while it
raises the mean reward, and begins again until nothing does or --budget candidates were tried.

Leaves out: prompts that a model writes, soft prompts, gradients.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harken.core.config import MAX_TOKENS, RunConfig, setting
from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.protocols import Learner, PolicySampler, Reward
from harken.core.records import Demonstration, Message, Prompt
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.engines.policies import Prompted, penalised, read_policy, save_policy, under
from harken.loops.rollout import fitting_prompts
from harken.stats.intervals import mean_interval, paired_difference
from harken.store.files import read_demonstrations
from harken.store.splits import in_share
from harken.text.prompts import NONE, examples, read_context, shipped

LEARNS = False
State = tuple[str, tuple[int, ...]]
"""An instruction's name, and which demonstrations are its examples."""


@dataclass(frozen=True)
class Config(RunConfig):
    prompt: str = ""
    """Prompts with commas between them: hhh, qa, helpful, harmful, long, or a .txt or .json file of your own."""
    shots: str = setting("", names="file")
    """JSON Lines file of demonstrations to take examples from."""
    n_shots: int = setting(4, least=0)
    """Examples before the question, with --shots."""
    search: str = setting("none", one_of=("none", "greedy"))
    """How to choose examples and instruction: none (examples by the seed) or greedy (coordinate by coordinate)."""
    budget: int = setting(32, least=1)
    """Most candidates a search tries."""
    pool: int = setting(8, least=1)
    """Demonstrations a search chooses each example from."""
    reward: str = setting("", names="reward")
    """What chooses: a reward model's run directory, a scorer, or gold; without it one prompt is taken as it is."""
    aggregate: str = ""
    """How a reward model with groups makes one score: mean, group:NAME, worst or quantile:Q; empty is its shared head."""
    holdout: float = setting(0.5, least=0, most=1)
    """Share of the prompts of --data that choose nothing: the figures are theirs."""
    n: int = setting(2, least=1)
    """Answers to each prompt under each candidate."""
    max_tokens: int = setting(MAX_TOKENS, least=1)
    """Longest answer in tokens."""
    temperature: float = setting(1.0, least=0)
    """Sampling temperature."""
    missing_eos_penalty: float = setting(1.0, least=0)
    """Subtracted from the score of an answer that the token limit cut."""


TRIAL = {"data": "prompts", "shots": "examples", "n_shots": 2, "search": "greedy", "pool": 3, "budget": 6, "reward": "gold",
         "n": 1, "max_tokens": 8}


def needs_reward(config: Config) -> bool:
    return config.search != "none"


def needs_data(config: Config) -> bool:
    return bool(config.reward)


def files(config: Config) -> dict[str, str]:
    """Further files that a resumed run must find unchanged, by option."""
    return {f"prompt {name}": name for name in names(config) if name not in shipped()}


def names(config: Config) -> list[str]:
    return [name for name in dict.fromkeys(p.strip() for p in config.prompt.split(",")) if name and name != NONE]


def train(config: Config, learner: Learner, sampler: PolicySampler, reward: Reward | None, run: Run) -> None:
    """Chooses a prompt, or takes the one given, and writes the policy; `learner` is not trained."""
    if read_policy(config.model):
        raise UserError(f"{config.model} is a policy, not a model with weights.", "Prompt the model that it stands on.")
    prompts = [p for p, _ in fitting_prompts(config, learner, run)] if config.data else []
    book = Book(config, shots_of(config, prompts, run))
    given = book.given(config)
    if reward is None:
        if len(given) != 1:
            raise UserError(f"There are {len(given)} prompts and no reward to choose between them.",
                            "Give one --prompt (or --shots), or add --reward and --data.")
        learner.template.prompt_ids(under(book.messages(given[0]), Prompt.of("?")))  # a template may refuse it
        finish(config, book, given[0], {}, sampler, run)
        return
    bare: State = (NONE, ())
    trial = Trial(config, book, learner, sampler, reward, run, prompts)
    if config.search == "greedy":
        winner, means = greedy(config, book, trial)
    else:
        means = {s: float(np.nanmean(trial(s, "choose"))) if trial.fits(s) else -math.inf for s in (bare, *given)}
        winner = max(means, key=means.__getitem__)
    if left := [book.label(s) for s, m in means.items() if m == -math.inf]:
        run.note(f"Left out for want of room for {config.max_tokens} new tokens in {config.max_length}: {', '.join(left)}.")
    if winner == bare:
        run.note("No prompt tried does better than none where they were chosen: the run is the bare model.")
    shown = (bare, winner) if config.search == "greedy" else means
    report = {s: trial(s, "report") for s in dict.fromkeys(shown) if means[s] > -math.inf}
    finish(config, book, winner, {
        "prompts": {part: len(rows) for part, rows in trial.parts.items()}, "tried": len(means),
        "chosen_at": means[winner], "reward": interval(report[winner]), "gain": gain(report[winner], report[bare]),
        "candidates": {book.label(s): interval(x) for s, x in report.items()},
        "gains": {book.label(s): gain(x, report[bare]) for s, x in report.items() if s != bare}}, sampler, run)


def finish(config: Config, book: Book, chosen: State, result: dict[str, Any], sampler: PolicySampler, run: Run) -> None:
    messages = [m.to_json() for m in book.messages(chosen)]
    run.finish({"prompt": book.label(chosen), "messages": len(messages), **result}, lambda folder: save_policy(
        folder, "prompting", run.config["base"], sampler, prompt=book.label(chosen), messages=messages))


class Book:
    """The instructions and the demonstrations that candidates are made of."""

    def __init__(self, config: Config, shots: Sequence[Demonstration]) -> None:
        self.contexts = {NONE: (), **{name: read_context(name) for name in names(config)}}
        self.shots = list(shots)

    def given(self, config: Config) -> list[State]:
        """Each prompt of --prompt, with the first examples where there are any."""
        shots = tuple(range(min(config.n_shots, len(self.shots))))
        return [(name, shots) for name in (names(config) or ([NONE] if shots else []))]

    def messages(self, state: State) -> tuple[Message, ...]:
        name, shots = state
        return (*self.contexts[name], *examples([self.shots[i] for i in shots]))

    def label(self, state: State) -> str:
        shots = [str(i + 1) for i in state[1]]
        return state[0] + (f" + examples {' '.join(shots)}" if shots else "")


def shots_of(config: Config, prompts: Sequence[Prompt], run: Run) -> list[Demonstration]:
    """Demonstrations in an order of the seed, those left out that answer one of `prompts`."""
    if not config.shots:
        return []
    loaded = read_demonstrations(config.shots, skip_bad=config.skip_bad)
    asked = {p.text for p in prompts}
    usable = [d for d in loaded.records if d.prompt.text not in asked]
    if len(usable) < len(loaded.records):
        run.note(f"{len(loaded.records) - len(usable)} demonstrations answer prompts of --data: they are no examples.")
    if not usable:
        raise UserError(f"{config.shots} has no demonstration left to take as an example.", "Give others than those of --data.")
    random.Random(derive_seed(config.seed, "shots")).shuffle(usable)
    return usable


class Trial:
    """Scores candidates on the prompts that choose, or on those that report. What a killed run scored is not scored again:
    trials come in an order that follows from their own results."""

    def __init__(self, config: Config, book: Book, learner: Learner, sampler: PolicySampler, reward: Reward, run: Run,
                 prompts: Sequence[Prompt]) -> None:
        self.config, self.book, self.learner, self.sampler, self.reward, self.run = config, book, learner, sampler, reward, run
        held = [in_share(p.id, config.holdout, config.seed) for p in prompts]
        self.parts = {"choose": [p for p, out in zip(prompts, held) if not out],
                      "report": [p for p, out in zip(prompts, held) if out]}
        if min(map(len, self.parts.values())) < 2:
            raise UserError(f"{len(prompts)} prompts are too few to choose on some and report on others.",
                            "Give --data more prompts; --holdout is the share that reports.")
        resumed, self.step = run.resume(), 0
        self.known: dict[int, list[Any]] = {}
        for row in read_jsonl(run.path / "samples.jsonl") if resumed else []:
            self.known.setdefault(row["step"], []).append(row["reward"])

    def fits(self, state: State) -> bool:
        """Whether every prompt still has room for an answer under it."""
        prefix, room = self.book.messages(state), self.config.max_length - self.config.max_tokens
        return all(len(self.learner.template.prompt_ids(under(prefix, p))) <= room for part in self.parts.values() for p in part)

    def __call__(self, state: State, part: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Mean score of each prompt of the part, NaN where no answer has one. All candidates share the random numbers."""
        self.step += 1
        config, prompts, run = self.config, self.parts[part], self.run
        if self.step not in self.known:
            sampler = Prompted(self.sampler, self.book.messages(state))
            samples = sampler.sample(prompts, config.n, max_tokens=config.max_tokens, temperature=config.temperature,
                                   seed=derive_seed(config.seed, "prompting", part))
            scores = penalised(self.reward, prompts, samples, config.missing_eos_penalty)
            means = [mean([r for r in row if r is not None]) for row in scores]
            given = [m for m in means if m is not None]
            if not given:
                raise UserError("The reward gave none of the answers a score.", "Lower --max-tokens, or use another reward.")
            flat = [s for group in samples for s in group]
            run.log(self.step, **{f"reward_{part}": sum(given) / len(given)}, length=sum(len(s.ids) for s in flat) / len(flat),
                    eos_rate=sum(s.finished for s in flat) / len(flat))
            run.log_samples(self.step, ({**p.to_json(), "candidate": self.book.label(state), "completion": group[0].text,
                                         "reward": m} for p, group, m in zip(prompts, samples, means)))
            run.checkpoint(self.step, lambda folder: None)  # the logs are all there is to keep
            self.known[self.step] = means
        return np.array([math.nan if m is None else m for m in self.known[self.step]])


def greedy(config: Config, book: Book, trial: Trial) -> tuple[State, dict[State, float]]:
    """The best state found, and the mean reward of every state tried, on the prompts that choose.

    From the bare model, coordinate by coordinate (the instruction, then each example), the best value of one is taken if
    it raises the mean; again until a whole round changes nothing or `budget` states were tried.
    """
    current: State = (NONE, ())
    means: dict[State, float] = {}

    def value(state: State) -> float:
        if state not in means and (len(means) < config.budget):
            means[state] = float(np.nanmean(trial(state, "choose"))) if trial.fits(state) else -math.inf
        return means.get(state, -math.inf)

    places = config.n_shots if book.shots else 0
    changed = True
    while changed:
        changed = False
        for place in range(places + 1):
            options = neighbours(current, place, list(book.contexts), min(config.pool, len(book.shots)))
            best = max([current, *options], key=value)  # the first of equals: what is there stays
            changed = changed or best != current
            current = best
    return current, means


def neighbours(state: State, place: int, instructions: Sequence[str], pool: int) -> list[State]:
    """States that differ in one coordinate: place 0 is the instruction, place j the j-th example (replaced, removed or added)."""
    name, shots = state
    if place == 0:
        return [(other, shots) for other in instructions]
    if place > len(shots) + 1:
        return []
    before, after = shots[:place - 1], shots[place:]
    removed = [(name, before + after)] if place <= len(shots) else []
    return removed + [(name, (*before, i, *after)) for i in range(pool) if i not in shots]


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def interval(values: Any) -> dict[str, Any]:
    return mean_interval(values[~np.isnan(values)]).to_json()


def gain(values: Any, bare: Any) -> dict[str, Any]:
    """Mean difference from the bare model over the prompts that both have a score for."""
    both = ~np.isnan(values) & ~np.isnan(bare)
    return paired_difference(values[both], bare[both]).to_json()
