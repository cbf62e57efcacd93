"""Numbers as people read them: one rule for reports, the studio, pictures. No NumPy here: the studio starts without it."""

from __future__ import annotations

import math
import re
from typing import Literal

from harken.core.protocols import Estimate

NOTHING = "–"
"""Stands where nothing was measured."""


def number(value: float, digits: int = 3) -> str:
    """`digits` significant digits, a real minus sign, no exponent between 1e-4 and 1e6."""
    if not math.isfinite(value):
        return "—" if math.isnan(value) else ("−∞" if value < 0 else "∞")
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    form = f".{digits - 1}e" if size >= 6 or size < -4 else f",.{max(0, digits - 1 - size)}f"
    return _tidy(f"{value:{form}}")


def compact(value: float) -> str:
    """Up to four significant digits without trailing zeros: 0.0001, 6e−7."""
    return _tidy(f"{value:.4g}")


def _tidy(shown: str) -> str:
    return re.sub(r"e([+-])0*", r"e\1", shown).replace("e+", "e").replace("-", "−")


def percent(value: float, places: int = 1, unit: str = "%") -> str:
    """A share as per cent."""
    return f"{100 * value:.{places}f}{unit}".replace("-", "−") if math.isfinite(value) else number(value)


def decimals(value: float | None, places: int = 2) -> str:
    """So many decimals, a real minus sign; an en dash where there is nothing."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{places}f}".replace("-", "−")


def duration(seconds: float | None, longest: Literal["min", "h", "days"] = "days") -> str:
    """"40 s", "12 min", "3.5 h", "6 days", in units up to the longest; from ten hours on without decimals where days follow."""
    if seconds is None or math.isnan(seconds):
        return NOTHING
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60 or longest == "min":
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600 or longest == "h":
        return f"{seconds / 3600:.{1 if seconds < 10 * 3600 or longest == 'h' else 0}f} h"
    return f"{seconds / 86400:.0f} days"


def span(e: Estimate, *, rate: bool = False) -> str:
    """The interval as `[low, high]`, its level unless 95%, or why there is none; plain text."""
    if math.isnan(e.low) or math.isnan(e.high):
        return "no interval"
    level = "" if math.isclose(e.level, 0.95) else f" at {100 * e.level:g}%"
    if rate:
        return f"[{percent(e.low).rstrip('%')}, {percent(e.high)}]{level}"
    places = _places(e)
    return f"[{_fixed(e.low, places)}, {_fixed(e.high, places)}]{level}"


def value(e: Estimate, *, rate: bool = False) -> str:
    """The number to the precision that its interval supports."""
    return percent(e.value) if rate else _fixed(e.value, _places(e))


def _places(e: Estimate) -> int:
    width = e.high - e.low
    if not math.isfinite(width) or width <= 0:
        width = abs(e.value) or 1.0
    return min(max(0, 1 - math.floor(math.log10(width))), 6)


def _fixed(x: float, places: int) -> str:
    return f"{x:,.{places}f}".replace("-", "−") if math.isfinite(x) else number(x)
