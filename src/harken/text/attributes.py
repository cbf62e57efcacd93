"""Attributes of an answer, the questions that ask a model about them, and how its reply is read.

An attribute has two poles; which of them people prefer is learnt, so it need not be worded as a virtue. The default
file holds the thirteen of the paper on compositional preference models (2310.13011, section 3) in our words, and the
answer's length as its code adds it. An editable copy:

    {"attributes": [{"name": "warmth", "description": "is warm and kind", "low": "it is cold", "high": "it is very warm"},
                    {"name": "swearing", "scorer": "toxicity"}]}

An attribute with a `scorer` (any reward by name or run directory) is measured, not asked about.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.records import Prompt

LOWEST, HIGHEST = 1, 10
RATING = re.compile(r"^\s*(\d+)")
WORDINGS = (
    "Judge whether the reply {description}. Answer with a number from 1 to 10 only: 1 means {low}, 10 means {high}.",
    "Is it so that the reply {description}? Rate it on a scale from 1 ({low}) to 10 ({high}). Write just the number.",
)
"""The second asks the same otherwise: what an attribute scores under both tells how reliable it is (test–retest)."""


@dataclass(frozen=True)
class Attribute:
    """One thing an answer can be. `scorer` names what measures it; without one a model is asked."""

    name: str
    description: str = ""
    low: str = ""
    high: str = ""
    scorer: str = ""

    def to_json(self) -> dict[str, str]:
        return {k: v for k, v in vars(self).items() if v}

    @classmethod
    def from_json(cls, row: Any) -> Attribute:
        if not isinstance(row, dict) or not all(isinstance(v, str) for v in row.values()):
            raise ValueError("an attribute must be an object of strings")
        if unknown := sorted(set(row) - set(cls.__dataclass_fields__)):
            raise ValueError(f"an attribute has no {unknown[0]!r}")
        if not row.get("name"):
            raise ValueError("an attribute needs a name")
        if not row.get("scorer") and not all(row.get(k) for k in ("description", "low", "high")):
            raise ValueError(f"the attribute {row['name']!r} needs a description, a low and a high pole, or a scorer")
        return cls(**row)


def load_attributes(path: str | Path = "") -> list[Attribute]:
    """From a JSON file; without one the default. Raises `UserError` naming the attribute that is wrong."""
    source = Path(path) if path else Path(str(files(__package__).joinpath("attributes.json")))
    rows = read_json(source).get("attributes")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{source} holds no list of attributes.", 'Write {"attributes": [{"name": …, "description": …, …}]}.')
    try:
        attributes = [Attribute.from_json(row) for row in rows]
    except ValueError as error:
        raise UserError(f"{source}: {error}.", "Correct it; docs/rewards/compositional.md shows the form.") from None
    if twice := [name for name, n in Counter(a.name for a in attributes).items() if n > 1]:
        raise UserError(f"{source}: two attributes are called {twice[0]!r}.", "Give each its own name.")
    return attributes


def question(prompt: Prompt, text: str, attribute: Attribute, wording: int = 0) -> Prompt:
    """What the judge is asked. The conversation comes first and the attribute last, so that an engine reads the
    conversation once for all attributes."""
    turns = "\n".join(f"{m.role.capitalize()}: {m.content}" for m in prompt.messages)
    ask = WORDINGS[wording].format(description=attribute.description, low=attribute.low, high=attribute.high)
    return Prompt.of(f"A conversation:\n{turns}\n\nThe reply:\n{text}\n\n{ask}")


def parse_rating(answer: str) -> float | None:
    """The number an answer begins with; None where there is none or it is not 1 to 10."""
    found = RATING.match(answer)
    if not found or len(found[1]) > 2:
        return None
    return float(found[1]) if LOWEST <= int(found[1]) <= HIGHEST else None


def entropy_bits(values: ArrayLike, resolution: float) -> float:
    """Entropy of the values counted in steps of `resolution`, in bits: 0 where all say the same."""
    _, counts = np.unique(np.round(np.asarray(values, dtype=np.float64) / resolution), return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0
