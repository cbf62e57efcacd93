"""What a chat template leaves out of a conversation: turns, tool calls and tools that the model would never see.

    unwritten(messages, tools, render)      # ("tool turns", "tool calls")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harken.core.errors import UserError

Messages = Sequence[Mapping[str, Any]]


def pattern(messages: Messages, tools: Messages) -> tuple[Any, ...]:
    """What decides whether a template writes a turn: who speaks, whether in words or in calls, and whether there are tools."""
    return (bool(tools), *((m["role"], bool(str(m.get("content") or "").strip()), bool(m.get("tool_calls"))) for m in messages))


def unwritten(messages: Messages, tools: Messages, render: Callable[[Messages, Messages], str]) -> tuple[str, ...]:
    """Names of what the template drops, tried with words that nobody writes in place of the conversation's; nothing where it
    refuses those."""
    probes: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        said = str(message.get("content") or "").strip()
        probe: dict[str, Any] = {"role": message["role"], "content": f"words{i}x" if said else ""}
        if message.get("tool_calls"):
            function = {"name": f"call{i}x", "arguments": {"a": f"given{i}x"}}
            probe["tool_calls"] = [{"id": f"{i:09d}", "type": "function", "function": function}]
        if message["role"] == "tool":
            probe |= {"tool_call_id": f"{max(i - 1, 0):09d}", "name": f"call{max(i - 1, 0)}x"}
        probes.append(probe)
    parameters = {"type": "object", "properties": {}}
    tool = {"name": "toolx", "description": "", "parameters": parameters}
    described = [{"type": "function", "function": tool}] if tools else []
    try:
        text = render(probes, described)
    except UserError:
        return ()
    lost: dict[str, None] = {}
    for i, probe in enumerate(probes):
        if probe["content"] and probe["content"] not in text:
            lost[f"{probe['role']} turns"] = None
        if "tool_calls" in probe and f"call{i}x" not in text:
            lost["tool calls"] = None
    if tools and "toolx" not in text:
        lost["descriptions of tools"] = None
    return tuple(lost)
