"""One rule for what is not ours: a method, reward, evaluation, importer or engine is named by a word of ours (a file of its
folder), by a dotted path (`my_lab.idea`, `my_lab.score:fn`), or given as a Python object.

    find("method", "rloo", harken.methods)        # harken.methods.rloo
    find("method", "my_lab.idea", harken.methods) # your module; the working folder is on the path
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.core.errors import UserError
from harken.core.extras import missing_extra


def shipped(package: ModuleType, besides: Sequence[str] = ()) -> list[str]:
    """The files of a folder, which is the registry, less those named in `besides`."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name not in besides)


def find(kind: str, name: str, package: ModuleType) -> ModuleType:
    """The module that `name` names: a file of `package`, or any module by its dotted path. `kind` is what to call it.

    Raises `UserError` where there is none, or it cannot be imported.
    """
    ours = shipped(package)
    if name in ours:
        try:
            return importlib.import_module(f"{package.__name__}.{name}")
        except ImportError as error:
            raise missing_extra(error) from None
    choices = f"{kind.capitalize()}s: {', '.join(ours)}; or the dotted path of your own module."
    if not is_dotted(name) or ":" in name:
        raise UserError(f"There is no {kind} {name!r}.{nearest(name, ours)}", choices)
    module = imported(name, f"There is no {kind} {name!r}.{nearest(name, ours)}", choices)
    assert isinstance(module, ModuleType)
    return module


def is_dotted(name: str) -> bool:
    """Whether a word could be a dotted path: `my_lab.idea`, `my_lab.score:fn`."""
    module, colon, inside = name.partition(":")
    parts = [*module.split("."), *(inside.split(".") if colon else ())]
    return all(part.isidentifier() for part in parts)


def is_module(name: str) -> bool:
    """Whether a module of this name could be imported, the working folder on the path."""
    _add_working_folder()
    try:
        return importlib.util.find_spec(name) is not None
    except Exception:  # its package cannot be imported
        return False


def _add_working_folder() -> None:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def imported(path: str, absent: str, action: str) -> Any:
    """The object at a dotted path: a module, or what stands in it after a colon. The working folder is on the path.

    Raises `UserError`: with `absent` and `action` where there is no such module, else with what its import said.
    """
    name, colon, inside = path.partition(":")
    _add_working_folder()
    try:
        value: Any = importlib.import_module(name)
    except ImportError as error:
        if error.name == name:
            raise UserError(absent, action) from None
        raise UserError(f"{name} cannot be imported: {error}.", "Is it in the working folder, or on PYTHONPATH?") from None
    except Exception as error:  # whatever a stranger's module raises as it is run
        raise UserError(f"{name} cannot be imported: {raised(error)}.", "Correct it, and try again.") from None
    for part in inside.split(".") if colon else ():
        if not hasattr(value, part):
            raise UserError(f"{name} has no {inside}.{nearest(part, dir(value))}", "Check the name after the colon.")
        value = getattr(value, part)
    return value


def raised(error: BaseException) -> str:
    """What a stranger's code raised and where: `KeyError: 'green' (shapes.py, line 6)`."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def nearest(word: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """ " Did you mean X?", where a known word is near; else nothing."""
    close = difflib.get_close_matches(word, [k for k in known if not k.startswith("_")], 1, cutoff)
    return f" Did you mean {close[0]}?" if close else ""
