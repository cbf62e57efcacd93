"""Methods and evaluations by name: the folder is the registry, or a dotted path."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import ModuleType

import harken.evals
import harken.methods
from harken.core.config import RunConfig
from harken.core.errors import UserError
from harken.core.find import find, shipped


def method_names() -> list[str]:
    """The methods that ship: the files of harken/methods."""
    return shipped(harken.methods)


def eval_names() -> list[str]:
    """The evaluations that ship: the files of harken/evals."""
    return shipped(harken.evals)


def find_method(name: str) -> ModuleType:
    """harken.methods.NAME, or any importable module with a `Config` and a `train`."""
    module = find("method", name, harken.methods)
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, RunConfig) and hasattr(module, "train")):
        raise UserError(f"{name} is not a method: it needs a Config(TrainConfig) and a train().", "CONTRIBUTING.md shows one.")
    return module


def find_eval(name: str) -> ModuleType:
    """harken.evals.NAME, or any importable module with a `Config` and an `evaluate`."""
    module = find("evaluation", name, harken.evals)
    if not (is_dataclass(getattr(module, "Config", None)) and hasattr(module, "evaluate")):
        raise UserError(f"{name} is not an evaluation: it needs a dataclass Config and an evaluate().",
                        "CONTRIBUTING.md shows one.")
    return module
