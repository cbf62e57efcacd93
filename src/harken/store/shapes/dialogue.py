"""Conversations: lists of messages in the forms people use, and dialogues written as one text.

A string that begins with `Human:` (Anthropic), holds ChatML, or is JSON of messages is read as the turns it holds, in
every kind of file; a dialogue in another chat format is refused: as one user's message it would teach the markers.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harken.core.formats import CHATML_MARK, HUMAN_TURN, JSON_MESSAGES, foreign_format, is_dialogue
from harken.core.records import EXTRA, Message, Role
from harken.store.shapes.fields import is_verdict

ROLES: dict[str, Role] = {
    "user": "user", "human": "user", "prompter": "user", "system": "system", "developer": "system", "assistant": "assistant",
    "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant", "ai": "assistant",
    "chatbot": "assistant", "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool",
    "tool_response": "tool", "ipython": "tool"}
CALLS = ("function_call", "tool_call")
THOUGHTS = ("reasoning", "thinking", "thoughts")
FIRST_TURN = re.compile(r"\s*(Human|Assistant|System):")
TURN = re.compile(r"\n\n(Human|Assistant):")
SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant", "System": "system"}
OTHER_TURN = re.compile(r"\n\s*(?:Assistant|ASSISTANT|AI|Bot|Model)\s*:")
CHATML = re.compile(r"<\|im_start\|>([A-Za-z_]+)\n(.*?)(?:<\|im_end\|>\n?|\Z)", re.S)
NOT_LEARNT = (("weight", 0), ("train", False), ("loss", False), ("training", False), ("train_on_turn", False),
              ("trainable", False), ("loss_weight", 0), ("mask", True), ("prefix", True))
"""Marks of a message that is not to be learnt: OpenAI, axolotl, ms-swift; `prefix` is the beginning of an answer."""
KNOWN = frozenset(("role", "content", "from", "value", "text", "parts", *EXTRA, "function_call", "id", "markdown",
                   *(name for name, _ in NOT_LEARNT)))
PLAIN = frozenset(("role", "content"))
PLAIN_ROLES: dict[Any, Role] = {"user": "user", "system": "system", "assistant": "assistant"}
TURN_PAIRS = tuple((one, other) for one in ("input", "human", "user", "question", "prompt", "instruction")
                   for other in ("output", "assistant", "bot", "gpt", "answer", "response"))
"""The names of a question and its answer, where one object of a conversation holds both (Capybara: `input`, `output`)."""
MEDIA = ("images", "image", "videos", "video", "audios", "audio", "attachments")


def messages(value: object, name: str) -> tuple[Message, ...]:
    """Messages in OpenAI's form, ShareGPT's (`from`, `value`), Google's (`parts`), Capybara's (`input`, `output`) or content
    blocks of text; one object is one message."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value:
        kind = "an empty list" if value == [] else type(value).__name__
        raise ValueError(f'"{name}" must be text or a list of messages, found {kind}')
    if isinstance(value[0], str) and all(isinstance(m, str) for m in value):
        raise ValueError(f'"{name}" is a list of texts that do not say who speaks: give messages (role, content)')
    pair = next((p for p in TURN_PAIRS if type(value[0]) is dict and value[0].keys() == set(p)), None)
    if pair and all(type(m) is dict and m.keys() == set(pair) for m in value):
        value = [{"role": role, "content": m[name]} for m in value for role, name in zip(("user", "assistant"), pair)]
    return tuple(_message(m) for m in value)


def _message(given: object) -> Message:
    if type(given) is dict and given.keys() == PLAIN and type(given["content"]) is str \
            and type(given["role"]) is str and given["role"] in PLAIN_ROLES:
        return Message(PLAIN_ROLES[given["role"]], given["content"])  # nearly every message
    if not isinstance(given, Mapping):
        raise ValueError(f"a message must be an object, found {type(given).__name__}")
    if given.keys() - KNOWN:
        _check_rest(given)
    role: Any = given.get("role", given.get("from"))
    content: Any = next((given[n] for n in ("content", "value", "text", "parts") if given.get(n) is not None), None)
    extra = {key: given[key] for key in EXTRA if given.get(key)}
    thought = next((given[n] for n in THOUGHTS if given.get(n)), None)
    if thought:
        extra.setdefault("reasoning_content", thought)
    if role in CALLS:
        return Message("assistant", "", {"tool_calls": _calls(content)})
    if given.get("function_call"):
        extra["tool_calls"] = [{"type": "function", "function": given["function_call"]}]
    if isinstance(extra.get("tool_calls"), str):
        extra["tool_calls"] = json.loads(extra["tool_calls"])
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if content is None and "tool_calls" not in extra:
        raise ValueError('"content" of a message is null')
    role = ROLES.get(role.lower(), role) if isinstance(role, str) else role
    return Message.from_json({"role": role, "content": content, **extra})


def _check_rest(given: Mapping[str, Any]) -> None:
    for name in given.keys() - KNOWN:
        if name in MEDIA and given[name]:
            raise ValueError(f'"{name}" of a message cannot be read: only text can')
        if given[name] not in (None, "", [], {}) and is_verdict(name, given[name], "prompt"):
            raise ValueError(f'"{name}" of a message holds a verdict, which is not read there')


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") in ("text", "input_text", "output_text"):
        text = next((part[n] for n in ("text", "value", "content") if part.get(n) is not None), None)
        if isinstance(text, str):
            return text
    kind = part.get("type", ", ".join(map(str, part))) if isinstance(part, Mapping) else type(part).__name__
    raise ValueError(f"a message holds a part of the type {kind}, and only text can be read")


