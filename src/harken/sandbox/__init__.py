"""A small world with a known truth: prompts, a gold reward, and simulated labelers with planted values and faults.

It is for demonstrations, tests and the comparison of methods at the size of a laptop: reward models can be checked
against the gold score, labeler models against what was planted, policies against the gold they never saw.

It is not a benchmark of language models, its gold score is not a measure of quality, and its labelers are not people:
a method that wins here has shown that it works, not that it helps anyone. See docs/sandbox.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from harken.core.errors import UserError
from harken.core.records import Demonstration, Prompt
from harken.sandbox.gold import WEIGHTS, GoldReward, gold_parts, gold_score, null_answers
from harken.sandbox.labelers import SimulatedLabeler, crowd, make_comparisons, make_judgments, upside_down

__all__ = ["SPLITS", "WEIGHTS", "GoldReward", "SimulatedLabeler", "crowd", "gold_parts", "gold_score",
           "load_demonstrations", "load_prompts", "make_comparisons", "make_judgments", "null_answers", "upside_down"]

SPLITS = ("train", "valid", "test")


def _rows(name: str) -> Iterator[Mapping[str, Any]]:
    for line in files(__name__).joinpath(name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def load_prompts(split: str | None = None) -> list[Prompt]:
    """The written prompts, all or one split's; `meta` holds what the gold reward checks."""
    if split is not None and split not in SPLITS:
        raise UserError(f"the sandbox has no split {split!r}", f"Choose one of {', '.join(SPLITS)}.")
    return [p for p in map(Prompt.from_json, _rows("prompts.jsonl")) if split in (None, p.split)]


def load_demonstrations() -> list[Demonstration]:
    """One written answer to each training prompt; the prompts carry the same `meta` as `load_prompts`."""
    prompts = {p.id: p for p in load_prompts("train")}
    rows = map(Demonstration.from_json, _rows("demonstrations.jsonl"))
    return [Demonstration(prompts[d.prompt.id], d.completion, d.labeler, d.group) for d in rows]
