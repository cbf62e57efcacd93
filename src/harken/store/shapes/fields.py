"""What a field's name means, and which of a row's fields were read.

An adapter takes fields out of a `Row` with `take`; what it leaves is unread. `check_unread` refuses a row whose unread
fields hold a verdict, a part of the prompt or another answer, and returns the others, to be counted. docs/data.md has
the table of names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

VERDICT_WORDS = frozenset(
    ["label", "labels", "labelled", "labeled", "rating", "ratings", "rated", "score", "scores", "scored", "rank", "ranks",
     "ranking", "rankings", "ranked", "preference", "preferences", "preferred", "prefer", "prefers", "winner", "winners", "won",
     "win", "wins", "loser", "tie", "ties", "tied", "better", "best", "worse", "worst", "thumb", "thumbs", "thumbsup",
     "thumbsdown", "feedback", "feedbacks", "vote", "votes", "voted", "upvote", "upvotes", "upvoted", "downvote", "downvotes",
     "downvoted", "like", "likes", "liked", "dislike", "disliked", "reward", "rewards", "verdict", "verdicts", "judgement",
     "judgements", "judgment", "judgments", "choice", "choices", "accept", "accepted", "approve", "approved", "rejected",
     "chosen", "selected", "selection", "kto", "flip", "flipped", "swap", "swapped", "reversed", "reverse", "inverted", "status",
     "quality", "helpfulness", "helpful", "unhelpful", "harmlessness", "harmless", "harmful", "harmfulness", "safe", "safer",
     "unsafe", "safety", "correctness", "correct", "incorrect", "coherence", "coherent", "complexity", "verbosity", "honesty",
     "honest", "truthfulness", "truthful", "toxicity", "toxic", "relevance", "stars", "star", "grade", "grades", "good", "bad",
     "desirable", "undesirable", "evaluation", "evaluations", "annotation", "annotations", "satisfaction", "satisfied",
     "overall"])
"""A field with one of these words in its name is a verdict: `is_response_0_safe`, `kto_tag`, `winner_model_a`."""

ANSWER_VERDICTS = frozenset(
    ["pass", "passed", "passes", "fail", "failed", "valid", "invalid", "acceptable", "unacceptable", "acceptance", "reject",
     "rejection", "success", "successful", "outcome", "decision", "pick", "picked", "favorite", "favourite", "karma", "points",
     "accuracy", "accurate", "inaccurate", "factuality", "factual", "fluency", "fluent", "relevant", "irrelevant",
     "appropriate", "inappropriate", "engaging", "naturalness", "natural", "agree", "disagree", "agreement", "reaction",
     "sentiment", "usable", "useful", "useless", "usefulness", "utility", "refusal", "refused", "hallucination",
     "hallucinations", "hallucinated", "harm", "violation", "violations", "severity", "critique", "rubric", "keep", "discard",
     "discarded", "deleted", "verified", "verification", "completeness", "groundedness", "grounded", "faithful",
     "faithfulness", "conciseness", "clarity"])
"""Beside a single answer these are verdicts too."""
FAULTS = frozenset(
    ["tie", "ties", "tied", "flip", "flipped", "swap", "swapped", "reversed", "reverse", "inverted", "bad", "worse", "worst",
     "loser", "dislike", "disliked", "downvoted", "rejected", "reject", "rejection", "unhelpful", "harmful", "harm", "unsafe",
     "toxic", "toxicity", "incorrect", "undesirable", "fail", "failed", "invalid", "unacceptable", "inaccurate", "irrelevant",
     "inappropriate", "disagree", "useless", "refusal", "refused", "hallucination", "hallucinated", "violation", "discard",
     "discarded", "deleted", "flagged"])
"""A field that says that one of these is *not* so loses nothing: `tie: false`, `toxic: false`."""
FACTS = frozenset(
    ["redacted", "code", "synthetic", "stream", "streaming", "translated", "train", "test", "eval", "multi", "turn", "custom",
     "generated", "english", "human", "image", "has", "think", "thinking", "reasoning", "skip", "math", "gsm", "upworker",
     "anony", "anonymous", "augmented", "seed", "tools", "tool", "system", "prompt", "question", "instruction", "task", "input",
     "context", "classification", "extraction", "summarization", "brainstorming", "rewriting", "writing", "qa", "chat",
     "roleplay", "creative", "coding", "open", "closed", "multilingual", "first", "last", "long",
     "short", "multimodal", "few", "shot"])
"""A yes or no beside a single answer is a verdict, but not where its name has one of these words: `is_code`, `redacted`."""
SAID = frozenset(
    ["accept", "accepted", "reject", "rejected", "ignore", "ignored", "approve", "approved", "disapproved", "thumbs up",
     "thumbs down", "thumbs_up", "thumbs_down", "thumbsup", "thumbsdown", "👍", "👎", "upvote", "downvote", "like", "dislike",
     "pass", "fail", "passed", "failed", "keep", "discard", "preferred", "not preferred", "acceptable",
     "unacceptable", "good", "bad"])
"""What only a verdict says: beside a single answer it is one, whatever its field is called (Prodigy's `answer: reject`)."""
VOID = frozenset(["skip", "skipped", "delete", "deleted", "discard", "discarded", "cancelled", "canceled", "exclude", "excluded",
                  "invalid", "withdrawn", "retracted", "void", "spam", "duplicate", "draft"])
"""A field that says that one of these is so takes the judgment back: `was_cancelled: true`."""
STANDS = frozenset(["valid", "included", "include", "keep", "kept", "submitted", "verified"])
"""So does one that says that one of these is not so: `valid: false`."""
SIDES = frozenset(
    ["chosen", "rejected", "tie", "tied", "draw", "neither", "both_bad", "both_good", "bothbad", "a", "b", "left", "right",
     "model_a", "model_b", "response_a", "response_b", "a>b", "b>a", "a<b", "b<a", "a=b"])
"""What names one of two answers is a verdict on them, whatever its field is called."""
ABOUT_ROW = frozenset(
    ["id", "uid", "uuid", "hash", "source", "dataset", "model", "split", "category", "domain", "subset", "language", "lang",
     "type", "task", "name", "version", "date", "time", "timestamp", "url", "index", "idx", "group", "batch", "config", "tags",
     "meta", "metadata", "kind", "case", "labeler", "annotator", "worker", "rationale", "reason", "explanation", "generator",
     "difficulty", "topic", "license", "extra", "info"])
"""A field whose name ends with one of these tells where a row is from: no prompt and no verdict is looked for in it."""
PLAIN_IDS = frozenset(["annotation", "evaluation", "feedback", "judgment", "judgement", "rating", "label", "vote", "ranking"])
"""`annotation_id` is a number of the annotation; `better_response_id` is a verdict."""

ABOUT = frozenset(["source", "sources", "model", "models", "type", "types", "version", "url", "time", "timestamp", "date", "by",
                   "rationale", "rationales", "reason", "reasons", "reasoning", "explanation", "comment", "comments", "statement",
                   "elaboration", "template", "dataset", "confidence", "generator"])
"""A name that ends with one of these only tells about a verdict: `label_source`, `feedback_model`."""

ANSWER_WORDS = frozenset(["completion", "completions", "response", "responses", "output", "outputs", "answer", "answers", "reply",
                          "replies", "generation", "generations", "candidate", "candidates", "prediction", "predictions",
                          "summary", "summaries", "chosen", "rejected"])
REFERENCE_WORDS = frozenset(["reference", "correct", "gold", "golden", "ground", "expected", "true", "final", "target"])
"""`answer`, or an answer with one of these words, is what a prompt's answers are checked against: no judgment."""

PROMPT_NAMES = frozenset(
    ["prompt", "prompts", "instruction", "instructions", "question", "questions", "query", "queries", "input", "inputs", "system",
     "sys", "history", "context", "contexts", "messages", "conversation", "conversations", "dialog", "dialogue", "dialogues",
     "chat", "post", "tools", "functions", "image", "images", "img", "video", "videos", "audio", "audios", "tool_calls",
     "function_call", "attachments", "files"])
PROMPT_ENDS = ("_prompt", "_instruction", "_question", "_query", "_history", "_context", "_message", "_messages",
               "_conversation", "_image", "_images", "_audio", "_video")
SYSTEM_NAMES = ("system", "system_prompt", "system_message", "systemInstruction", "system_instruction")
LABELER_NAMES = ("labeler", "labeller", "labeler_id", "annotator", "annotator_id", "annotator_name", "worker", "worker_id",
                 "worker_name", "workerid", "rater", "rater_id", "judge", "evaluator", "evaluator_id",
                 "user_id", "user", "username")
"""Who judged, the first of these that a row has. The last three name the labeler only where something is judged."""
SAYS_WHO = frozenset(LABELER_NAMES) - {"username"}
ASKERS = LABELER_NAMES[-3:]
EXPORTED = ("form_version", "instruction_hash", "judgment", "item", "sources", "source", "notes", "seconds", "answered_at",
            "shown_order", "scale", "suggested", "accepted", "labeler_prompt_flags", "labeler_use_case")
"""What an export of the studio's says of an answer beside the answer."""

PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

VERDICT_IN_WORDS = ("Write verdicts in words that are read (docs/data.md). To leave such rows out would choose among the "
                    "judgments: take them out of the file yourself, if that is meant.")


class UnreadField(ValueError):
    """A field whose loss would change what the row says. Leaving the row out would choose among the judgments."""

    def __init__(self, reason: str, action: str) -> None:
        self.action = action
        super().__init__(reason)


NO_NAMES: frozenset[str] = frozenset()


class Row(dict[str, Any]):
    """A row without its null fields; `nulls` names those, `used` what an adapter took, `aside` what it knows and leaves
    unread, `notes` what is worth saying."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self.used: set[str] = set()
        self.aside: set[str] = set()
        self.notes: list[str] = []
        self.nulls: frozenset[str] = NO_NAMES
        if None in self.values():
            self.nulls = frozenset(k for k, v in given.items() if v is None)
            for name in self.nulls:
                del self[name]

    def take(self, name: str, default: Any = None) -> Any:
        """A field's value; it counts as read."""
        self.used.add(name)
        return self.get(name, default)

    def first(self, *names: str) -> str | None:
        """The first of the names that the row has."""
        for name in names:
            if name in self:
                return name
        return None


@lru_cache(4096)
def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in PARTS.findall(name))


