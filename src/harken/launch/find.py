"""Methods and evaluations by name: the folder is the registry, or a dotted path."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

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


def find_method(name: Any) -> ModuleType:
    """harken.methods.NAME, or any module (given, or by its dotted path) with a `Config` and a `train`."""
    module = _module("method", name, harken.methods)
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, RunConfig) and hasattr(module, "train")):
        raise UserError(f"{module.__name__} is not a method: it needs a Config(TrainConfig) and a train().",
                        "CONTRIBUTING.md shows one.")
    return module


def find_eval(name: Any) -> ModuleType:
    """harken.evals.NAME, or any module (given, or by its dotted path) with a `Config` and an `evaluate`."""
    module = _module("evaluation", name, harken.evals)
    if not (is_dataclass(getattr(module, "Config", None)) and hasattr(module, "evaluate")):
        raise UserError(f"{module.__name__} is not an evaluation: it needs a dataclass Config and an evaluate().",
                        "CONTRIBUTING.md shows one.")
    return module


def _module(kind: str, name: Any, package: ModuleType) -> ModuleType:
    if isinstance(name, ModuleType):
        return name
    if not isinstance(name, str):
        raise UserError(f"The {kind} is a {type(name).__name__}.",
                        f"Give its name, a dotted path, or the module that holds the {kind}.")
    return find(kind, name, package)
