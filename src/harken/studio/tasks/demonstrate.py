"""Write the answer that a good assistant would give."""

from __future__ import annotations

from collections.abc import Sequence

from harken.studio.tasks import Json, Trial, WritingTask


class Demonstrate(WritingTask):
    title = "Write the ideal answer"
    hint = "for supervised fine-tuning"
    record = "demonstration"
    place = 0
    trial = Trial({"prompt": "Name a colour."}, {"text": "Blue."}, "demonstrations", {"completion": "Blue."})

    def read(self, form: Json, texts: Sequence[str], order: Sequence[int], answer: Json) -> Json:
        return {"completion": self.written(answer)}

    def shown(self, payload: Json, order: Sequence[int]) -> Json:
        return {"text": payload["completion"]}


TASK = Demonstrate()
