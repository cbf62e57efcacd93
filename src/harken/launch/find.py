"""Methods and evaluations by name: the folder is the registry, or a dotted path."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import harken.methods
from harken.core.config import RunConfig
from harken.core.errors import UserError
from harken.core.extras import missing_extra


def method_names() -> list[str]:
    """The methods that ship: the files of harken/methods."""
    return sorted(m.name for m in pkgutil.iter_modules(harken.methods.__path__))


def find_method(name: str) -> ModuleType:
    """harken.methods.NAME, or any importable module with a `Config` and a `train`."""
    path = f"harken.methods.{name}" if name in method_names() else name
    known = f"Methods: {', '.join(method_names())}; or the dotted path of your own module."
    if not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"There is no method {name!r}.", known)
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        if name in method_names():
            raise missing_extra(error) from None
        if error.name == name:
            raise UserError(f"There is no method {name!r}.", known) from None
        raise UserError(f"{name} cannot be imported: {error}.", "Is it on PYTHONPATH?") from None
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, RunConfig) and hasattr(module, "train")):
        raise UserError(f"{name} is not a method: it needs a Config(TrainConfig) and a train().", "CONTRIBUTING.md shows one.")
    return module
