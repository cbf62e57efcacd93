"""Errors meant for people."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class UserError(Exception):
    """A user's mistake or a broken environment: what was found, where, and what to do next.

    The CLI prints it as one message and exits with status 2; library callers may catch it.
    """

    answered: Mapping[int, Any] = MappingProxyType({})
    """Where several requests were made at once: what the others gave, by place."""

    def __init__(self, fact: str, action: str = "") -> None:
        self.fact, self.action = fact, action
        super().__init__(f"{fact}\n  {action}" if action else fact)


class NotYet(UserError):
    """What people have not answered yet; `ask` is the file to ask them with."""

    def __init__(self, fact: str, action: str, ask: str) -> None:
        self.ask = ask
        super().__init__(fact, action)
