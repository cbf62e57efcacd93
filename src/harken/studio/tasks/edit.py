"""Improve an answer: gives a demonstration, a preference of the edited text, and the changed spans."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from harken.studio.tasks import Json, Trial, WritingTask
from harken.web.errors import ApiError
from harken.web.json_schema import Schema, text

LONGEST = 200_000
"""Characters of an item's original (`work.projects.LONGEST`)."""


class Edit(WritingTask):
    title = "Improve an answer"
    hint = "gives a demonstration, a preference and the changed words"
    record = "edit"
    place = 3
    completions = (1, 1)
    trial = Trial({"prompt": "Name a colour.", "original": "Blu."}, {"text": "Blue."}, "edits",
                  {"original": "Blu.", "completion": "Blue."})

    def answer(self, form: Json, k: int) -> tuple[dict[str, Schema], tuple[str, ...]]:
        return {"text": text(LONGEST + form["text"]["max_chars"], 1)}, ()

    def read(self, form: Json, texts: Sequence[str], order: Sequence[int], answer: Json) -> Json:
        """Unchanged text is a demonstration alone: it was good as it was. A long original may stay as long as it is."""
        original, edited = texts[0], self.written(answer)
        most = len(original) + int(form["text"]["max_chars"])
        if len(edited) > most:
            raise ApiError("bad_answer", f"The text has {len(edited):,} characters; {most:,} are allowed.", "Shorten it.")
        payload: Json = {"completion": edited, "original": original, "spans": spans(original, edited)}
        return payload | ({"completions": [edited, original], "ranks": [1, 2]} if edited != original else {})

    def shown(self, payload: Json, order: Sequence[int]) -> Json:
        return {"text": payload["completion"], "spans": payload["spans"]}


def spans(before: str, after: str) -> list[Json]:
    """What changed, word by word, as character offsets [from, to) into both texts."""
    if before == after:
        return []
    words = [_words(before), _words(after)]
    ends = [[0], [0]]
    for side, some in enumerate(words):
        for word in some:
            ends[side].append(ends[side][-1] + len(word))
    steps = SequenceMatcher(None, words[0], words[1], autojunk=len(words[0]) > 2000).get_opcodes()
    return [{"op": op, "from": [ends[0][a], ends[0][b]], "to": [ends[1][c], ends[1][d]]}
            for op, a, b, c, d in steps if op != "equal"]


def _words(text: str) -> list[str]:
    """Words and the spaces between them, so that they join to the text."""
    words: list[str] = []
    for character in text:
        if words and character.isalnum() and words[-1][-1].isalnum():
            words[-1] += character
        else:
            words.append(character)
    return words


TASK = Edit()
