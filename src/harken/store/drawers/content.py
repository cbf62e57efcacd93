"""What was asked and answered, in whatever form a tool kept it: text, messages, blocks, nested objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ROLES = {"human": "user", "user": "user", "ai": "assistant", "assistant": "assistant", "system": "system", "developer": "system",
         "humanmessage": "user", "aimessage": "assistant", "systemmessage": "system", "aimessagechunk": "assistant"}
ASKED = ("messages", "prompt", "question", "query", "input", "inputs", "text", "content")
ANSWERED = ("content", "text", "output", "outputs", "answer", "response", "completion", "result", "generations", "choices",
            "message", "messages", "raw", "parsed", "value")
DEEPEST = 12


def at(row: Any, *path: str) -> Any:
    """What lies at a path of nested objects, or under the path's parts joined by dots at any level."""
    if not path:
        return row
    if isinstance(row, Mapping):
        for n in range(len(path), 0, -1):
            name = ".".join(path[:n])
            if name in row and (found := at(row[name], *path[n:])) is not None:
                return found
    return None


def turns_of(value: Any, depth: int = 0) -> list[tuple[str, str]]:
    """(role, text) of each turn that was asked; an answer at its end is not part of it."""
    value = _parsed(value)
    if value is None or depth > DEEPEST:
        return []
    if isinstance(value, str):
        return [("user", value)] if value.strip() else []
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], list):
            return turns_of(value[0], depth + 1)  # LangChain keeps a batch of one
        turns = [turn for item in value if (turn := _turn(item)) is not None]
        while turns and turns[-1][0] == "assistant":
            turns.pop()
        return turns
    if isinstance(value, Mapping):
        if (turn := _turn(value)) is not None:
            return [turn] if turn[0] != "assistant" else []
        system = answer_of(value.get("system"))
        name = next((n for n in ASKED if value.get(n)), None)
        turns = turns_of(value[name], depth + 1) if name else []
        if not name and len(value) == 1:
            turns = turns_of(next(iter(value.values())), depth + 1)
        return [("system", system), *turns] if system and turns else turns
    return []


def _turn(item: Any) -> tuple[str, str] | None:
    """One message, of OpenAI's, LangChain's or Phoenix's shape."""
    if not isinstance(item, Mapping):
        return None
    inner = item.get("message") or item.get("kwargs") or item.get("data")
    if isinstance(inner, Mapping) and ("content" in inner or "message" in item):
        kind = item.get("id")
        name = item.get("type") if "data" in item else inner.get("role") if "kwargs" not in item else (
            kind[-1] if isinstance(kind, list) and kind else None)
        role = ROLES.get(str(inner.get("role") or name).lower())
        words = answer_of(inner.get("content"))
    else:
        role = ROLES.get(str(at(item, "message", "role") or item.get("role") or item.get("type")).lower())
        words = answer_of(at(item, "message", "content") or item.get("content"))
    return (role, words) if role and words else None


def answer_of(value: Any, depth: int = 0) -> str | None:
    """The text of an answer, or None where there is none. Of several messages it is the last."""
    value = _parsed(value)
    if value is None or depth > DEEPEST:
        return None
    if isinstance(value, str):
        return value or None
    if isinstance(value, list):
        blocks = [b for b in value if isinstance(b, Mapping) and b.get("type") in ("text", "output_text")]
        if blocks and len(blocks) == len(value):
            return "".join(str(_text(b.get("text")) or b.get("value") or "") for b in blocks) or None
        return next((found for item in reversed(value) if (found := answer_of(item, depth + 1))), None)
    if isinstance(value, Mapping):
        if (turn := _turn(value)) is not None:
            return turn[1]
        kwargs = value.get("kwargs")
        if isinstance(kwargs, Mapping):
            return answer_of(kwargs, depth + 1)
        for name in ANSWERED:
            if value.get(name) and (found := answer_of(value[name], depth + 1)):
                return found
        return answer_of(next(iter(value.values())), depth + 1) if len(value) == 1 else None
    return None


def _text(value: Any) -> Any:
    return value.get("value") if isinstance(value, Mapping) else value


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
