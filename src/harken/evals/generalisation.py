"""Generalisation: what a model learnt on some use cases or in one language, does it show on others?

    harken eval generalisation --model runs/rloo --against runs/sft --out runs/languages
    harken eval generalisation --model runs/rloo --against runs/sft --prompts natural.jsonl --trained train.jsonl \
      --reward runs/rm --out runs/shift

Without files: the same questions in six languages, checked by what a right answer has; English counts as seen. With --prompts
a reward scores the answers, by use case (or language, or tag); seen are the groups that --trained or --seen names. The value is
the mean on the held-out groups less the mean on the seen ones; with --against, of the change from the other model (after less
before): below 0, the change stays behind where nothing was trained. `harken eval pilot` measures the remedy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harken.core.config import EvalConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, EvalResult, Models
from harken.core.records import Prompt
from harken.core.run import Run
from harken.loops.groups import KINDS, grouped
from harken.loops.items import Answer, difference_of, mean_of, note_missing, read_items, take
from harken.stats.intervals import mean_interval, paired_difference
from harken.stats.testing import holm, p_value
from harken.store.files import read_prompts

CONSTANT = "I'm happy to help with that."


@dataclass(frozen=True)
class Config(EvalConfig):
    prompts: str = setting("", names="file")
    """JSON Lines of prompts with use_case, language or tags; empty is the set of questions in six languages that ships."""
    trained: str = setting("", names="file")
    """What the model was trained on, in the same layout: its groups count as seen."""
    seen: str = ""
    """Groups that count as seen, with commas between them."""
    by: str = setting("use_case", one_of=KINDS)
    """What makes a group: use_case, language or tag."""
    reward: str = setting("", names="reward")
    """Who scores the answers to --prompts."""
    max_tokens: int = setting(48, least=1)
    """Longest answer in tokens."""
    limit: int = setting(0, least=0)
    """Most prompts, drawn at random with the seed; 0 is all."""


@dataclass(frozen=True)
class Item:
    """A prompt in its group; `content` is what it has in common with prompts of other groups, `right` a pattern of a right
    answer."""

    prompt: Prompt
    group: str
    content: str = ""
    right: str = ""


@dataclass(frozen=True)
class Split:
    seen: frozenset[str]
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share of each group in what was trained and in what is asked."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` where all groups are seen, or none."""
    items = take(load(config, run), config.limit, config.seed)
    split = split_of(config, items)
    reward = models.reward("reward") if config.prompts else None
    scores: dict[str, list[float | None]] = {}
    found: dict[str, list[Answer]] = {}
    for name in [n for n in ("model", "against") if getattr(config, n)]:
        found[name] = models.stored(name).answers([i.prompt for i in items], max_tokens=config.max_tokens)
        scores[name] = scored(items, [a.text for a in found[name]], reward)
    figures: dict[str, Any] = {"seen_groups": ", ".join(sorted(split.seen))}
    if split.shares:
        figures["shares"] = split.shares
        figures["total_variation"] = sum(abs(s["trained"] - s["asked"]) for s in split.shares.values()) / 2
    bounds = (0.0, 1.0) if reward is None else None
    for name, values in scores.items():
        figures[name] = {**by_group(items, values, bounds), "held_out - seen": gap(items, values, split, bounds)}
    samples = [{"item": i.content or i.prompt.text, "prompt": a.prompt, "answer": a.text, "score": s, "why": a.why,
                "group": i.group, "seen": i.group in split.seen} for i, a, s in zip(items, found["model"], scores["model"])]
    own = scores["model"]
    missing = note_missing(run, own, "the mean", bounds or _range(own))
    constant = scored(items, [CONSTANT] * len(items), reward)
    baselines = {"a constant answer": gap(items, constant, split, bounds)}
    if config.against:
        change = [None if a is None or b is None else a - b for a, b in zip(own, scores["against"])]
        figures["change"] = changes(items, own, scores["against"], bounds)
        value = gap(items, change, split, None if bounds is None else (-1.0, 1.0))
        return EvalResult(value, {**figures, "paired": True}, baselines, samples, missing)
    return EvalResult(figures["model"]["held_out - seen"], figures, baselines, samples, missing)


def _range(scores: Sequence[float | None]) -> tuple[float, float]:
    known = [s for s in scores if s is not None] or [0.0]
    return min(known), max(known)


def scored(items: Sequence[Item], texts: Sequence[str | None], reward: Any) -> list[float | None]:
    """A right answer's pattern, at word boundaries and in any case; or the reward's score."""
    if reward is None:
        return [None if t is None else float(bool(re.search(rf"(?<!\w)(?:{i.right})(?!\w)", t, re.I)))
                for i, t in zip(items, texts)]
    there = [k for k, t in enumerate(texts) if t is not None]
    given = reward.score([items[k].prompt for k in there], [[texts[k]] for k in there]) if there else []
    found: list[float | None] = [None] * len(texts)
    for k, row in zip(there, given):
        found[k] = None if row[0] is None or row[0] != row[0] else float(row[0])
    return found


def by_group(items: Sequence[Item], scores: Sequence[float | None], bounds: tuple[float, float] | None) -> dict[str, Estimate]:
    found = {}
    for group in dict.fromkeys(i.group for i in items):
        part = [s for s, i in zip(scores, items) if i.group == group]
        if any(s is not None for s in part):
            found[group] = mean_of(part, group, bounds)
    return found


