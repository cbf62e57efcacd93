"""How far people agree on a form's own questions.

Scales by Krippendorff's alpha with ordinal distances, choices by nominal ones, each option of several choices by itself; spans by
the mean Dice coefficient of two people's marked characters, 1 where neither marked anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from harken.labelers.agreement.coefficients import agreement
from harken.labelers.ratings import ratings_of
from harken.stats.intervals import mean_interval
from harken.studio.lead.measures import Row
from harken.studio.work.stored import StoredAnswer

Unit = tuple[Any, ...]


def agreement_rows(counted: Sequence[StoredAnswer]) -> list[Row]:
    """A row for each question that two people answered of one thing."""
    rows: list[Row] = []
    asked = {q["name"]: q for s in counted for q in s.payload.get("questions", ())}
    for name, question in asked.items():
        given = [(unit, s.labeler, said[name], s.item) for s in counted for unit, said in _said(s, question["about"])
                 if said.get(name) is not None]
        if question["type"] == "spans":
            rows += _of_spans(question, given)
        elif question["type"] == "several":
            for option in question["options"]:
                ticked = [(u, who, float(option["name"] in value), item) for u, who, value, item in given]
                rows += _alpha(f"{question['label']}: {option['label']}", ticked, "nominal")
        else:
            scale = question["type"] == "scale"
            values = [(u, who, float(value) if scale else value, item) for u, who, value, item in given]
            rows += _alpha(question["label"], values, "ordinal" if scale else "nominal")
    return rows


def _said(answer: StoredAnswer, about: str) -> Iterator[tuple[Unit, Mapping[str, Any]]]:
    """What was said of each thing that a question is about, under a name of the thing."""
    said = answer.payload.get("said")
    if said is None:
        return
    if about == "item":
        yield (answer.item,), said["item"]
    elif about == "answer":
        yield from (((answer.item, i), one) for i, one in enumerate(said["answers"]))
    else:
        yield from (((answer.item, one["turn"]), one) for one in said["turns"])


def _alpha(label: str, given: Sequence[tuple[Unit, str, Any, int]], scale: Any) -> list[Row]:
    people = defaultdict(set)
    for unit, who, _, _ in given:
        people[unit].add(who)
    shared = [g for g in given if len(people[g[0]]) > 1]
    if not shared:
        return []
    ratings = ratings_of([(unit, who, value) for unit, who, value, _ in shared], clusters=[item for *_, item in shared])
    result = agreement(ratings, ("alpha",), scale)["alpha"]
    if result is None:
        return []
    return [Row(label, result.value, result.chance, result.units, "answered", f"Krippendorff's alpha, {scale}")]


def _of_spans(question: Mapping[str, Any], given: Sequence[tuple[Unit, str, Any, int]]) -> list[Row]:
    """The mean overlap of two people's marks, label for label, with an interval over items."""
    marked: dict[Unit, dict[str, set[tuple[int, str]]]] = defaultdict(dict)
    item_of: dict[Unit, int] = {}
    for unit, who, spans, item in given:
        marked[unit][who] = {(at, span["label"]) for span in spans for at in range(span["from"], span["to"])}
        item_of[unit] = item
    overlaps = [(dice(a, b), item_of[unit]) for unit, of in marked.items() for a, b in combinations(of.values(), 2)]
    if not overlaps:
        return []
    mean = mean_interval([value for value, _ in overlaps], [item for _, item in overlaps], bounds=(0, 1))
    return [Row(question["label"], mean, None, len(overlaps), "answered", "Dice overlap of marked characters")]


def dice(a: set[Any], b: set[Any]) -> float:
    """Twice what is in both, by the sum of their sizes; two empty sets are alike."""
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0
