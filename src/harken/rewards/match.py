"""A verifiable reward: 1 where a completion matches the reference answer that its prompt's row holds, else 0.

    harken train grpo --model smollm2 --reward match:number --data gsm8k.jsonl --field prompt=question --out runs/maths

`match:HOW`, or `match:HOW:FIELD`; FIELD is the column of the reference (default answer; in `meta` where it is nested there).

    exact      the same text, white space aside
    number     the last number of the completion is the last of the reference; what stands in \\boxed{…} or after #### goes first
    contains   the reference stands in the completion as whole words, whatever their case
    regex      the reference is a regular expression that the completion holds

A list of references is met by any of them. A prompt without a reference has no score, never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from harken.core.errors import UserError
from harken.core.find import nearest
from harken.core.records import Prompt

NUMBER = re.compile(r"(?<![\w.])[-+−]?[$€£]?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:[eE]([-+]?\d+))?(?:\s?/\s?(\d+))?")
BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
HASHES = re.compile(r"####\s*([^\n]*)")
TOLERANCE = 1e-6
"""Relative: 0.333333 is 1/3."""


def number_in(text: str) -> float | None:
    """The number that a text ends with: in its last \\boxed{…}, else after its last ####, else anywhere."""
    for final in (BOXED, HASHES):
        if (marked := final.findall(text)) and (value := _last(marked[-1])) is not None:
            return value
    return _last(text)


def _last(text: str) -> float | None:
    matches = list(NUMBER.finditer(text))
    if not matches:
        return None
    whole, fraction, exponent, divisor = matches[-1].groups()
    sign = -1 if matches[-1][0].lstrip()[:1] in ("-", "−") else 1
    try:
        value = sign * float(whole.replace(",", "") + (fraction or "") + (f"e{exponent}" if exponent else ""))
        value = value / float(divisor) if divisor else value
    except (OverflowError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def exact(text: str, reference: str) -> bool:
    return " ".join(text.split()) == " ".join(reference.split())


def number(text: str, reference: str) -> bool:
    """Raises `UserError` for a reference without a number."""
    wanted, given = number_in(reference), number_in(text)
    if wanted is None:
        raise UserError(f"The reference {reference[:60]!r} holds no number.", "Use match:exact or match:contains, or name "
                        "another field: match:number:FIELD.")
    return given is not None and math.isclose(given, wanted, rel_tol=TOLERANCE, abs_tol=1e-12)


def contains(text: str, reference: str) -> bool:
    words = r"\s+".join(map(re.escape, reference.split()))
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", text, re.I) is not None


def regex(text: str, reference: str) -> bool:
    return _compiled(reference).search(text) is not None


@lru_cache(10_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"The reference {pattern[:60]!r} is no regular expression: {error}.",
                        "Correct it, or use match:contains.") from None


HOW: dict[str, Callable[[str, str], bool]] = {"exact": exact, "number": number, "contains": contains, "regex": regex}


class Match:
    """`how` is one of `HOW`, `field` a name in the prompts' `meta`."""

    def __init__(self, how: str = "exact", field: str = "answer") -> None:
        self.how, self.field, self.test = how, field, HOW[how]
        self.id = f"match/1:{how}:{field}"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]: 1, 0, or None without a reference. Raises `UserError` where no prompt has one."""
        references = [_references(prompt.meta.get(self.field)) for prompt in prompts]
        if prompts and not any(references):
            fields = sorted({name for prompt in prompts for name in prompt.meta})
            raise UserError(f"No prompt has a field {self.field!r} to match.{nearest(self.field, fields)}",
                            f"Fields of these prompts: {', '.join(fields) or 'none'}. Name one: match:{self.how}:FIELD.")
        return [[float(any(self.test(text, r) for r in wanted)) if wanted else None for text in texts]
                for wanted, texts in zip(references, completions)]


def _references(value: Any) -> list[str]:
    """The texts a reference may be; numbers are read as they are written, and null and empty are none."""
    values = value if isinstance(value, list) else [value]
    return [str(v) for v in values if v is not None and not isinstance(v, bool | dict | list) and str(v).strip()]


TRIAL = "contains"
"""What the tests open it with."""


def open_scorer(argument: str) -> Match:
    """`match:number`, `match:contains:keywords`; what stands after the first colon."""
    how, _, field = argument.partition(":")
    if (how or "exact") not in HOW:
        raise UserError(f"match:{argument} is unknown.{nearest(how, list(HOW))}", f"Use match: and one of {', '.join(HOW)}.")
    return Match(how or "exact", field or "answer")
