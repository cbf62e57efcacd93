"""Simulated labelers: people with known values and known faults, so that what an estimator finds can be checked.

A labeler is a Plackett–Luce chooser. The utility of an option is what the labeler values in it (the truth) plus the
pull of its faults; perceived utility is `rationality · utility` plus Gumbel noise, and ranks follow it:

    P(a above b) = σ(rationality · (u_a − u_b))        a negative rationality ranks upside down

Faults beyond noise are separate and planted: a pull towards the first place, a pull towards length, slips (two
ranks exchanged), and careless answers (a random order, given fast).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.records import Choice, Judgment, Prompt
from harken.sandbox.gold import WEIGHTS, gold_parts
from harken.sandbox.rules import words

LENGTH_UNIT = 40
"""Words that count as one unit of length."""

CARELESS_PACE = 0.2
"""The share of the usual reading time that a careless answer takes."""


@dataclass(frozen=True)
class SimulatedLabeler:
    """One person. Every field is planted truth; `to_json` writes it down."""

    name: str
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS), hash=False)
    """What the labeler values: weights on the gold parts, and on "length" (in units of 40 words, at most 1.5)."""
    rationality: float = 12.0
    """β: how surely the better option wins. Scores lie within about 1, so 12 makes a gap of 0.1 a 77 % choice."""
    error_rate: float = 0.0
    """Chance that two of the ranks are exchanged by a slip."""
    position_bias: float = 0.0
    """Utility that the option shown first gets for being first."""
    length_bias: float = 0.0
    """Utility per unit of length that the labeler does not mean to give."""
    careless: float = 0.0
    """Chance of a random answer."""
    tie_width: float = 0.02
    """Options whose felt utilities differ by no more are tied when they are neighbours in the ranking."""
    seconds_per_word: float = 0.25
    group: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(WEIGHTS) - {"length"})
        if unknown:
            raise ValueError(f"no gold part is called {', '.join(unknown)}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def values(self, prompt: Prompt, options: Sequence[str]) -> np.ndarray:
        """What each option is truly worth to this labeler, no fault and no noise."""
        return np.array([self._value(prompt, text) for text in options])

    def _value(self, prompt: Prompt, text: str) -> float:
        parts = gold_parts(prompt, text) | {"length": _length(text)}
        return sum(weight * parts[name] for name, weight in self.weights.items())

    def judge(self, prompt: Prompt, options: Sequence[str], order: Sequence[int],
              rng: np.random.Generator) -> Judgment:
        """Ranks `options` as shown: `order[place]` is the option shown there. Ranks belong to `options`."""
        if sorted(order) != list(range(len(options))):
            raise ValueError(f"order {list(order)} does not show each of {len(options)} options once")
        felt = self.values(prompt, options) + self.length_bias * np.array([_length(o) for o in options])
        felt[order[0]] += self.position_bias
        seen = list(zip(options, felt.tolist()))
        noise = rng.gumbel(size=len(options))[[seen.index(s) for s in seen]]  # what is the same stays together
        careless = rng.random() < self.careless
        slip = rng.random() < self.error_rate
        first, second = rng.choice(len(options), size=2, replace=False)
        pace = rng.lognormal(0.0, 0.25)

        ranks = (1 + rng.permutation(len(options))).tolist() if careless else _ranks(
            self.rationality * felt + noise, felt, self.tie_width)
        if slip and not careless:
            ranks[first], ranks[second] = ranks[second], ranks[first]
        read = len(words(prompt.text)) + sum(len(words(o)) for o in options)
        seconds = (2.0 + self.seconds_per_word * read) * pace * (CARELESS_PACE if careless else 1.0)
        payload = {"completions": list(options), "ranks": ranks}
        return Judgment(prompt, "ranking", payload, self.name, dict(self.group), tuple(int(i) for i in order),
                        round(float(seconds), 2))


def _length(text: str) -> float:
    return min(1.5, len(words(text)) / LENGTH_UNIT)


def _ranks(perceived: np.ndarray, felt: np.ndarray, width: float) -> list[int]:
    """1 is best. Neighbours that feel the same share a rank."""
    best_first = np.argsort(-perceived, kind="stable")
    ranks, rank = [0] * len(perceived), 0
    for place, option in enumerate(best_first):
        before = best_first[place - 1]
        if place == 0 or abs(felt[option] - felt[before]) > width + 1e-12:
            rank += 1
        ranks[option] = rank
    return ranks


BRIEF_VALUES = dict(WEIGHTS) | {"brief": 0.35, "courtesy": 0.0, "length": -0.6}
WARM_VALUES = dict(WEIGHTS) | {"brief": 0.0, "courtesy": 0.45, "length": 0.6}


def crowd(seed: int = 0) -> list[SimulatedLabeler]:
    """Twelve people: careful ones, faulty ones, and two styles that truly disagree (`group["style"]`).

    Who has which fault is fixed; the seed varies how strong each one's rationality is, by up to a fifth.
    """
    rng = np.random.default_rng(seed)

    def person(name: str, style: str = "balanced", rationality: float = 12.0, **fields: Any) -> SimulatedLabeler:
        values = {"brief": BRIEF_VALUES, "warm": WARM_VALUES}.get(style, dict(WEIGHTS))
        beta = round(float(rationality * rng.uniform(0.8, 1.2)), 3)
        return SimulatedLabeler(name, values, beta, group={"style": style}, **fields)

    return [
        person("ana"), person("bo"), person("chen", rationality=20.0),
        person("noisy-dee", rationality=3.0),
        person("slips-eli", error_rate=0.2),
        person("careless-flo", careless=0.8),
        person("first-gus", position_bias=0.25),
        person("long-hana", length_bias=0.8),
        person("brief-ivo", style="brief"), person("brief-jun", style="brief"),
        person("warm-kai", style="warm"), person("warm-lea", style="warm"),
    ]


def upside_down(name: str = "upside-down") -> SimulatedLabeler:
    """Reads the scale the wrong way round: 1 for the worst. Not in `crowd`; add it where an adversary is wanted."""
    return SimulatedLabeler(name, rationality=-12.0, group={"style": "balanced"})


def make_judgments(prompts: Sequence[Prompt], samples: Sequence[Sequence[str]], labelers: Sequence[SimulatedLabeler],
                   rng: np.random.Generator, overlap: int = 1) -> list[Judgment]:
    """Each prompt's `samples` are ranked by `overlap` different labelers, each shown its own random order.

    Work is shared evenly: labelers are dealt like cards, a fresh shuffle whenever the pack is out.
    """
    if len(prompts) != len(samples):
        raise ValueError(f"{len(prompts)} prompts, {len(samples)} lists of samples")
    if not 1 <= overlap <= len(labelers):
        raise UserError(f"overlap is {overlap} with {len(labelers)} labelers",
                        "Choose an overlap from 1 to the number of labelers.")
    pack: list[int] = []
    judgments = []
    for prompt, options in zip(prompts, samples, strict=True):
        dealt: list[int] = []
        while len(dealt) < overlap:
            if not any(i not in dealt for i in pack):
                pack += rng.permutation(len(labelers)).tolist()
            dealt.append(pack.pop(next(k for k, i in enumerate(pack) if i not in dealt)))
        for i in dealt:
            order = rng.permutation(len(options)).tolist()
            judgments.append(labelers[i].judge(prompt, options, order, rng))
    return judgments


def make_comparisons(prompts: Sequence[Prompt], samples: Sequence[Sequence[str]],
                     labelers: Sequence[SimulatedLabeler], rng: np.random.Generator,
                     overlap: int = 1) -> list[Choice]:
    """What the judgments of `make_judgments` say about preference; use that where order and seconds matter."""
    choices = [j.choice() for j in make_judgments(prompts, samples, labelers, rng, overlap)]
    return [c for c in choices if c is not None]
