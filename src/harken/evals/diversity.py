"""Diversity: whether a model's samples differ from each other, or a cure has made it say one thing.

    harken eval diversity --model runs/conditional --mode good --out runs/diversity

Distinct-n is the share of n-grams of words, among those of 64 samples, that are different; Self-BLEU is how much of a sample the
others of its group say too (Zhu et al. 1802.01886). Both depend on how much text is looked at, so groups are always of one size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.protocols import EvalResult, Models
from harken.core.run import Run
from harken.core.seeds import MOST_SEED
from harken.loops.unprompted import GROUP, sampled
from harken.stats.dynamics import loop_period
from harken.stats.intervals import mean_interval
from harken.store.files import read_prompts
from harken.text.tags import steer


@dataclass(frozen=True)
class Config:
    model: str = setting("", names="model", required=True)
    """The model in question: a run directory, a folder, smollm2 or a hub id."""
    prompts: str = setting("", names="file")
    """JSON Lines file of prompts; without one the model speaks from nothing."""
    out: str = setting("", required=True)
    """Run directory to write."""
    mode: str = setting("", one_of=("", "good", "bad", "untagged"))
    """good, bad or untagged, of a model with control tokens; empty is its own."""
    tag: str = setting("each", one_of=("each", "once"))
    """Where a mode's token stands: each (before every segment) or once (at the start)."""
    samples: int = setting(512, least=2)
    """Texts without a prompt, in groups of 64."""
    n: int = setting(16, least=2)
    """Answers to each prompt: a group."""
    max_tokens: int = setting(128, least=1)
    """Longest text in tokens."""
    temperature: float = setting(0.7, least=0)
    """Sampling temperature (0.7 in the paper)."""
    top_p: float = setting(0.9, above=0, most=1)
    """Nucleus that is sampled from (0.9 in the paper)."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of sampling."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Samples and counts. Raises `UserError` where there is no group of at least two texts."""
    prompts = read_prompts(config.prompts).records if config.prompts else None
    if prompts is not None:
        models.check_context("model", prompts, config.max_tokens)
    sampler = models.sampler("model")
    steer(sampler, config.model, config.mode, config.tag)
    groups = sampled(run, sampler, prompts, config.samples if prompts is None else config.n, seed=config.seed,
                     max_tokens=config.max_tokens, temperature=config.temperature, top_p=config.top_p)
    size = min(GROUP, config.samples) if prompts is None else config.n
    words = [[t.split() for t in group] for group in groups if len(group) == size]
    if not words or not any(w for group in words for w in group):
        raise UserError("There are no samples to compare.", "Draw more, or check that the model says anything.")
    figures = {f"distinct_{n}": mean_interval([distinct(group, n) for group in words], bounds=(0, 1)) for n in (1, 2, 3, 4)}
    flat, units = [w for group in words for w in group], [i for i, group in enumerate(words) for _ in group]
    bleu = [(b, i) for i, group in enumerate(words) for b in self_bleu(group)]  # empty texts have none
    more = {"bigram_entropy": mean_interval([entropy(group, 2) for group in words]),
            "self_bleu_5": mean_interval([b for b, _ in bleu], [i for _, i in bleu], bounds=(0, 1)),
            "words": mean_interval([len(w) for w in flat], units),
            "repeats": mean_interval([float(g.count(w) > 1) for g in words for w in g], units, bounds=(0, 1)),
            "loops": mean_interval([float(loop_period(_numbers(w)) > 0) for w in flat], units, bounds=(0, 1))}
    return EvalResult(figures.pop("distinct_2"), {**figures, **more}, better="")


def grams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(n)))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 1510.03055); 0 where no text is that long."""
    found = [g for words in texts for g in grams(words, n)]
    return len(set(found)) / len(found) if found else 0.0


def entropy(texts: Sequence[Sequence[str]], n: int) -> float:
    """Entropy in nats of the n-grams' frequencies."""
    counts = Counter(g for words in texts for g in grams(words, n))
    total = sum(counts.values())
    return -sum(c / total * math.log(c / total) for c in counts.values())


def self_bleu(texts: Sequence[Sequence[str]], order: int = 5) -> list[float]:
    """BLEU of each text against all others of its group: the geometric mean of clipped precisions of 1- to `order`-grams (those
    the text is long enough for), times the brevity penalty against the nearest length. Empty texts are left out."""
    texts = [w for w in texts if w]
    counts = [[Counter(grams(w, n)) for w in texts] for n in range(1, order + 1)]
    best = [_two_highest(c) for c in counts]
    lengths = [len(w) for w in texts]
    scores = []
    for i, words in enumerate(texts):
        logs = []
        for n in range(1, min(order, len(words)) + 1):
            own = counts[n - 1][i]
            clipped = sum(min(c, best[n - 1][g][1] if best[n - 1][g][0] == c else best[n - 1][g][0]) for g, c in own.items())
            logs.append(math.log(clipped / own.total()) if clipped else -math.inf)
        nearest = min((x for j, x in enumerate(lengths) if j != i), key=lambda x: (abs(x - len(words)), x), default=0)
        scores.append(math.exp(sum(logs) / len(logs) + min(0.0, 1 - nearest / len(words))))
    return scores


def _two_highest(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int]]:
    """The two highest counts of each n-gram over the texts: without a text that holds the highest, the other remains."""
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for counter in counts:
        for gram, count in counter.items():
            first, second = found.get(gram, (0, 0))
            found[gram] = (count, first) if count >= first else (first, max(second, count))
    return found


def _numbers(words: Sequence[str]) -> list[int]:
    known: dict[str, int] = {}
    return [known.setdefault(w, len(known)) for w in words]
