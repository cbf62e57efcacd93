"""What shapes have in common: the prompt of a row, its answers, who judged, and the records made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from harken.core.formats import HUMAN_TURN
from harken.core.records import (
    Choice,
    Demonstration,
    Judgment,
    JudgmentKind,
    Message,
    Prompt,
    PromptKind,
    group_of,
    number_of,
)
from harken.store.shapes.dialogue import (
    answer_of,
    history_turns,
    json_messages,
    messages,
    prompt_turns,
    shared,
    turns_of,
    with_system,
)
from harken.store.shapes.fields import ASKERS, LABELER_NAMES, SYSTEM_NAMES, Row

CONVERSATIONS = ("messages", "conversations", "conversation", "contents")
MISSING = frozenset(("nan", "none", "null", "<na>", "<noinput>", "<no input>"))
"""What a missing cell is written as by pandas, and a missing input by Alpaca's generator."""
CARRIED = frozenset(("tools", "functions", "use_case", "split", "tags", "meta", "kind"))
PEOPLE = frozenset((*LABELER_NAMES, "group"))
Turns = tuple[Message, ...]


def string(row: Row, name: str) -> str:
    """A field that must be text."""
    value = row.take(name)
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string, found {"nothing" if value is None else type(value).__name__}')
    return value


def parsed(value: Any) -> Any:
    """A list or an object that a table holds as JSON text."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def turns(value: object, name: str) -> Turns:
    """A prompt's turns: text (which may hold a dialogue) or messages."""
    return prompt_turns(value, name) if isinstance(value, str) else messages(value, name)


def question(row: Row) -> Turns | None:
    """What was asked, or None where no field says it. A field that is there and null invents nothing: it is refused."""
    name = row.first("prompt", "instruction", "question", "query", *CONVERSATIONS, "input")
    if name is None or (name == "input" and not isinstance(row["input"], str)):
        null = next((n for n in ("prompt", "instruction", "question", *CONVERSATIONS) if n in row.nulls), None)
        if null:
            raise ValueError(f'"{null}" is null: there is no prompt')
        return None
    if isinstance(row[name], str) and row[name].strip().isdigit():
        row.notes.append(f'"{name}" is only a number: is it the name of a prompt in another file?')
    if name not in ("instruction", "question"):
        return turns(row.take(name), name)
    text = string(row, name)
    more = next((n for n in ("input", "context") if n in row and isinstance(row[n], str)), None)
    extra = string(row, more) if more else ""
    if extra.strip().lower() in MISSING:
        row.notes.append(f'"{more}" is only the word {extra.strip()}: read as missing')
        extra = ""
    return prompt_turns("\n\n".join(part for part in (text, extra) if part.strip()) or text, name)


def prompt(row: Row, asked: Sequence[Message]) -> Prompt:
    """The prompt with what stands beside it: system prompt, history, tools, use_case, kind, tags, split, meta."""
    asked = tuple(asked)
    history = parsed(row.take("history"))
    if history:
        asked = history_turns(history) + asked
    system = row.first(*SYSTEM_NAMES)
    if system:
        text = _system_text(row.take(system), system)
        if text.strip():
            asked = with_system(asked, text)
    return Prompt.checked(asked, _carried(row))


def _system_text(value: object, name: str) -> str:
    """A system prompt: text, blocks of text (Bedrock) or an object with `parts` (Google)."""
    if isinstance(value, str) and value.lstrip()[:2] in ('[{', '{"'):
        value = parsed(value)
    if isinstance(value, str):
        return value
    if not value:
        return ""
    parts = value.get("parts", value.get("content")) if isinstance(value, Mapping) else value
    (message,) = messages({"role": "system", "content": parts}, name)
    return message.content


def _carried(row: Row) -> dict[str, Any]:
    """The fields a prompt keeps; one of another type than Harken's stays unread."""
    fields: dict[str, Any] = {}
    if CARRIED.isdisjoint(row):
        return fields
    tools = parsed(row.take("tools"))
    if "functions" in row and not tools:  # OpenAI's older name
        given = parsed(row.take("functions"))
        tools = [{"type": "function", "function": f} for f in given] if isinstance(given, list) else given
    if tools:
        fields["tools"] = tools
    for name, kind in (("use_case", str), ("split", str), ("tags", list), ("meta", dict), ("kind", str)):
        if name not in row:
            continue
        value = parsed(row[name]) if kind in (list, dict) else row[name]
        if not isinstance(value, kind):
            if name == "meta":
                raise ValueError(f'"meta" must be an object, found {type(value).__name__}')
            continue
        if name == "kind" and value not in get_args(PromptKind):
            continue
        if name == "tags" and not all(isinstance(t, str) for t in value):
            continue
        fields[name] = value
        row.take(name)
    return fields


