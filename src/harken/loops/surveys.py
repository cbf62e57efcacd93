"""Surveys: questions with options on a scale, and how people answered, by group.

    read_survey()                                            # the synthetic survey that ships: 200 questions, 8 topics
    read_survey("survey.jsonl")                              # rows like ours, or GlobalOpinionQA's csv
    read_survey(info="info.csv", responses="responses.csv", groups="AGE")        # OpinionQA's files of one survey
"""

from __future__ import annotations

import ast
import csv
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.loops.items import read_items, wrong_layout

REFUSED = ("refused", "prefer not to say", "don't know", "no answer", "dk/ref", "dk/refused", "don't know/refused", "no response")


@dataclass(frozen=True)
class Question:
    """`ordinal` [K] places the K options that are not refusals; `people` maps a group ("" is everybody) to shares [K]."""

    topic: str
    text: str
    options: tuple[str, ...]
    refusals: tuple[str, ...]
    ordinal: tuple[float, ...]
    people: Mapping[str, tuple[float, ...]]


def read_survey(data: str = "", info: str = "", responses: str = "", groups: str = "") -> list[Question]:
    """The questions of a file, of OpinionQA's two files (`groups`: columns of the second), or of the synthetic survey. Raises
    `UserError` for another layout."""
    if bool(info) != bool(responses):
        raise UserError("--info and --responses belong together.", "Give both, or neither.")
    if info:
        return _original(info, responses, groups)
    held = read_items(data, "opinions")
    try:
        if not data:
            return synthetic(held)
        rows = held["items"] if isinstance(held, dict) else held
        found = [q for row in rows if (q := _global(row) if "selections" in row else _question(row))]
        if not found:
            raise ValueError("no question")
    except (KeyError, TypeError, ValueError, AttributeError, SyntaxError) as error:
        raise wrong_layout(data, error, "rows with question, options, ordinal, everybody and groups") from None
    return found


def synthetic(survey: Mapping[str, Any]) -> list[Question]:
    """The survey that ships: questions from frames, shares from an ordered logit. P(option k or one before it) is
    sigma(cut_k + place + sign · lean), the question's place and sign drawn by its text; everybody is the groups' mean."""
    found = []
    for topic, held in survey["topics"].items():
        for frame in held["frames"]:
            for about in frame["about"]:
                text = frame["question"].format(about)
                rng = random.Random(text)
                place, sign = rng.gauss(0.0, 0.8), rng.choice((1, -1))
                people = {g: _ordered(survey["cuts"], place + sign * lean) for g, lean in zip(survey["groups"], held["lean"])}
                people[""] = tuple(sum(x) / len(x) for x in zip(*people.values()))
                options = tuple(survey["scales"][frame["scale"]])
                found.append(Question(topic, text, options, (survey["refused"],), tuple(range(1, len(options) + 1)), people))
    return found


def _ordered(cuts: Sequence[float], at: float) -> tuple[float, ...]:
    below = [0.0, *(1 / (1 + math.exp(-(cut + at))) for cut in cuts), 1.0]
    return tuple(b - a for a, b in pairwise(below))


def _global(row: Mapping[str, Any]) -> Question | None:
    """A row of GlobalOpinionQA (Durmus et al. 2306.16388): shares by country; the places are the order of the options, which the
    paper does not use. Everybody is the countries' mean. None for fewer than two options that are no refusals."""
    inside = re.search(r"\{.*\}", str(row["selections"]), re.S)
    countries = ast.literal_eval(inside[0] if inside else "{}")
    options = [str(o) for o in ast.literal_eval(str(row["options"]))]
    kept, refusals = _split(options)
    places = [i for i, o in enumerate(options) if o in kept]
    people = {f"country: {name}": _shares([float(shares[i]) for i in places]) for name, shares in countries.items()
              if len(shares) == len(options) and sum(float(shares[i]) for i in places) > 0}
    if len(kept) < 2 or not people:
        return None
    people[""] = tuple(sum(x) / len(x) for x in zip(*people.values()))
    return Question(str(row.get("source") or ""), str(row["question"]), kept, refusals, tuple(range(1, len(kept) + 1)), people)


def _question(row: Mapping[str, Any]) -> Question:
    options, refusals = _split(row["options"])
    people = {"": _shares(row["everybody"]), **{g: _shares(s) for g, s in row.get("groups", {}).items()}}
    ordinal = tuple(float(x) for x in row["ordinal"])
    if any(len(s) != len(options) for s in people.values()) or len(ordinal) != len(options) or len(set(ordinal)) < 2:
        raise ValueError(f"{row['question']!r}: shares and places must be as many as the options that are no refusals")
    return Question(str(row.get("topic", "")), row["question"], options, refusals, ordinal, people)


def _split(options: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    refusals = tuple(o for o in options if o.strip().lower() in REFUSED)
    return tuple(o for o in options if o not in refusals), refusals


def _shares(weights: Sequence[float]) -> tuple[float, ...]:
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError("shares must be positive")
    return tuple(w / total for w in weights)


def _original(info_path: str, responses_path: str, groups: str) -> list[Question]:
    """OpinionQA's files of one survey: answers weighted by the column WEIGHT…; questions nobody answered are left out."""
    try:
        with Path(responses_path).open(encoding="utf-8", newline="") as f:
            people = list(csv.DictReader(f))
        with Path(info_path).open(encoding="utf-8", newline="") as f:
            info = list(csv.DictReader(f))
        weight = next((c for c in people[0] if c.upper().startswith("WEIGHT")), "")
        columns = [c for c in groups.split(",") if c in people[0]]
        found = []
        for row in info:
            every = tuple(ast.literal_eval(row["references"]))
            ordinal = tuple(float(x) for x in ast.literal_eval(row["option_ordinal"]))
            options, refusals = every[:len(ordinal)], every[len(ordinal):]  # its places are of the options that are no refusals
            counts: dict[str, dict[str, float]] = {}
            for person in people:
                answer = person.get(row["key"], "")
                if answer in options:
                    for g in ("", *(f"{c}: {person[c]}" for c in columns if person[c])):
                        group = counts.setdefault(g, dict.fromkeys(options, 0.0))
                        group[answer] += float(person[weight] or 0.0) if weight else 1.0
            shares = {g: _shares([c[o] for o in options]) for g, c in counts.items() if sum(c.values()) > 0}
            if "" in shares and len(set(ordinal)) > 1:
                found.append(Question(row.get("topic") or row["key"], row["question"], options, refusals, ordinal, shares))
    except (OSError, KeyError, ValueError, SyntaxError, IndexError, TypeError) as error:
        raise wrong_layout(info_path, error, "OpinionQA's info.csv and responses.csv") from None
    if not found:
        raise UserError(f"Nobody in {responses_path} answered a question of {info_path}.", "Are they of one survey?")
    return found
