"""Tool calls in the form that a chat template takes: templates differ in whether arguments are an object or JSON in a string, and
whether a turn without words has null or empty content, and in how long the names of calls must be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from harken.core.errors import UserError

Messages = Sequence[Mapping[str, Any]]


def readable(messages: Messages, render: Callable[[Messages], str]) -> Messages:
    """The first form of the tool calls that a template takes: no content as null or empty, arguments as an object or as text,
    calls named as given or by nine digits (Mistral's kind refuses others)."""
    if not any(m.get("tool_calls") for m in messages):
        return messages
    forms = [[_with_calls(m, empty, parsed) for m in named] for named in (messages, _numbered(messages))
             for empty in (None, "") for parsed in (True, False)]
    taken = messages
    for form in forms:
        try:
            text = render(form)
        except UserError:
            continue
        if "None" not in text or any("None" in str(m.get("content")) for m in messages if m.get("content")):
            return form
        taken = form if taken is messages else taken  # a template that writes null as the word
    return taken


def _numbered(messages: Messages) -> Messages:
    """Calls and their results named by nine digits, in order; a result without a name is that of the first open call."""
    names: dict[Any, str] = {}
    waiting: list[str] = []
    count = 0
    numbered: list[Mapping[str, Any]] = []
    for message in messages:
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            renamed = []
            for call in calls:
                count += 1
                waiting.append(f"{count:09d}")
                if isinstance(call, Mapping):
                    names[str(call.get("id"))] = waiting[-1]
                renamed.append({**call, "id": waiting[-1]} if isinstance(call, Mapping) else call)
            message = {**message, "tool_calls": renamed}
        elif message.get("role") == "tool":
            own = names.get(str(message["tool_call_id"])) if message.get("tool_call_id") else None
            own = own or (waiting[0] if waiting else f"{count:09d}")
            if own in waiting:
                waiting.remove(own)
            message = {**message, "tool_call_id": own}
        numbered.append(message)
    return numbered


def _with_calls(message: Mapping[str, Any], empty: str | None, parsed: bool) -> Mapping[str, Any]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "content": message["content"] or empty, "tool_calls": [_call(c, parsed) for c in calls]}


def _call(given: Any, parsed: bool) -> Any:
    function = given.get("function") if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping) or "arguments" not in function:
        return given
    arguments = function["arguments"]
    if parsed and isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    if not parsed and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**given, "function": {**function, "arguments": arguments}}
