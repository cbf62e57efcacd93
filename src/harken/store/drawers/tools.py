"""What each tool's export looks like: how a row is known, and what of the rows is somebody's judgment of an answer.

Sources: Open WebUI's models/feedbacks.py and admin export; LibreChat's types/message.ts and conversation export; Langfuse's API
(scores, traces, observations); Phoenix's annotations and spans; LangSmith's feedback and run formats; TensorZero's data model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harken.store.drawers.content import answer_of, at, turns_of

Row = Mapping[str, Any]
BY_MODEL = "given by a model or by code, not by a person"
NO_ANSWER = "the answer it is of is in none of the files"
NO_VALUE = "no verdict in it"
THOUGHTS = re.compile(r'<details type="reasoning".*?</details>\s*', re.S)
"""How Open WebUI keeps a model's thoughts in its message."""


@dataclass(frozen=True)
class Said:
    """One person's verdict on one answer; `better` is a corrected answer."""

    id: str
    metric: str
    value: bool | float | None
    asked: Sequence[tuple[str, str]]
    answer: str
    rater: str | None = None
    comment: str | None = None
    better: str | None = None
    model: str | None = None
    at: str | None = None


Found = tuple[list[Said], Counter[str]]


# --- Open WebUI ----------------------------------------------------------------------------------------


def is_open_webui(row: Row) -> bool:
    return {"user_id", "data", "snapshot"} <= row.keys() and isinstance(row.get("data"), Mapping) and "rating" in row["data"]


def open_webui(rows: Sequence[Row]) -> Found:
    """Rows of the admin's export of feedback: a verdict ±1 with a snapshot of the chat. That a thumb beats the other models'
    answers beside it is Open WebUI's reading, not what was said: it comes as a thumb."""
    said: list[Said] = []
    left = Counter[str]()
    for row in filter(is_open_webui, rows):
        data = row["data"]
        messages = _inner(at(row, "snapshot", "chat", "chat", "history", "messages"))
        found = _thread(messages, at(row, "meta", "message_id"), "parentId", "role", "content")
        value = number(data.get("rating"))
        if found is None:
            left[NO_ANSWER] += 1
        elif value is None:
            left[NO_VALUE] += 1
        else:
            words = [w for w in (text(data.get("reason")), text(data.get("comment"))) if w]
            asked = [(role, THOUGHTS.sub("", words) if role == "assistant" else words) for role, words in found[0]]
            said.append(Said(str(row.get("id")), "rating", value, asked, THOUGHTS.sub("", found[1]), text(row.get("user_id")),
                             ": ".join(words) or None, model=text(data.get("model_id")), at=text(row.get("updated_at"))))
    return said, left


def _thread(messages: Mapping[str, Any], last: Any, parent: str, role: str,
            content: str) -> tuple[list[tuple[str, str]], str] | None:
    """The turns up to a message, and its text."""
    turns: list[tuple[str, str]] = []
    seen: set[Any] = set()
    while isinstance(last, str) and last not in seen and isinstance(message := messages.get(last), Mapping):
        seen.add(last)
        turns.append((str(message.get(role)), answer_of(message.get(content)) or ""))
        last = message.get(parent)
    turns.reverse()
    return (turns[:-1], turns[-1][1]) if len(turns) > 1 and turns[-1][0] == "assistant" else None


# --- LibreChat -----------------------------------------------------------------------------------------


def is_librechat(row: Row) -> bool:
    if "isCreatedByUser" in row and "messageId" in row:
        return True
    return "conversationId" in row and isinstance(row.get("messages"), list) and any(
        isinstance(m, Mapping) and "isCreatedByUser" in m for m in row["messages"])


def librechat(rows: Sequence[Row]) -> Found:
    """Exported conversations (flat or as trees), or messages of its database. A changed thumb overwrites the old one there: only
    the last is known."""
    said: list[Said] = []
    left = Counter[str]()
    flat: dict[str, dict[str, Any]] = {}

    def add(message: Row, user: Any) -> None:
        words = message.get("text") or answer_of(message.get("content")) or ""
        flat[str(message.get("messageId"))] = {
            "parent": str(message.get("parentMessageId")), "role": "user" if message.get("isCreatedByUser") else "assistant",
            "content": words, "message": message, "user": message.get("user") or user}
        for child in _objects(message.get("children")):
            add(child, user)
    for row in filter(is_librechat, rows):
        for message in [row] if "messageId" in row else _objects(row.get("messages")):
            add(message, row.get("user"))
    for name, node in flat.items():
        verdict = node["message"].get("feedback")
        if not isinstance(verdict, Mapping) or not verdict.get("rating"):
            continue
        found = _thread(flat, name, "parent", "role", "content")
        up = {"thumbsUp": True, "thumbsDown": False}.get(str(verdict["rating"]))
        if found is None or up is None:
            left[NO_ANSWER if found is None else NO_VALUE] += 1
            continue
        tag = verdict.get("tag")
        words = [w for w in (text(tag.get("key") if isinstance(tag, Mapping) else tag), text(verdict.get("text"))) if w]
        said.append(Said(name, "feedback", up, *found, text(node["user"]), ": ".join(words) or None,
                         model=text(node["message"].get("model")), at=text(node["message"].get("updatedAt"))))
    return said, left


