"""Scores that a file holds already: no model is asked.

    harken score --data scores.jsonl                                            how often they agree with people
    harken eval reward --reward stored:scores.jsonl --data scores.jsonl --out runs/card

    rankings   {"prompt", "completions": [..], "scores": [..]}                  what harken score writes; null where there is none
    pairs      {"prompt", "chosen", "rejected", "score_chosen", "score_rejected"}           or chosen_score, scores_chosen, …
    lists      {"prompt", "chosen": [..], "rejected": [..], "score_chosen": [..], "score_rejected": [..]}        RM-Bench's
    answers    {"prompt", "completion", "score"}

A completion that the file does not hold, or holds without a score, has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash
from harken.core.records import Prompt
from harken.store.files import read_rows

WORDS = ("scores", "score", "rewards", "reward", "rating")
NAMES = {side: tuple(name for word in WORDS for mark in "_-" for name in (f"{word}{mark}{side}", f"{side}{mark}{word}"))
         for side in ("chosen", "rejected")}
FIELDS = frozenset(("scores", *NAMES["chosen"], *NAMES["rejected"]))
"""What holds a score beside a comparison."""
LAYOUT = 'Give rows like {"prompt": …, "completions": […], "scores": [0.3, null]}; docs/rewards/stored.md shows all of them.'


class Stored:
    """The scores of a file, by prompt and completion. Raises `UserError` naming the line for a score that is no number, for two
    scores of one answer, and for a file without scores."""

    def __init__(self, path: str) -> None:
        self.path, self.scores = path, dict[tuple[str, str], float | None]()
        for line, row in read_rows(path):
            try:
                self._read(row)
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}, line {line}: {error}.", LAYOUT) from None
        if all(score is None for score in self.scores.values()):
            raise UserError(f"{path} holds no scores.", LAYOUT)
        self.id = f"stored/1:{file_hash(Path(path))[:16]}"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]. Raises `UserError` where the file holds none of the completions."""
        found = [[self.scores.get((p.id, text)) for text in row] for p, row in zip(prompts, completions)]
        if prompts and not any((p.id, text) in self.scores for p, row in zip(prompts, completions) for text in row):
            raise UserError(f"{self.path} scores none of these {sum(map(len, completions)):,} completions.",
                            "It must hold the same prompts and completions.")
        return found

    def _read(self, row: Mapping[str, Any]) -> None:
        for texts, scores in _columns(row):
            if len(texts) != len(scores):
                raise ValueError(f"{len(texts)} completions have {len(scores)} scores")
            for text, value in zip(texts, scores):
                prompt, answer = _parts(row.get("prompt"), text)
                key, score = (prompt.id, answer), _number(value)
                if score is not None and self.scores.get(key) not in (None, score):
                    raise ValueError(f"one answer to one prompt is scored {self.scores[key]} and {score}")
                self.scores[key] = self.scores.get(key) if score is None else score


def _columns(row: Mapping[str, Any]) -> list[tuple[list[Any], list[Any]]]:
    """Pairs of texts and their scores."""
    if "completions" in row:
        scores = next((row[name] for name in WORDS if isinstance(row.get(name), list)), None)
        return [(row["completions"], [None] * len(row["completions"]) if scores is None else scores)]
    if "chosen" in row and "rejected" in row:
        return [_pair(row, side) for side in ("chosen", "rejected")]
    if "completion" in row:
        return [([row["completion"]], [next((row[name] for name in WORDS if name in row), None)])]
    raise ValueError("neither completions, chosen and rejected, nor completion in this row")


def _pair(row: Mapping[str, Any], side: str) -> tuple[list[Any], list[Any]]:
    value = next((row[name] for name in NAMES[side] if name in row), None)
    texts = row[side]
    if isinstance(texts, list) and texts and isinstance(texts[0], str):
        return texts, value if isinstance(value, list) else [value] * len(texts)
    return [texts], [value[0] if isinstance(value, list) and len(value) == 1 else value]


def _parts(prompt: Any, text: Any) -> tuple[Prompt, str]:
    """A whole conversation holds its prompt."""
    if isinstance(text, list) and text and isinstance(text[-1], Mapping):
        return Prompt.from_json({"prompt": text[:-1]}), str(text[-1].get("content"))
    return Prompt.from_json({"prompt": prompt}), str(text)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"a score is a number, found {value!r}")
    return float(value)


TRIAL = "SCORES"
"""What the tests open it with."""


def open_scorer(argument: str = "") -> Stored:
    if not argument:
        raise UserError("stored needs a file.", "Write --reward stored:scores.jsonl")
    return Stored(argument)