def changes(items: Sequence[Item], after: Sequence[float | None], before: Sequence[float | None], bounds: Any) -> dict[str, Any]:
    """The paired change of each group, and its p-value corrected for all groups (Holm)."""
    found: dict[str, Any] = {}
    p: dict[str, float] = {}
    for group in dict.fromkeys(i.group for i in items):
        both = [(a, b) for a, b, i in zip(after, before, items) if i.group == group and a is not None and b is not None]
        if both:
            found[group] = difference_of(*zip(*both), bounds=None if bounds is None else (-1.0, 1.0))
            p[group] = p_value([a - b for a, b in both])
    return found | {"p_holm": dict(zip(p, (float(x) for x in holm(list(p.values())))))}


def gap(items: Sequence[Item], scores: Sequence[float | None], split: Split, bounds: tuple[float, float] | None) -> Estimate:
    """Mean on the held-out groups less mean on the seen ones. Where contents are in both, paired by content; else the two
    means are of different prompts, and each adds its own variance."""
    sides: dict[str, tuple[list[float], list[float]]] = {}
    for i, s in zip(items, scores):
        if s is not None:
            sides.setdefault(i.content or i.prompt.id, ([], []))[int(i.group in split.seen)].append(s)
    whole = [(np.mean(h), np.mean(s)) for h, s in sides.values() if h and s]
    if whole and all(i.content for i in items):
        widest = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
        return paired_difference([h for h, _ in whole], [s for _, s in whole], bounds=widest)
    held, known = ([x for pair in sides.values() for x in pair[k]] for k in (0, 1))
    if not held or not known:
        raise UserError("No answer of the held-out or of the seen groups has a score.", "The samples say why.")
    n, (mean_h, mean_s) = len(held) + len(known), (float(np.mean(held)), float(np.mean(known)))
    # Each item's influence on the difference of means: its mean is the difference, its clustered spread the standard error.
    rows = [(mean_h - mean_s + (n / len(part) * sign * (x - mean)), name) for name, pair in sides.items()
            for part, mean, sign, mine in ((held, mean_h, 1, pair[0]), (known, mean_s, -1, pair[1])) for x in mine]
    return mean_interval([x for x, _ in rows], [c for _, c in rows])


def split_of(config: Config, items: Sequence[Item]) -> Split:
    """Which groups are seen, and what is trained beside what is asked."""
    asked = Counter(i.group for i in items)
    named = {g.strip() for g in config.seen.split(",") if g.strip()}
    shares: dict[str, dict[str, float]] = {}
    if config.trained:
        trained = read_prompts(config.trained).records
        counts = {name: len(rows) for name, rows in grouped(trained, config.by).items()}
        named |= set(counts)
        shares = {g: {"trained": counts.get(g, 0) / max(1, sum(counts.values())), "asked": asked[g] / len(items)}
                  for g in [*counts, *(g for g in asked if g not in counts)]}
    elif not named and not config.prompts:
        named = {"en"}
    seen = named & set(asked)
    if not seen or seen == set(asked):
        raise UserError(f"{'All' if seen else 'None'} of the groups {', '.join(sorted(asked))} are seen.",
                        f"Name some of them with --seen, or give --trained; groups are by {config.by}.")
    return Split(frozenset(seen), shares)


def load(config: Config, run: Run) -> list[Item]:
    """The set that ships, or the prompts of the file that have a group."""
    if not config.prompts:
        return languages()
    if not config.reward:
        raise UserError("Answers to --prompts need a judge.", "Add --reward.")
    prompts = read_prompts(config.prompts).records
    rows = [(i, name) for name, places in grouped(prompts, config.by).items() for i in places]
    if outside := len(prompts) - len({i for i, _ in rows}):
        run.note(f"{outside} of {len(prompts)} prompts have no {config.by.replace('_', ' ')} and are left out.")
    if not rows:
        raise UserError(f"No prompt of {config.prompts} has a {config.by.replace('_', ' ')}.", "Choose another --by.")
    return [Item(prompts[i], name) for i, name in sorted(rows)]


def languages() -> list[Item]:
    """Capitals, days, months and sums, each content in every language."""
    data = read_items("", "generalisation")
    contents: list[tuple[str, str, list[str], list[str]]] = []
    for names, right in data["capital"]:
        contents.append(("capital", names[0], names, [right] * len(names)))
    for kind in ("day", "month"):
        table = data[kind]
        for at in range(len(table[0])):
            after = [row[(at + 1) % len(row)].replace("May", "(?-i:May)") for row in table]  # the verb is another word
            contents.append((kind, table[0][at], [row[at] for row in table], ["|".join(dict.fromkeys(after))] * len(table)))
    tongues = data["languages"]
    for a, b in data["sum"]:
        contents.append(("sum", f"{a} + {b}", [f"{a} + {b}"] * len(tongues), [str(a + b)] * len(tongues)))
    return [Item(Prompt.of(data["frames"][kind][at].format(slot[at])), tongue, f"{kind}: {name}", right[at])
            for kind, name, slot, right in contents for at, tongue in enumerate(tongues)]
