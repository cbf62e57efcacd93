"""Two answers side by side: which is better, and by how much; or a tie."""

from __future__ import annotations

from collections.abc import Sequence

from harken.studio.tasks import Json, Task, Trial
from harken.web.json_schema import Schema, array, integer, obj, text

STRENGTHS = ("slightly better", "better", "much better")
FIELDS = {"strength": obj({"max": integer(1, 5), "labels": array(text(60), 1, 5)})}


class Compare(Task):
    title = "Compare two answers"
    hint = "two answers side by side, seven steps from A to B"
    record = "ranking"
    place = 2
    completions = (2, 2)
    compares = True
    fields = FIELDS
    trial = Trial({"prompt": "Name a colour.", "completions": ["Blue.", "Seven."]}, {"preference": 0}, "comparisons",
                  {"ranks": [1, 1], "strength": 0})

    def form(self) -> Json:
        return {"strength": {"max": 3, "labels": list(STRENGTHS)}}

    def answer(self, form: Json, k: int) -> tuple[dict[str, Schema], tuple[str, ...]]:
        return {"preference": integer(-form["strength"]["max"], form["strength"]["max"])}, ()

    def read(self, form: Json, texts: Sequence[str], order: Sequence[int], answer: Json) -> Json:
        ranks, preference = [1, 1], answer["preference"]
        if preference:
            ranks[order[0 if preference > 0 else 1]] = 2
        return {"completions": list(texts), "ranks": ranks, "strength": abs(preference)}

    def shown(self, payload: Json, order: Sequence[int]) -> Json:
        first, second = (payload["ranks"][i] for i in order)
        return {"preference": payload["strength"] * ((first > second) - (first < second))}

    def same(self, one: Json, other: Json) -> bool:
        """The same side preferred, by however much."""
        return bool(one["ranks"] == other["ranks"])


TASK = Compare()