@lru_cache(4096)
def means_verdict(name: str) -> bool:
    words = _words(name)
    if words[-1:] == ("id",) and not set(words) & VERDICT_WORDS - PLAIN_IDS:
        return False
    return any(word in VERDICT_WORDS for word in words) and words[-1] not in ABOUT and not means_reference(name)


@lru_cache(4096)
def _judges_answer(name: str) -> bool:
    words = _words(name)
    return any(word in ANSWER_VERDICTS for word in words) and words[-1] not in ABOUT


@lru_cache(4096)
def about_row(name: str) -> bool:
    words = [word for word in _words(name) if len(word) > 1]
    return words[-1:] == [] or words[-1] in ABOUT_ROW


def is_verdict(name: str, value: Any, judged: str) -> bool:
    """Whether a field holds a verdict, by its name and its value. `judged` as in `check_unread`."""
    word = str(value).strip().lower() if isinstance(value, (str, bool)) else ""
    if word == "false" and not FAULTS.isdisjoint(_words(name)):
        return False
    if means_verdict(name) or _takes_back(name, value) or says_who(value):
        return True
    if judged == "answer":
        return (_judges_answer(name) or (word in ("true", "false") and FACTS.isdisjoint(_words(name)))
                or (word in SAID and not about_row(name)) or (name in ("scale", "direction") and any(c.isalpha() for c in word)))
    return judged == "comparison" and word in SIDES and (word in ("chosen", "rejected") or not about_row(name))


