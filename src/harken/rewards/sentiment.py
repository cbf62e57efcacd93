"""How pleased a text sounds, in [−1, 1]: higher is more positive.

    harken score --reward sentiment --data comparisons.jsonl --out scores.jsonl           a small lexicon of our own
    harken score --reward sentiment:vader --data comparisons.jsonl --out scores.jsonl     where vaderSentiment is installed

Counts words of feeling, doubled by "very", turned by "not" up to three words before: (p − n) / (p + n + 2). It is crude, made for
demonstrations and controls (a policy that climbs it becomes gushing); docs/rewards/sentiment.md has its AUC.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from harken.core.errors import UserError
from harken.text.scorer import TextReward

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
LISTS = json.loads(files(__package__).joinpath("sentiment.json").read_text(encoding="utf-8"))
POSITIVE, NEGATIVE, TURNS, STRESSES = (frozenset(" ".join(LISTS[kind]).split())
                                       for kind in ("positive", "negative", "turns", "stresses"))


class Sentiment(TextReward):
    """The lexicon."""

    id = "sentiment/1"

    def rate(self, text: str) -> float:
        words = [w.lower().replace("’", "'") for w in WORD.findall(text)]
        positive = negative = 0.0
        for i, word in enumerate(words):
            if word not in POSITIVE and word not in NEGATIVE:
                continue
            before = words[max(0, i - 3):i]
            worth = 2.0 if before[-1:] and before[-1] in STRESSES else 1.0
            turned = any(w in TURNS or w.endswith("n't") for w in before)
            if (word in POSITIVE) != turned:
                positive += worth
            else:
                negative += worth
        return (positive - negative) / (positive + negative + 2)


class Vader(TextReward):
    """VADER's compound score (Hutto and Gilbert 2014)."""

    def __init__(self, analyser: Any, version: str) -> None:
        self.analyser, self.id = analyser, f"sentiment:vader/{version}"

    def rate(self, text: str) -> float:
        return float(self.analyser.polarity_scores(text)["compound"])


def open_scorer(argument: str = "") -> TextReward:
    if not argument:
        return Sentiment()
    if argument != "vader":
        raise UserError(f"There is no sentiment scorer {argument!r}.", "Use sentiment or sentiment:vader.")
    try:
        import importlib.metadata

        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise UserError("vaderSentiment is not installed.",
                        "pip install vaderSentiment, or use the built-in sentiment.") from None
    return Vader(SentimentIntensityAnalyzer(), importlib.metadata.version("vaderSentiment"))
