"""Answers put in order, ties where the form allows them, and nothing else: the ranking of InstructGPT without its ratings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from harken.studio.tasks import Json, Task, Trial, dense
from harken.web.errors import ApiError
from harken.web.json_schema import BOOLEAN, Schema, array, integer, obj


class Rank(Task):
    title = "Rank answers"
    hint = "two to nine answers from best to worst, ties allowed, nothing else asked"
    record = "ranking"
    place = 2
    completions = (2, 9)
    compares = True
    fields: ClassVar = {"ranking": obj({"ties": BOOLEAN})}
    trial = Trial({"prompt": "Name a colour.", "completions": ["Blue.", "Azure.", "Azure."]}, {"ranks": [1, 1, 1]},
                  "comparisons", {"ranks": [1, 1, 1]})

    def form(self) -> Json:
        return {"ranking": {"ties": True}}

    def answer(self, form: Json, k: int) -> tuple[dict[str, Schema], tuple[str, ...]]:
        return {"ranks": array(integer(1, k), k, k)}, ()

    def read(self, form: Json, texts: Sequence[str], order: Sequence[int], answer: Json) -> Json:
        if not form["ranking"]["ties"] and len(set(answer["ranks"])) < len(order):
            raise ApiError("bad_answer", "This project's rankings have no ties.", "Give every answer a rank of its own.")
        ranks = [0] * len(order)
        for place, rank in enumerate(dense(answer["ranks"])):
            ranks[order[place]] = rank
        return {"completions": list(texts), "ranks": ranks}

    def shown(self, payload: Json, order: Sequence[int]) -> Json:
        return {"ranks": [payload["ranks"][i] for i in order]}


TASK = Rank()