def _takes_back(name: str, value: Any) -> bool:
    """Whether a field takes the whole judgment back: `skipped: true`, `valid: 0`."""
    word = str(value).strip().lower() if isinstance(value, (str, bool, int, float)) else ""
    words = _words(name)
    if word in ("true", "1", "1.0", "yes"):
        return words[-1:] != () and words[-1] in VOID
    return word in ("false", "0", "0.0", "no") and words[-1:] != () and words[-1] in STANDS


def says_who(value: Any) -> bool:
    """Whether a value is what annotators said: objects that name who said it (`[{"user_id": "u", "value": "bad"}]`)."""
    if isinstance(value, str) and value.lstrip()[:2] in ("[{", '{"'):
        try:
            value = json.loads(value)
        except ValueError:
            return False
    given = value if isinstance(value, list) else [value]
    return any(isinstance(one, Mapping) and len(one) > 1 and not SAYS_WHO.isdisjoint(one) for one in given)


@lru_cache(4096)
def means_reference(name: str) -> bool:
    words = [w for w in _words(name) if len(w) > 1]
    held = [w for w in words if w in ANSWER_WORDS]
    return words == ["answer"] or (bool(held) and any(w in REFERENCE_WORDS for w in words))


@lru_cache(4096)
def means_answer(name: str) -> bool:
    words = [w for w in _words(name) if len(w) > 1]
    return bool(words) and words[-1] in ANSWER_WORDS and not means_reference(name)


