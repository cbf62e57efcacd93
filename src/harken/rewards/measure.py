"""Plain measures of an answer: its length, its lists, how much it repeats itself or the question.

    harken score --reward measure:length --data comparisons.jsonl --out scores.jsonl

They are the raw material of a compositional preference model that needs no language model (`--judge rules`), and null
baselines to set beside any reward: a judge that follows `measure:length` judges length. They count, and judge nothing:
whether more is better is for people to say. Words are runs of letters and digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from harken.core.errors import UserError
from harken.core.records import Prompt

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
SENTENCE = re.compile(r"[.!?]+(?:\s|$)")
ITEM = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+", re.M)
FENCE = re.compile(r"^```", re.M)
SMALL = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "can", "did", "do", "does", "for", "from", "had", "has",
    "have", "how", "i", "if", "in", "is", "it", "its", "me", "my", "no", "not", "of", "on", "or", "our", "so", "that",
    "the", "their", "them", "then", "there", "these", "they", "this", "to", "up", "us", "was", "we", "were", "what",
    "when", "where", "which", "who", "why", "will", "with", "would", "you", "your"))
HEDGE = re.compile(r"\b(?:maybe|perhaps|probably|possibly|might|not sure|i think|i guess|it depends|seems?)\b", re.I)
REFUSAL = re.compile(r"\b(?:i can(?:no|')t|i am unable|i'm unable|i won't|i(?:'m| am) sorry|i(?:'m| am) not able)\b", re.I)
COURTESY = re.compile(r"\b(?:please|thanks?|thank you|welcome|glad|happy to|of course|hope)\b", re.I)


def words(text: str) -> list[str]:
    return [w.lower() for w in WORD.findall(text)]


def repetition(text: str) -> float:
    """Share of three-word runs that were there before."""
    w = words(text)
    runs = list(zip(w, w[1:], w[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def overlap(a: str, b: str) -> float:
    """Share of a's content words that b has too."""
    wanted = set(words(a)) - SMALL
    return len(wanted & set(words(b))) / len(wanted) if wanted else 0.0


def share(pattern: re.Pattern[str], text: str) -> float:
    """Matches per 100 words."""
    return 100 * sum(1 for _ in pattern.finditer(text)) / max(1, len(words(text)))


MEASURES: Mapping[str, Callable[[Prompt, str], float]] = {
    "length": lambda p, t: len(t) / 100,
    "words_per_sentence": lambda p, t: len(words(t)) / max(1, len(SENTENCE.findall(t))),
    "word_length": lambda p, t: sum(map(len, words(t))) / max(1, len(words(t))),
    "list_items": lambda p, t: float(len(ITEM.findall(t))),
    "paragraphs": lambda p, t: float(len([x for x in re.split(r"\n\s*\n", t) if x.strip()])),
    "code_blocks": lambda p, t: len(FENCE.findall(t)) / 2,
    "numbers": lambda p, t: share(re.compile(r"\d+"), t),
    "questions": lambda p, t: float(t.count("?")),
    "repetition": lambda p, t: repetition(t),
    "on_topic": lambda p, t: overlap(p.text, t),
    "echo": lambda p, t: overlap(t, p.text),
    "hedging": lambda p, t: share(HEDGE, t),
    "refusal": lambda p, t: float(bool(REFUSAL.search(t))),
    "courtesy": lambda p, t: share(COURTESY, t),
    "finished": lambda p, t: float(t.rstrip().endswith((".", "!", "?", "`", ")", '"', "”"))),
}


class Measure:
    """One measure by name."""

    def __init__(self, name: str) -> None:
        if name not in MEASURES:
            raise UserError(f"There is no measure {name!r}.", f"Measures: {', '.join(MEASURES)}.")
        self.name, self.id = name, f"measure:{name}/1"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]."""
        return [[MEASURES[self.name](p, t) for t in texts] for p, texts in zip(prompts, completions)]


TRIAL = "length"
"""What the tests open it with."""


def open_scorer(argument: str = "") -> Measure:
    return Measure(argument)
