"""Tool calls in the form that a chat template takes: templates differ in whether arguments are an object or JSON in a string, and
whether a turn without words has null or empty content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from harken.core.errors import UserError

Messages = Sequence[Mapping[str, Any]]


def readable(messages: Messages, render: Callable[[Messages], str]) -> Messages:
    """The first form of the tool calls that a template takes: no content as null or empty, arguments as an object or as text."""
    if not any(m.get("tool_calls") for m in messages):
        return messages
    forms = [[_with_calls(m, empty, parsed) for m in messages] for empty in (None, "") for parsed in (True, False)]
    for form in forms:
        try:
            render(form)
            return form
        except UserError:
            continue
    return messages


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
