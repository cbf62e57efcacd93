"""Your own rules as a reward: regular expressions with weights, in a JSON file.

    harken score --reward rules:house.json --data comparisons.jsonl --out scores.jsonl

    {"rules": [{"name": "thanks", "pattern": "\\\\bthank you\\\\b", "weight": 1, "most": 1},
               {"name": "shouting", "pattern": "[A-Z]{6,}", "weight": -0.5, "ignore_case": false},
               {"name": "source", "pattern": "https?://", "weight": 2, "per": "text"}]}

The score is the sum over rules of weight × matches, so the sign of a weight says what is better. `most` caps the matches
that count, and is what keeps a rule from being farmed; `per` is match (default), text (present or not) or character (matches
per 100 characters). `ignore_case` is true unless said otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.records import Prompt, content_hash
from harken.text.scorer import TextReward

PER = ("match", "text", "character")


@dataclass(frozen=True)
class Rule:
    """One pattern and what a match is worth."""

    name: str
    pattern: re.Pattern[str]
    weight: float
    most: float | None = None
    per: str = "match"

    @classmethod
    def from_json(cls, row: Any) -> Rule:
        if not isinstance(row, dict) or not isinstance(row.get("pattern"), str):
            raise ValueError("a rule must be an object with a pattern")
        if unknown := sorted(set(row) - {"name", "pattern", "weight", "most", "per", "ignore_case"}):
            raise ValueError(f"a rule has no {unknown[0]!r}")
        name, weight = row.get("name", row["pattern"]), row.get("weight", 1.0)
        most, per = row.get("most"), row.get("per", "match")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not isinstance(most, int | float | None):
            raise ValueError(f"the weight and most of {name!r} must be numbers")
        try:
            finite = math.isfinite(weight) and math.isfinite(most or 0.0)
        except OverflowError:  # a whole number beyond all floats
            finite = False
        if not finite:
            raise ValueError(f"the weight and most of {name!r} must be finite")
        if per not in PER:
            raise ValueError(f"per of {name!r} must be one of {', '.join(PER)}")
        try:
            pattern = re.compile(row["pattern"], re.I if row.get("ignore_case", True) else 0)
        except re.error as error:
            raise ValueError(f"the pattern of {name!r} is no regular expression ({error})") from None
        return cls(str(name), pattern, float(weight), most, per)

    def worth(self, text: str) -> float:
        count = float(sum(1 for _ in self.pattern.finditer(text)))
        if self.per != "match":
            count = min(count, 1.0) if self.per == "text" else 100 * count / max(1, len(text))
        return self.weight * (count if self.most is None else min(count, self.most))


class Rules(TextReward):
    """A weighted sum of matches."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = list(rules)
        self.id = "rules/" + content_hash([[r.name, r.pattern.pattern, r.pattern.flags, r.weight, r.most, r.per]
                                           for r in rules])[:16]

    @classmethod
    def open(cls, path: str | Path) -> Rules:
        """From a file. Raises `UserError` naming the rule that is wrong."""
        rows = read_json(Path(path)).get("rules")
        if not isinstance(rows, list) or not rows:
            raise UserError(f"{path} holds no list of rules.", 'Write {"rules": [{"pattern": …, "weight": …}]}.')
        try:
            return cls([Rule.from_json(row) for row in rows])
        except ValueError as error:
            raise UserError(f"{path}: {error}.", "Correct it; docs/rewards/rules.md shows the form.") from None

    def rate(self, text: str) -> float:
        return sum(r.worth(text) for r in self.rules)

    def explain(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Mapping[str, float] | None]]:
        """What each rule gave; it adds up to the score."""
        return [[{r.name: r.worth(t) for r in self.rules} for t in row] for row in completions]


TRIAL = "FILE"
"""What the tests open it with."""


def open_scorer(argument: str = "") -> Rules:
    if not argument:
        raise UserError("rules needs a file.", "Write --reward rules:FILE.json; docs/rewards/rules.md shows the form.")
    return Rules.open(argument)
