"""What settings may be: types, bounds and words, as each field of a Config says (`core.config.setting`)."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from harken.core.errors import UserError
from harken.core.find import nearest

GREATEST = sys.float_info.max
"""A file of settings may hold whole numbers that no float can."""
KINDS: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}
BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "above": (lambda x, bound: x > bound, "above"), "least": (lambda x, bound: x >= bound, "at least"),
    "below": (lambda x, bound: x < bound, "below"), "most": (lambda x, bound: x <= bound, "at most")}


def check_settings(config: Any) -> None:
    """Refuses values of another type, out of range or unknown, before anything is loaded or written."""
    fields = dataclasses.fields(config)
    for field in fields:
        value, kind = getattr(config, field.name), getattr(field.type, "__name__", str(field.type))
        if not isinstance(value, KINDS.get(kind, object)) or (isinstance(value, bool) and kind in ("int", "float")):
            raise UserError(f"{_flag(field)} {value!r} is not a value of type {kind}.",
                            "Correct it (in the file given to --config?).")
    for field in fields:
        _check_bounds(field, getattr(config, field.name))


def _check_bounds(field: dataclasses.Field[Any], value: Any) -> None:
    words = field.metadata.get("one_of")
    if words and value not in words:
        raise UserError(f"{_flag(field)} {value!r} is unknown.{nearest(str(value), list(words))}",
                        f"Use one of {', '.join(w for w in words if w)}{'; or leave it out' if '' in words else ''}.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    given = {name: field.metadata[name] for name in BOUNDS if name in field.metadata}
    if not -GREATEST <= value <= GREATEST or not all(BOUNDS[name][0](value, bound) for name, bound in given.items()):
        bounds = [f"{BOUNDS[name][1]} {bound}" for name, bound in given.items()]
        raise UserError(f"{_flag(field)} {value} is out of range.", f"It must be {' and '.join(bounds) or 'a finite number'}.")


def _flag(field: dataclasses.Field[Any]) -> str:
    return "--" + field.name.replace("_", "-")