def _calls(content: object) -> list[dict[str, Any]]:
    """ShareGPT's turn `function_call`: JSON text of one call or a list of them."""
    try:
        content_json = json.loads(content) if isinstance(content, str) else content
    except ValueError:
        content_json = None
    calls = content_json if isinstance(content_json, list) else [content_json]
    if not calls or not all(isinstance(c, Mapping) and "name" in c for c in calls):
        raise ValueError("a function call must be JSON with a name and arguments")
    return [{"type": "function", "function": c} for c in calls]


def json_messages(text: str, name: str) -> tuple[Message, ...] | None:
    """Messages that a table holds as JSON text; None where the text is none."""
    if not JSON_MESSAGES.match(text):
        return None
    try:
        rows = json.loads(text)
    except ValueError:
        rows = _python_messages(text)
    if rows is None:
        raise ValueError(f'"{name}" looks like a list of messages written as text, and is not JSON')
    return messages(rows, name)


def _python_messages(text: str) -> Any:
    """Messages as Python shows them, which is what pandas writes into a CSV file; None where the text is none."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def prompt_turns(text: str, name: str = "prompt") -> tuple[Message, ...]:
    """A prompt given as text: the turns it holds, or itself as the user's message."""
    if not is_dialogue(text):
        return (Message("user", text),)
    if HUMAN_TURN.match(text):
        return transcript(text)
    return json_messages(text, name) or chatml(text) or (Message("user", refuse_formats(text, name)),)


def refuse_formats(text: str, name: str) -> str:
    """The text, if it is not a dialogue in a chat format that is not read."""
    if is_dialogue(text) and foreign_format(text):
        raise ValueError(f'"{name}" is a dialogue in a model\'s chat format; give its turns as messages (role, content)')
    return text


def chatml(text: str) -> tuple[Message, ...] | None:
    """`<|im_start|>role … <|im_end|>` as messages. An empty last assistant turn only says whose turn it is."""
    if CHATML_MARK not in text:
        return None
    blocks = list(CHATML.finditer(text))
    if not blocks or "".join(m[0] for m in blocks).strip() != text.strip():
        raise ValueError("the text holds ChatML marks that do not make up a dialogue")
    turns = [Message.from_json({"role": ROLES.get(m[1], m[1]), "content": m[2]}) for m in blocks]
    if turns[-1].role == "assistant" and not turns[-1].content.strip():
        turns.pop()
    return tuple(turns)


def turns_of(text: str) -> list[tuple[Role, int, str]]:
    """Turns of an Anthropic transcript: role, where its text starts, the text."""
    first = FIRST_TURN.match(text)
    marks = [first, *TURN.finditer(text, first.end())] if first else list(TURN.finditer(text))
    ends = [m.start() for m in marks[1:]] + [len(text)]
    return [(SPEAKERS[m[1]], start := m.end(), text[start:end].strip(" \n")) for m, end in zip(marks, ends)]


def transcript(text: str) -> tuple[Message, ...]:
    """A transcript as messages.

    A last turn "Assistant:" without text only says whose turn it is; one that goes on with "Human:"
    in the middle of a line (1 of 1,987 in the helpful set) is parted there.
    """
    turns = [Message(role, content) for role, _, content in turns_of(text)]
    if len(turns) == 1 and OTHER_TURN.search(text):
        raise ValueError('the text begins with "Human:", and its other turns are not marked as "Assistant:" after an empty line; '
                         "give its turns as messages (role, content)")
    if turns[-1].role == "assistant":
        answer, marker, question = turns.pop().content.rpartition(" Human:")
        if marker or question:
            turns.append(Message("assistant", (answer if marker else question).strip(" \n")))
        if marker:
            turns.append(Message("user", question.strip(" \n")))
    return tuple(turns)


def with_system(turns: Sequence[Message], system: str) -> tuple[Message, ...]:
    """The turns after a system message; one that they begin with already must be the same."""
    if turns and turns[0].role == "system":
        if turns[0].content.strip() != system.strip():
            raise ValueError("the row has a system prompt, and its messages begin with another one")
        return tuple(turns)
    return (Message("system", system), *turns)


def history_turns(value: object) -> tuple[Message, ...]:
    """Earlier turns: pairs of question and answer (Alpaca), or messages."""
    if isinstance(value, list) and value and all(isinstance(m, Mapping) for m in value):
        return messages(value, "history")
    if not isinstance(value, list) or not all(
            isinstance(p, (list, tuple)) and len(p) == 2 and all(isinstance(t, str) for t in p) for p in value):
        raise ValueError('"history" must be a list of [question, answer]')
    return tuple(m for question, answer in value for m in (Message("user", question), Message("assistant", answer)))


def answer_of(turns: Sequence[Message], name: str) -> str:
    """The text of one assistant message."""
    if len(turns) != 1 or turns[0].role != "assistant":
        raise ValueError(f'"{name}" must end in exactly one assistant message after the prompt, found '
                         f'{", ".join(m.role for m in turns) or "none"}')
    if turns[0].extra:
        raise ValueError(f'the answer in "{name}" holds {", ".join(turns[0].extra)}, and only its text can be judged or learnt')
    return turns[0].content


def not_learnt(given: object) -> str | None:
    """The mark of a message that says that it is not to be learnt, or None."""
    if not isinstance(given, Mapping):
        return None
    return next((name for name, value in NOT_LEARNT if name in given and given[name] is not None and given[name] == value), None)


def shared(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items two sequences have in common from the start."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
