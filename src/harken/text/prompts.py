"""What a model can be told before the question: prompts that ship, one's own, and examples from demonstrations.

    read_context("hhh")             # messages of text/prompts.json
    read_context("mine.txt")        # a system prompt; a .json file holds {"messages": [...]}

The wording of those that ship is ours. hhh is named after the aim of 2112.00861 (whose own prompt is 4,600 words of
conversation); qa, helpful, harmful and long after TruthfulQA's (2109.07958), whose published figures hold for its own text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.records import Demonstration, Message

NONE = "none"
"""The name of no context at all."""


def shipped() -> dict[str, Any]:
    """Name -> {about, messages} of the prompts that ship."""
    prompts: dict[str, Any] = json.loads(files("harken.text").joinpath("prompts.json").read_text(encoding="utf-8"))
    return prompts


def read_context(name: str) -> tuple[Message, ...]:
    """The messages of a shipped prompt, of a .json file, or a text file as a system message; `none` has none.

    Raises `UserError` for a name that is neither, and for a file that holds no messages.
    """
    if name == NONE:
        return ()
    ours = shipped()
    if name in ours:
        return _messages(ours[name], name)
    path = Path(name)
    if not path.is_file():
        raise UserError(f"There is no prompt {name!r}.", f"Shipped: {', '.join(ours)}; or name a .txt or .json file.")
    try:
        text = path.read_text(encoding="utf-8")
        row = json.loads(text) if path.suffix == ".json" else {"messages": [{"role": "system", "content": text.strip()}]}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a prompt: {error}.", "Give a text file, or JSON with messages.") from None
    return _messages(row, name)


def _messages(row: Any, name: str) -> tuple[Message, ...]:
    try:
        messages = tuple(Message.from_json(m) for m in row["messages"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name} holds no messages: {error}.",
                        'Write {"messages": [{"role": "system", "content": "…"}]}.') from None
    if not messages or not all(m.content.strip() for m in messages):
        raise UserError(f"{name} is empty.", "Write what the model should be told.")
    roles = [m.role for m in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != ["user", "assistant"] * (len(turns) // 2):
        raise UserError(f"{name} is not a system message and whole examples.",
                        "After at most one system message, user and assistant take turns, the assistant last.")
    return messages


def examples(demonstrations: Sequence[Demonstration]) -> tuple[Message, ...]:
    """Demonstrations as turns that went before: each one's last user message and the answer to it."""
    return tuple(m for d in demonstrations for m in (Message("user", d.prompt.text), Message("assistant", d.completion)))
