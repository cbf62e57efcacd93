"""What scores a text by itself: the base of the scorers in `rewards/`, and the memory they share.

    class Shouting(TextReward):
        id = "shouting/1"
        def rate(self, text): return -sum(c.isupper() for c in text) / max(1, len(text))

Higher is always better, so a scorer of a fault (toxicity, PII) is the negative of it. `id` names the scorer and
its version: change it with the rule, since what is remembered is filed under it (E1, E10).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from harken.core.records import Prompt, content_hash

MOST_REMEMBERED = 200_000


class TextReward(ABC):
    """A `Reward` that does not look at the prompt. Subclasses give `id` and `rate`."""

    id: str = ""
    _known: ClassVar[dict[str, float | None]] = {}

    @abstractmethod
    def rate(self, text: str) -> float | None:
        """One text's score; None where there is none (never 0 for missing, E8)."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]; each text once, by its content hash."""
        return [[self.remembered(text) for text in texts] for texts in completions]

    def remembered(self, text: str) -> float | None:
        key = content_hash([self.id, text])
        if key not in self._known:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = self.rate(text)
        return self._known[key]

    def explain(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Mapping[str, float] | None]]:
        """What was found, by name; a scorer that can say no more gives its score."""
        return [[None if s is None else {self.id: s} for s in row] for row in self.score(prompts, completions)]