@lru_cache(4096)
def means_prompt(name: str) -> bool:
    low = name.lower()
    return low in PROMPT_NAMES or low.endswith(PROMPT_ENDS)


def looked_at(name: str) -> bool:
    """Whether a field's name alone says that it must be read or refused beside a comparison, or that it names a person."""
    return (means_prompt(name) or means_verdict(name) or means_answer(name) or name in LABELER_NAMES or name in SYSTEM_NAMES
            or not (VOID | STANDS).isdisjoint(_words(name)[-1:])
            or name in ("weight", "strength", "judgment_kind", "form_version", "tie"))


def check_unread(row: Row, *, judged: str, texts: Collection[str] = ()) -> list[str]:
    """The unread fields' names, or `UnreadField`.

    `judged`: "comparison", "answer" or "prompt" (what the row was read as), or "asked" (only its prompt was asked for).
    `texts`: the texts that were read; a field that repeats them loses nothing.
    """
    left = row.keys() - row.used
    if not left:
        return []
    held = sorted(name for name in left if holds_something(row[name]))
    lost: dict[str, list[str]] = {"prompt": [], "verdict": [], "answer": []}
    for name in held:
        meaning = None if name in row.aside else _meaning(name, row[name], judged)
        if meaning and not (meaning != "verdict" and _repeats(row[name], texts)):
            lost[meaning].append(name)
    for meaning, names in lost.items():
        if names:
            raise _refusal(meaning, names, row)
    return held


def _meaning(name: str, value: Any, judged: str) -> str | None:
    """What would be lost with a field: part of the prompt, a verdict, an answer; or nothing of these."""
    has_content = isinstance(value, (str, list, Mapping, bytes))
    if means_prompt(name) and has_content:
        return "prompt"
    if judged == "asked":
        return None
    if is_verdict(name, value, judged):
        return "verdict"
    one_more = judged != "comparison" or _words(name)[:1] in (("chosen",), ("rejected",))
    return "answer" if one_more and means_answer(name) and has_content else None


def _refusal(meaning: str, names: list[str], row: Row) -> UnreadField:
    quoted, ignored = ", ".join(f'"{name}"' for name in names[:6]), ",".join(names)
    one, beside = len(names) == 1, ", ".join(sorted(row.used & row.keys())[:4]) or "the other fields"
    if meaning == "verdict":
        return UnreadField(f"{quoted} {'holds a verdict that is' if one else 'hold verdicts that are'} not read beside {beside}",
                           f"Name it as what it is (--field label={names[0]}, score={names[0]} or preference={names[0]}), "
                           f"or leave it unread on purpose: --ignore {ignored}.")
    if meaning == "prompt":
        return UnreadField(f"{quoted} {'belongs' if one else 'belong'} to the prompt and cannot be read beside {beside}",
                           f"Put it into the prompt, name the prompt (--field prompt={names[0]}), or leave it unread on "
                           f"purpose: --ignore {ignored}.")
    return UnreadField(f"{quoted} {'holds' if one else 'hold'} answers, which are not read beside {beside}",
                       f"Import the prompts alone (--as prompts), name the answer (--field completion={names[0]}), or leave "
                       f"it unread on purpose: --ignore {ignored}.")


def holds_something(value: Any) -> bool:
    return not (value is None or value == "" or value == [] or value == {})


def _repeats(value: Any, texts: Collection[str]) -> bool:
    """Whether every text in a value was read already."""
    if isinstance(value, str):
        return value.strip() in texts
    if isinstance(value, Mapping):
        return _repeats(value.get("content", value.get("value", 0)), texts)
    return isinstance(value, list) and all(_repeats(v, texts) for v in value)
