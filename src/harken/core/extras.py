"""Modules that need an optional extra."""

from __future__ import annotations

import importlib
from types import ModuleType

from harken.core.errors import UserError


def import_extra(name: str) -> ModuleType:
    """Imports a module that needs the [train] extra; says how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_extra(error) from None


def missing_extra(error: ImportError) -> UserError:
    return UserError(f"{error.name or 'a package'} is not installed.",
                     "Training and sampling need: pip install 'harken[train]' (harken doctor shows more).")
