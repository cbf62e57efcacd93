"""One answer or none: demonstrations, ratings, thumbs, edits, prompts.

A row with a verdict on its answer is a rating (a number, higher is better) or a thumb (yes or no), never a demonstration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harken.core.formats import HUMAN_TURN
from harken.core.records import Demonstration, Judgment, Prompt
from harken.store.shapes.dialogue import answer_of, messages, not_learnt
from harken.store.shapes.fields import VERDICT_IN_WORDS, Row, UnreadField
from harken.store.shapes.parts import (
    CONVERSATIONS,
    Turns,
    answer,
    begun,
    demonstration,
    judged,
    number,
    parsed,
    prompt,
    question,
    string,
    turns,
    who,
    without_prompt,
)

ANSWERS = ("completion", "output", "response", "answer")
ASKED_AND_ANSWERED = (("problem", "solution"), ("inputs", "targets"), ("input_text", "output_text"), ("input", "target"))
"""Other names of a prompt and its answer, where they stand together: mathematics, FLAN and Aya, PaLM, BIG-bench."""
THUMBS = ("label", "kto_tag", "thumb", "thumbs", "feedback", "liked")
RATINGS = ("score", "rating")
YES = frozenset(("true", "1", "up", "thumbs_up", "thumbs up", "thumbsup", "👍", "like", "liked", "good", "positive", "desirable",
                 "yes"))
NO = frozenset(("false", "0", "down", "thumbs_down", "thumbs down", "thumbsdown", "👎", "dislike", "disliked", "bad", "negative",
                "undesirable", "no"))
One = Demonstration | Judgment | Prompt


def edited(row: Row) -> list[Judgment]:
    """`{"prompt", "original", "completion", "spans"}`: Harken's edits. The edited answer is preferred to the original."""
    original, completion = string(row, "original"), string(row, "completion")
    payload: dict[str, Any] = {"completion": completion, "original": original, "spans": parsed(row.take("spans")), **_flags(row)}
    if not isinstance(payload["spans"], list):
        raise ValueError('"spans" must be a list')
    if completion != original:
        payload |= {"completions": [completion, original], "ranks": [1, 2]}
    return [judged(row, _asked(row), "edit", payload)]


def questioned(row: Row) -> list[Judgment]:
    """`{"prompt", "completions", "questions", "said"}`: the answers to a form's questions, with the questions."""
    payload: dict[str, Any] = {name: parsed(row.take(name)) for name in ("completions", "said", "questions")}
    texts, said, asked = payload["completions"] or [], payload["said"], payload["questions"]
    if not isinstance(said, Mapping) or set(said) != {"item", "answers", "turns"} or not isinstance(said["answers"], list):
        raise ValueError('"said" must be an object of "item", "answers" and "turns"')
    if not isinstance(asked, list) or not all(isinstance(q, Mapping) and {"name", "type", "about"} <= set(q) for q in asked):
        raise ValueError('"questions" must be a list of objects with "name", "type" and "about"')
    if not isinstance(texts, list) or len(texts) != len(said["answers"]):
        raise ValueError(f'"completions" and "said.answers" must be lists of one length, found {len(said["answers"])} answers')
    names = {q["name"] for q in asked}
    given = [said["item"], *said["answers"], *said["turns"]]
    if odd := sorted({str(key) for one in given for key in one} - names - {"turn"}):
        raise ValueError(f'"said" answers "{odd[0]}", which is none of its questions')
    return [Judgment(prompt(row, _asked(row)), "questions", {**payload, "completions": texts, **_flags(row)}, *who(row))]


def prompt_answer(row: Row) -> list[One]:
    """A prompt (`prompt`, `instruction` + `input`, `question`, messages) and an answer (`completion`, `output`, `response`,
    `answer`), or the prompt alone. Self-Instruct's `instances` are several inputs and outputs of one instruction."""
    if isinstance(row.get("instances"), list):
        return _instances(row)
    pair = next((p for p in ASKED_AND_ANSWERED if p[0] in row and p[1] in row), None)
    if pair and not row.first("prompt", "instruction", "question", "query", *CONVERSATIONS, "completion"):
        return [_with_verdict(row, turns(string(row, pair[0]), pair[0]), string(row, pair[1]))]
    name = _answer_name(row)
    if name is None:
        return [_alone(row)]
    given = row.get("prompt")
    asked = _asked(row)
    value = row.take(name)
    if isinstance(value, list) and len(value) > 1:
        dialogue = messages(value, name)
        if dialogue[:len(asked)] == asked:
            dialogue = dialogue[len(asked):]
        text = answer_of(dialogue, name)
    elif isinstance(value, (str, list, Mapping)):
        text = answer(value, name)
    else:
        raise ValueError(f'"{name}" must be a string, found {type(value).__name__}')
    if isinstance(given, str) and HUMAN_TURN.match(given):
        asked, (text,) = begun(asked, without_prompt(given, [text]) or [text])
    return [_with_verdict(row, asked, text)]