# --- Langfuse ------------------------------------------------------------------------------------------


def is_langfuse(row: Row) -> bool:
    if {"trace_id", "name", "value", "data_type"} <= row.keys() or {"traceId", "name", "value"} <= row.keys():
        return True
    return bool(isinstance(row.get("scores"), list) and "input" in row and any(
        isinstance(s, Mapping) and "traceId" in s for s in row["scores"]))


def _camel(row: Row) -> Row:
    """Langfuse's exports to a bucket write trace_id where its API writes traceId."""
    return {re.sub("_([a-z])", lambda m: m[1].upper(), name): value for name, value in row.items()}


def _langfuse_value(score: Row) -> bool | float | None:
    """A category is what its word says: the number beside it is no verdict."""
    kind, word = str(score.get("dataType")).upper(), text(score.get("stringValue")) or text(score.get("value"))
    value = None if kind == "CATEGORICAL" else number(score.get("value"))
    if value is None:
        return verdict(word)
    return bool(value) if kind == "BOOLEAN" else value


def langfuse(rows: Sequence[Row]) -> Found:
    """Scores, and the traces or observations they are of (`GET /api/public/scores`, `/traces`, `/observations`)."""
    said: list[Said] = []
    left = Counter[str]()
    rows = [_camel(row) for row in rows]
    answers = {str(row["id"]): row for row in rows if "id" in row and "input" in row and "output" in row}
    for row in list(answers.values()):  # where there are no traces, the outermost observation is what the person saw
        if row.get("traceId") and not row.get("parentObservationId"):
            answers.setdefault(str(row["traceId"]), row)
    inner = [score for row in rows for score in _objects(row.get("scores")) if "traceId" in score]
    scores = {str(s.get("id", n)): s for n, s in enumerate([*filter(lambda r: "traceId" in r and "value" in r, rows), *inner])}
    for name, score in scores.items():
        if str(score.get("source")).upper() == "EVAL":
            left[BY_MODEL] += 1
            continue
        of = answers.get(str(score.get("observationId"))) or answers.get(str(score.get("traceId")))
        corrected = str(score.get("dataType")).upper() == "CORRECTION"
        value = None if corrected else _langfuse_value(score)
        _add(said, left, name, str(score.get("name")), value, of and of.get("input"),
             of and of.get("output"), rater=text(score.get("authorUserId")), comment=text(score.get("comment")),
             better=text(score.get("stringValue")) if corrected else None, model=text(of and of.get("model")),
             when=text(score.get("timestamp")))
    return said, left


# --- Phoenix -------------------------------------------------------------------------------------------


def is_phoenix(row: Row) -> bool:
    return "annotator_kind" in row and ("span_id" in row or "context.span_id" in row)


def phoenix(rows: Sequence[Row]) -> Found:
    """Span annotations (of the API, or the client's data frame) and the spans they are of."""
    said: list[Said] = []
    left = Counter[str]()
    spans = {str(at(r, "context", "span_id")): r for r in rows if at(r, "context", "span_id") and "annotator_kind" not in r}
    for row in filter(is_phoenix, rows):
        if str(row["annotator_kind"]).upper() != "HUMAN":
            left[BY_MODEL] += 1
            continue
        span = spans.get(str(row.get("span_id") or row.get("context.span_id")))
        asked = answered = None
        if span is not None:
            asked = at(span, "attributes", "llm", "input_messages") or at(span, "attributes", "input", "value")
            answered = at(span, "attributes", "llm", "output_messages") or at(span, "attributes", "output", "value")
        score, label = number(at(row, "result", "score")), text(at(row, "result", "label"))
        _add(said, left, str(row.get("id") or row.get("span_id")), str(row.get("name") or row.get("annotation_name")),
             verdict(label) if score is None else score, asked, answered,
             rater=text(row.get("user_id")) or text(row.get("identifier")),
             comment=text(at(row, "result", "explanation")), model=text(span and at(span, "attributes", "llm", "model_name")),
             when=text(row.get("updated_at")))
    return said, left


# --- LangSmith -----------------------------------------------------------------------------------------


def is_langsmith(row: Row) -> bool:
    return {"run_id", "key"} <= row.keys() and bool({"score", "value", "correction"} & row.keys())


