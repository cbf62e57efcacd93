"""A project's settings, and its instructions: what is decided once and read with every claim."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from harken.core.records import content_hash
from harken.web.json_schema import BOOLEAN, Schema, either, integer, nullable, number, obj, text

PRESETS = ("train", "eval")
CATEGORIES = ("violence", "sexual", "hate", "self_harm", "abuse", "other")
SKIP_REASONS = ("unclear", "too_hard", "language", "knowledge", "conflict", "broken", "other")
OVERLAP: Schema = either(integer(1, 100), obj({"min": integer(2, 100), "max": integer(2, 100)}))
QUALIFICATION: Schema = obj({"flags": number(0, 1), "comparisons": number(0, 1), "demonstrations": number(1, 7)},
                            optional=("flags", "comparisons", "demonstrations"))
FIELDS: dict[str, Schema] = {
    "overlap": OVERLAP, "lease_minutes": integer(1, 14 * 24 * 60), "gold_rate": number(0, 0.9), "repeat_rate": number(0, 0.9),
    "repeat_minutes": integer(0, 100_000), "mirror": BOOLEAN, "daily_limit": nullable(integer(1, 100_000)),
    "exposure_limit": nullable(integer(0, 100_000)), "skip_limit": integer(1, 1000), "qualification": nullable(QUALIFICATION),
    "open_to_all": BOOLEAN, "consent_text": text(20_000),
    "hidden": BOOLEAN, "suggestions_after": number(0, 1),
}
SELF_NAMING = re.compile(r"\b(?:I am|I'm|as|my name is)\s+(?:an?\s+)?(?:AI\s+|large\s+)?(?:language model|assistant)?\s*"
                         r"(?:(?:called|named|trained by|made by|developed by|created by)\s+)?"
                         r"(?:ChatGPT|GPT-?\d\w*|OpenAI|Claude|Anthropic|Gemini|Bard|Google|LLaMA|Llama|Meta AI|Mistral|"
                         r"Qwen|Alibaba|DeepSeek|Grok|Vicuna|Alpaca|Koala|Falcon|SmolLM\d?)\b", re.I)


@dataclass(frozen=True)
class Settings:
    """How a project hands out its items. Times are minutes; rates are shares of what a labeler is given."""

    overlap_min: int = 1
    """Answers each item gets."""
    overlap_max: int = 1
    """Above the minimum where answers may be added until the item is settled (`quality.settled`)."""
    lease_minutes: int = 30
    """How long a claimed item is held for a labeler who gives no sign."""
    gold_rate: float = 0.0
    """Share of tasks whose answer is known, until the labeler has seen all of them."""
    repeat_rate: float = 0.0
    """Share of tasks the labeler has answered before, to measure self-consistency."""
    repeat_minutes: int = 60
    """A task is repeated after this time at the earliest."""
    mirror: bool = True
    """Every other repeat shows the completions in the opposite order, the others in the same one."""
    daily_limit: int | None = None
    """Answers a day and labeler."""
    exposure_limit: int | None = 50
    """Items with a content warning that a labeler is shown a day, of each category."""
    skip_limit: int = 3
    """An item skipped by so many labelers is set aside for the lead."""
    qualification: Mapping[str, float] | None = None
    """Thresholds of the qualifying test; InstructGPT's are QUALIFY."""
    open_to_all: bool = True
    """Whether every labeler may work here; else only those whom the lead adds."""
    consent_text: str = ""
    hidden: bool = False
    """Left out of the list of projects; whoever has the address still finds it."""
    suggestions_after: float = 0.2
    """Share of a model's suggestions that a labeler sees only after they have answered: what anchoring is measured by."""

    def to_json(self) -> dict[str, Any]:
        """As the API shows it: the overlap as one number or {min, max}."""
        row = asdict(self)
        low, high = row.pop("overlap_min"), row.pop("overlap_max")
        return {"overlap": low if low == high else {"min": low, "max": high}, **row}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Settings:
        rest = {k: v for k, v in row.items() if k != "overlap"}
        overlap = row.get("overlap", 1)
        low, high = (overlap, overlap) if isinstance(overlap, int) else (overlap["min"], overlap["max"])
        return cls(low, max(low, high), **rest)


QUALIFY = {"flags": 0.75, "comparisons": 0.75, "demonstrations": 6.0}
"""InstructGPT's soft cut-offs (arXiv 2203.02155, appendix B.1): flags, comparisons, and grade of demonstrations (1 to 7)."""


def preset(name: str) -> str:
    """The instructions that ship: `train` puts helpfulness first, `eval` truth and harmlessness (F13)."""
    return resources.files("harken.studio").joinpath(f"presets/{name}.md").read_text(encoding="utf-8")


def instruction_hash(words: str) -> str:
    return content_hash(words)[:16]


def names_its_maker(words: str) -> bool:
    """Whether a completion says which model wrote it, which would unblind the labeler (F8)."""
    return SELF_NAMING.search(words) is not None


SETTINGS: Schema = obj(FIELDS, optional=tuple(FIELDS))
