"""Harken turns people's judgments into a language model that acts on them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "load": "launch.python", "train": "launch.python", "sample": "launch.python", "score": "launch.python",
    "evaluate": "launch.python", "open_reward": "launch.rewards",
    "read_comparisons": "store.files", "read_demonstrations": "store.files", "read_prompts": "store.files",
    "write_jsonl": "store.files", "open_database": "store.database", "Run": "core.run", "UserError": "core.errors",
    "Prompt": "core.records", "Message": "core.records",
    "Sample": "core.protocols", "Choice": "core.records", "Demonstration": "core.records",
    "Judgment": "core.records", "EvalResult": "core.protocols", "Estimate": "core.protocols",
}
"""Where each public name lives: loaded when first asked for, so that the base needs no torch. `harken.report(runs, out)` is
the package of that name, which can be called."""

__all__ = ["__version__", "report", *_WHERE]

if TYPE_CHECKING:
    from harken import report as report
    from harken.core.errors import UserError as UserError
    from harken.core.protocols import Estimate as Estimate
    from harken.core.protocols import EvalResult as EvalResult
    from harken.core.protocols import Sample as Sample
    from harken.core.records import Choice as Choice
    from harken.core.records import Demonstration as Demonstration
    from harken.core.records import Judgment as Judgment
    from harken.core.records import Message as Message
    from harken.core.records import Prompt as Prompt
    from harken.core.run import Run as Run
    from harken.launch.python import evaluate as evaluate
    from harken.launch.python import load as load
    from harken.launch.python import sample as sample
    from harken.launch.python import score as score
    from harken.launch.python import train as train
    from harken.launch.rewards import open_reward as open_reward
    from harken.store.database import open_database as open_database
    from harken.store.files import read_comparisons as read_comparisons
    from harken.store.files import read_demonstrations as read_demonstrations
    from harken.store.files import read_prompts as read_prompts
    from harken.store.files import write_jsonl as write_jsonl


def __getattr__(name: str) -> Any:
    if name == "report":
        return importlib.import_module("harken.report")
    if name not in _WHERE:
        raise AttributeError(f"module 'harken' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harken.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