def _answer_name(row: Row) -> str | None:
    if "completion" in row:
        return "completion"
    if "prompt" in row:  # an `answer` beside a prompt is what its answers are checked against
        return row.first("response", "output")
    return row.first(*ANSWERS[1:])


def _alone(row: Row) -> Prompt:
    null = next((name for name in ("completion", "output", "response") if name in row.nulls), None)
    if null:
        raise ValueError(f'"{null}" is null')
    row.used |= {"labeler", "group"}  # whoever wrote it: `Reader.judgments` keeps them
    return prompt(row, _asked(row))


def asked_alone(row: Row) -> list[Prompt]:
    """The prompt of a row of another shape: its `question`, `query`, `problem` or `input`."""
    name = row.first("question", "query", "problem", "input")
    if name is None or not isinstance(row[name], str):
        raise ValueError(f"no known shape has these fields: {', '.join(sorted(map(str, row))[:8]) or 'none'}")
    return [prompt(row, turns(string(row, name), name))]


def _asked(row: Row) -> Turns:
    asked = question(row)
    if asked is None:
        raise ValueError('"prompt" is missing')
    return asked


def conversation(row: Row) -> list[One]:
    """Messages (OpenAI, ShareGPT): a last turn of the assistant is the answer to all before it; else all are a prompt."""
    name = next(n for n in CONVERSATIONS if n in row)
    dialogue = turns(parsed(row.take(name)), name)
    if "completion" in row or dialogue[-1].role != "assistant":
        row.used.discard(name)
        return prompt_answer(row)
    if len(dialogue) == 1:
        raise ValueError("the conversation begins with the assistant: there is no prompt")
    marks = [not_learnt(m) for m in given] if isinstance(given := parsed(row[name]), list) else []
    if marks and marks[-1] == "weight":
        raise ValueError("the last answer has the weight 0: it is no example to learn from")
    if marks and marks[-1]:
        raise ValueError(f'the last answer is marked "{marks[-1]}": {given[-1][marks[-1]]}: it is no example to learn from')
    if any(mark and m.role == "assistant" for mark, m in zip(marks, dialogue)) and len(marks) == len(dialogue):
        row.notes.append("earlier answers are marked as not to be learnt: they are context, and --turns all would learn them")
    return [_with_verdict(row, dialogue[:-1], answer_of(dialogue[-1:], name))]


def _with_verdict(row: Row, asked: Turns, text: str) -> One:
    """A rating where the row has a score, a thumb where it has a label, else a demonstration."""
    rating = next((n for n in RATINGS if n in row or n in row.nulls), None)
    if rating is not None:
        return judged(row, asked, "rating", {"completion": text, "score": _score(row, rating), **_flags(row), **_criterion(row)})
    thumb = row.first(*THUMBS)
    if thumb is not None:
        payload: dict[str, Any] = {"completion": text, "label": _thumb(row.take(thumb), thumb)}
        weight = number(row.take("weight"))
        return judged(row, asked, "thumb", payload | ({} if weight is None else {"weight": weight}))
    null = next((name for name in THUMBS if name in row.nulls), None)
    if null:
        raise ValueError(f'"{null}" is null: nobody judged the answer')
    return demonstration(row, asked, text)


def _criterion(row: Row) -> dict[str, str]:
    """Which of several scales a score is on."""
    name = row.take("criterion") if "criterion" in row else None
    if name is not None and not isinstance(name, str):
        raise ValueError(f'"criterion" must be a name, found {type(name).__name__}')
    return {} if name is None else {"criterion": name}


def _score(row: Row, name: str) -> float | None:
    score = number(row.take(name))
    if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score)):
        raise UnreadField(f'"{name}" must be a number, found {str(row[name])[:40]!r}', VERDICT_IN_WORDS)
    return score


def _flags(row: Row) -> dict[str, Any]:
    flags = {name: parsed(row.take(name)) for name in ("flags", "prompt_flags") if name in row}
    if not isinstance(flags.get("flags", {}), Mapping) or not isinstance(flags.get("prompt_flags", []), list):
        raise ValueError('"flags" must be an object and "prompt_flags" a list')
    return flags


def _thumb(value: object, name: str) -> bool:
    word = str(number(value)).strip().lower()
    if word in YES or word in NO:
        return word in YES
    raise UnreadField(f'"{name}" {str(value)[:40]!r} is neither yes nor no', VERDICT_IN_WORDS)


def _instances(row: Row) -> list[One]:
    instances = row.take("instances")
    if not instances or not all(isinstance(i, Mapping) and "output" in i for i in instances):
        raise ValueError('"instances" must be a list of objects with an "output"')
    answers: list[One] = []
    for instance in instances:
        inner = Row({**{k: v for k, v in row.items() if k != "instances"}, **instance})
        answers += prompt_answer(inner)
        row.used |= inner.used
    return answers
