"""Questions of a lead's own about an item, about each answer, or about each turn of the assistant's in a dialogue.

A question is a scale (ordered grades), one choice of several, several choices, or spans marked in an answer with a label. What
each is a likelihood of stands in docs/labelers.md; spans have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from harken.studio.tasks import Json, Task, Trial
from harken.web.errors import ApiError
from harken.web.json_schema import BOOLEAN, Schema, array, enum, integer, nullable, obj, text

NAME: Schema = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"}
OPTION = obj({"name": NAME, "label": text(200, 1)})
QUESTION = obj({"name": NAME, "label": text(400, 1), "about": enum("item", "answer", "turn"),
                "type": enum("scale", "one", "several", "spans"), "min": integer(0, 100), "max": integer(1, 100), "low": text(60),
                "high": text(60), "options": array(OPTION, 1, 40), "required": BOOLEAN},
               optional=("min", "max", "low", "high", "options", "required"))
MOST_SPANS = 500
TURNS = 1000


class Questions(Task):
    title = "Answer questions"
    hint = "scales, choices and marked spans of your own, about the item, each answer, or each turn of a dialogue"
    record = "questions"
    place = 4
    completions = (0, 9)
    fields: ClassVar = {"questions": array(QUESTION, 1, 20)}
    trial = Trial(
        {"prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
                    {"role": "user", "content": "Name a colour."}], "completions": ["Blue.", "Blue. 🔵"]},
        {"said": {"item": {}, "turns": [],
                  "answers": [{"helpful": 5, "tone": "neutral", "errors": [{"from": 0, "to": 4, "label": "fact"}]}] * 2}},
        "questions", {"completions": ["Blue.", "Blue. 🔵"], "said": {"item": {}, "turns": [], "answers": [
            {"helpful": 5, "tone": "neutral", "errors": [{"from": 0, "to": 4, "label": "fact"}]}] * 2}})

    def form(self) -> Json:
        tones = [{"name": name.lower(), "label": name} for name in ("Friendly", "Neutral", "Rude")]
        errors = [{"name": "fact", "label": "Wrong fact"}, {"name": "language", "label": "Bad language"}]
        return {"questions": [
            {"name": "helpful", "label": "How helpful is it?", "about": "answer", "type": "scale", "min": 1, "max": 7,
             "low": "not at all", "high": "very"},
            {"name": "tone", "label": "How does it sound?", "about": "answer", "type": "one", "options": tones},
            {"name": "errors", "label": "Mark what is wrong", "about": "answer", "type": "spans", "options": errors,
             "required": False}]}

    def answer(self, form: Json, k: int) -> tuple[dict[str, Schema], tuple[str, ...]]:
        asked = {about: [q for q in form["questions"] if q["about"] == about] for about in ("item", "answer", "turn")}
        about = {name: _answers(questions) for name, questions in asked.items()}
        turn = {**about["turn"], "properties": {"turn": integer(0, 10_000), **about["turn"]["properties"]},
                "required": ["turn", *about["turn"]["required"]]}
        return {"said": obj({"item": about["item"], "answers": array(about["answer"], k, k),
                             "turns": array(turn, 0, TURNS)})}, ()

    def read(self, form: Json, texts: Sequence[str], order: Sequence[int], answer: Json) -> Json:
        said = answer["said"]
        given: list[Json] = [{}] * len(order)
        for place, one in enumerate(said["answers"]):
            given[order[place]] = one
        spans = [q["name"] for q in form["questions"] if q["type"] == "spans"]
        for words, one in zip(texts, given):
            for name in spans:
                _check_spans(one.get(name) or [], words, name)
        turns = [one["turn"] for one in said["turns"]]
        if len(set(turns)) < len(turns):
            raise ApiError("bad_answer", '"answer.said.turns" names a turn twice.')
        return {"completions": list(texts), "said": {"item": said["item"], "answers": given, "turns": said["turns"]},
                "questions": form["questions"]}

    def shown(self, payload: Json, order: Sequence[int]) -> Json:
        said = payload["said"]
        return {"said": {**said, "answers": [said["answers"][i] for i in order]}}


def _answers(questions: Sequence[Mapping[str, Any]]) -> Schema:
    """What the answers to some questions look like: those not required may be null or left out."""
    fields = {q["name"]: _value(q) for q in questions}
    free = tuple(q["name"] for q in questions if not q.get("required", True))
    return obj({name: nullable(schema) if name in free else schema for name, schema in fields.items()}, free)


def _value(question: Mapping[str, Any]) -> Schema:
    names = [o["name"] for o in question.get("options", ())]
    if question["type"] == "scale":
        return integer(question["min"], question["max"])
    if question["type"] == "one":
        return enum(*names)
    if question["type"] == "several":
        return array(enum(*names), 0, len(names))
    return array(obj({"from": integer(0), "to": integer(1), "label": enum(*names)}), 0, MOST_SPANS)


def _check_spans(spans: Sequence[Mapping[str, Any]], words: str, name: str) -> None:
    """Spans are characters [from, to) of the answer, counted as Python counts them."""
    for span in spans:
        if not span["from"] < span["to"] <= len(words):
            raise ApiError(
                "bad_answer", f'"{name}" marks {span["from"]} to {span["to"]} of an answer of {len(words)} characters.'
            )


def check_labels(labels: Sequence[str], what: str) -> None:
    """Raises ApiError for words on the page that are blank, or that nobody could tell from the next ones."""
    keys = [" ".join(label.split()).casefold() for label in labels]
    if not all(keys):
        raise ApiError("bad_request", f"A label is blank ({what}).", "Say in words what is asked.")
    if twice := next((label for label, key in zip(labels, keys) if keys.count(key) > 1), None):
        raise ApiError("bad_request", f"A second {what} is called {twice.strip()}.", "Give each words of its own.")


def check_questions(questions: Sequence[Mapping[str, Any]]) -> None:
    """Raises ApiError for questions that nobody could answer."""
    names = [q["name"] for q in questions]
    if len(set(names)) < len(names) or "turn" in names:
        raise ApiError("bad_request", "Two questions have the same name, or one is called turn.")
    for q in questions:
        check_labels([q["label"]], "question")
        check_labels([o["label"] for o in q.get("options", ())], f'option of "{q["name"]}"')
        if q["type"] == "scale" and not q.get("min", 0) < q.get("max", 0):
            raise ApiError("bad_request", f'The scale "{q["name"]}" needs "min" below "max".')
        options = [o["name"] for o in q.get("options", ())]
        if q["type"] != "scale" and (len(options) < (1 if q["type"] == "spans" else 2) or len(set(options)) < len(options)):
            raise ApiError("bad_request", f'"{q["name"]}" needs options with different names.')
        if q["type"] == "spans" and q["about"] != "answer":
            raise ApiError("bad_request", f'"{q["name"]}": spans are marked in answers.')


TASK = Questions()
