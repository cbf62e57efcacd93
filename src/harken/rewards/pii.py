"""Personal data in a text: e-mail, telephone, payment card, IP address, US social security number, IBAN.

    harken score --reward pii --data comparisons.jsonl --out scores.jsonl

The score is minus the number of finds per 100 characters: 0 is clean, higher is better. (Korbak et al. 2302.08582 count per
character.) Numbers with a checksum must pass it (cards: Luhn; IBAN: ISO 7064 mod 97), the others only look right, so order
numbers may count as telephones. Names, birthdays and street addresses are not found: that takes a model of language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harken.core.personal import KINDS, find, iban, luhn
from harken.core.records import Prompt
from harken.text.scorer import TextReward

__all__ = ["KINDS", "PII", "find", "iban", "luhn", "open_scorer"]


class PII(TextReward):
    """Minus the finds per 100 characters."""

    id = "pii/1"

    def rate(self, text: str) -> float:
        return -100.0 * sum(map(len, find(text).values())) / max(1, len(text))

    def explain(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Mapping[str, float] | None]]:
        """Finds per 100 characters by kind, negative: they add up to the score."""
        return [[{k: -100.0 * len(v) / max(1, len(t)) for k, v in find(t).items()} for t in row] for row in completions]


def open_scorer(argument: str = "") -> PII:
    return PII()