def who(row: Row, *, judged: bool = True) -> tuple[str | None, dict[str, str]]:
    """Labeler and group. A number is a name too; a name from another column (`worker`, `annotator_id`) is the labeler's."""
    if PEOPLE.isdisjoint(row):
        return None, {}
    name = row.first(*(LABELER_NAMES if judged else LABELER_NAMES[:-len(ASKERS)]))
    labeler = row.take(name) if name else None
    if isinstance(labeler, float) and labeler.is_integer():
        labeler = int(labeler)
    if isinstance(labeler, int) and not isinstance(labeler, bool):
        labeler = str(labeler)
    if labeler is not None and not isinstance(labeler, str):
        raise ValueError(f'"{name}" must be a name or a number, found {type(labeler).__name__}')
    group = parsed(row.take("group"))
    if isinstance(group, dict):
        group = {k: v for k, v in group.items() if v is not None}  # Parquet gives every row the groups of all
    return labeler, group_of(group)


def number(value: Any) -> Any:
    """A number that a table holds as text, or as a float without a fraction; what is none comes back as it is."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def answer(value: object, name: str) -> str:
    """An answer given as text, JSON text of one message, or one assistant message. `completion` is taken literally."""
    if isinstance(value, str):
        dialogue = json_messages(value, name) if name != "completion" else None
        if dialogue is None:
            return value
        value = [m.to_json() for m in dialogue]
    return answer_of(messages(value, name), name)


def choice(row: Row, asked: Sequence[Message], options: Sequence[str], ranks: Sequence[int],
           kind: JudgmentKind = "ranking") -> Choice:
    return Choice(prompt(row, asked), tuple(options), tuple(ranks), *who(row), kind,
                  number_of(number(row.take("strength")), "strength"), number_of(number(row.take("weight")), "weight"))


def demonstration(row: Row, asked: Sequence[Message], text: str) -> Demonstration:
    if not text.strip():
        raise ValueError('"completion" is empty')
    return Demonstration(prompt(row, asked), text, *who(row, judged=False), number_of(number(row.take("weight")), "weight"))


def judged(row: Row, asked: Sequence[Message], kind: JudgmentKind, payload: dict[str, Any]) -> Judgment:
    """A rating, a thumb or an edit."""
    if not payload["completion"].strip():
        raise ValueError("an answer is empty")
    return Judgment(prompt(row, asked), kind, payload, *who(row))


def without_prompt(given: object, options: Sequence[str]) -> list[str] | None:
    """The answers without the prompt that all of them repeat, or None where they don't.

    One or two words that both answers begin with say nothing: people do begin with the words they were asked with.
    """
    if not isinstance(given, str) or not given.strip() or not all(o.startswith(given) for o in options):
        return None
    ends = all(o[len(given):len(given) + 1].strip() == "" or given[-1:].isspace() or given.rstrip()[-1:] in ":>" for o in options)
    if not ends or (len(given.split()) < 3 and not HUMAN_TURN.match(given)):
        return None
    return [o[len(given):].strip(" \n") if HUMAN_TURN.match(given) else o[len(given):].lstrip(" \n") for o in options]


def begun(asked: Turns, options: Sequence[str]) -> tuple[Turns, list[str]]:
    """A transcript that ends inside the assistant's turn: its beginning belongs to each answer."""
    if asked and asked[-1].role == "assistant" and len(asked) > 1:
        return asked[:-1], [f"{asked[-1].content} {o.lstrip()}" for o in options]
    return asked, list(options)


def transcript_pair(texts: Sequence[str]) -> tuple[Turns, list[str]]:
    """Two whole transcripts: the turns shared by both, up to an assistant turn, are the prompt; all that follows is the answer.

    Some answers contain further turns that the model made up (5 of 2,312 in harmless-base
    test): they are part of what the labeler compared and stay in the text.
    """
    dialogues = [turns_of(text) for text in texts]
    spoken = [[(role, content) for role, _, content in t] for t in dialogues]
    cut = min(*(len(t) - 1 for t in dialogues), *(shared(spoken[0], other) for other in spoken[1:]))
    while cut > 0 and not all(t[cut][0] == "assistant" for t in dialogues):
        cut -= 1
    if cut == 0:
        raise ValueError("the two transcripts share no turns up to an assistant turn")
    asked = tuple(Message(role, content) for role, content in spoken[0][:cut])
    return asked, [text[t[cut][1]:].strip(" \n") for text, t in zip(texts, dialogues, strict=True)]


def dense(scores: Iterable[float]) -> tuple[int, ...]:
    """Ranks 1, 2, … for scores of which the highest is best; equal scores share a rank."""
    scores = list(scores)
    order = sorted(set(scores), reverse=True)
    return tuple(order.index(s) + 1 for s in scores)