def langsmith(rows: Sequence[Row]) -> Found:
    """Feedback (`list_feedback`) and the runs it is of (`list_runs`)."""
    said: list[Said] = []
    left = Counter[str]()
    runs = {str(row["id"]): row for row in rows if "inputs" in row and "outputs" in row and "id" in row}
    for row in filter(is_langsmith, rows):
        source = row.get("feedback_source") or {}
        kind = source.get("type") if isinstance(source, Mapping) else row.get("feedback_source_type")
        if str(kind) in ("model", "evaluator", "auto_eval"):
            left[BY_MODEL] += 1
            continue
        run = runs.get(str(row["run_id"]))
        asked, answered = run and run.get("inputs"), run and run.get("outputs")
        score = row.get("score") if isinstance(row.get("score"), bool) else number(row.get("score"))
        better = answer_of(row.get("correction")) if row.get("correction") else None
        rater = text(source.get("user_id")) if isinstance(source, Mapping) else None
        common = {"rater": rater, "comment": text(row.get("comment")), "when": text(row.get("modified_at")),
                  "model": text(at(run, "extra", "metadata", "ls_model_name"))}
        if score is not None or better is None:
            value = verdict(text(row.get("value"))) if score is None else score
            _add(said, left, str(row.get("id")), str(row["key"]), value, asked, answered, **common)
        if better is not None:
            _add(said, left, f"{row.get('id')}:correction", str(row["key"]), None, asked, answered, better=better, **common)
    return said, left


# --- TensorZero ----------------------------------------------------------------------------------------


def is_tensorzero(row: Row) -> bool:
    demonstration = {"inference_id", "value"} <= row.keys() and "metric_name" not in row
    return demonstration or {"target_id", "metric_name", "value"} <= row.keys()


def tensorzero(rows: Sequence[Row]) -> Found:
    """Tables BooleanMetricFeedback, FloatMetricFeedback, DemonstrationFeedback and ChatInference. Feedback on an episode is of no
    one answer; a tag `user_id`, `user` or `rater` names who gave it."""
    said: list[Said] = []
    left = Counter[str]()
    inferences = {str(row.get("id") or row.get("inference_id")): row for row in rows
                  if "function_name" in row and "input" in row and "output" in row}
    for row in filter(is_tensorzero, rows):
        of = inferences.get(str(row.get("target_id") or row.get("inference_id")))
        tags = row.get("tags") if isinstance(row.get("tags"), Mapping) else {}
        rater = next((text(tags[name]) for name in ("user_id", "user", "rater") if tags and tags.get(name)), None)
        shown = "metric_name" not in row
        value = None if shown else row["value"] if isinstance(row["value"], bool) else number(row["value"])
        _add(said, left, str(row.get("id")), "demonstration" if shown else str(row["metric_name"]), value, of and of.get("input"),
             of and of.get("output"), rater=rater, better=answer_of(row["value"]) if shown else None,
             model=text(of and of.get("variant_name")), when=text(row.get("timestamp")))
    return said, left


# --- what they share -----------------------------------------------------------------------------------


YES = ("thumbs-up", "thumbsup", "thumb-up", "up", "good", "correct", "yes", "true", "positive", "👍", "like", "helpful")
NO = ("thumbs-down", "thumbsdown", "thumb-down", "down", "bad", "incorrect", "no", "false", "negative", "👎", "dislike",
      "unhelpful")


def verdict(label: str | None) -> bool | None:
    word = re.sub("[\\s_-]+", "-", re.sub("[\U0001F3FB-\U0001F3FF\uFE0F]", "", label or "").strip().lower())  # 👍🏽 is 👍
    return True if word in YES else False if word in NO else None


def number(value: Any) -> float | None:
    try:
        found = float(value) if isinstance(value, bool | int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def text(value: Any) -> str | None:
    """A word or a number as text; lists and objects are none."""
    return None if value == "" or not isinstance(value, str | int | float) else str(value)


def _inner(value: Any) -> Row:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Row]:
    """The objects of a list; nothing of what is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _add(said: list[Said], left: Counter[str], name: str, metric: str, value: bool | float | None, asked: Any, answered: Any, *,
         rater: str | None = None, comment: str | None = None, better: str | None = None, model: str | None = None,
         when: str | None = None) -> None:
    turns, answer = turns_of(asked), answer_of(answered)
    if not turns or not answer:
        left[NO_ANSWER] += 1
    elif value is None and better is None:
        left[NO_VALUE] += 1
    else:
        said.append(Said(name, metric, value, turns, answer, rater, comment, better, model, when))


TOOLS: dict[str, tuple[Callable[[Row], bool], Callable[[Sequence[Row]], Found]]] = {
    "Open WebUI": (is_open_webui, open_webui), "LibreChat": (is_librechat, librechat), "Langfuse": (is_langfuse, langfuse),
    "Phoenix": (is_phoenix, phoenix), "LangSmith": (is_langsmith, langsmith), "TensorZero": (is_tensorzero, tensorzero)}
