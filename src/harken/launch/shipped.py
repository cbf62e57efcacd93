"""The scorers that ship: files of harken/rewards with an `open_scorer`. Opening one imports nothing but its file, so that workers
of an annotation start at once."""

from __future__ import annotations

import importlib
from typing import Any

import harken.rewards
from harken.core.errors import UserError
from harken.core.find import shipped

NOT_SCORERS = ("bradley_terry", "compositional", "ensemble", "function", "student")
"""Files of harken/rewards that are learnt, made of others, or yours."""


def scorer_names() -> list[str]:
    """The files of harken/rewards that are not learnt or made of others."""
    return shipped(harken.rewards, NOT_SCORERS)


def open_shipped(name: str, argument: str, word: str) -> Any:
    """The scorer of a file; `word` is what was said. Raises `UserError` where the argument says nothing to it."""
    try:
        return importlib.import_module(f"harken.rewards.{name}").open_scorer(argument)
    except ValueError as error:  # what stands after the colon is no number, no name
        raise UserError(f"{word} opens no reward: {error}.",
                        f"docs/rewards/{name}.md says what may stand after the colon.") from error
