"""Charts as inline SVG without a style attribute (the pages' policy allows none): colours are classes of static/lead.css.

Every chart stands beside a table with its numbers, or is drawn inside one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from harken.draw import numbers
from harken.draw.numbers import NOTHING, duration
from harken.draw.numbers import decimals as number
from harken.store.events import stamp

if TYPE_CHECKING:
    from harken.core.protocols import Estimate


__all__ = ["Bar", "bars", "by_hour", "duration", "heat", "interval", "number", "percent"]
HEAT = 7  # steps of colour in the matrix


class Bar(NamedTuple):
    """How many answers came from `start` to before `end` (as the database writes moments)."""

    name: str
    n: int
    start: str = ""
    end: str = ""


def percent(value: float | None) -> str:
    return NOTHING if value is None or math.isnan(value) else numbers.percent(value, 0, " %")


def interval(value: Estimate | None, low: float, high: float, chance: float | None = None, words: str = "") -> Markup:
    """A dot with its interval on the scale [low, high]; a fine upright line where chance lies."""
    if value is None:
        return Markup('<span class="soft">undefined</span>')

    def x(v: float) -> str:
        return f"{min(max((v - low) / (high - low), 0.0), 1.0) * 96 + 2:.2f}%"

    marks = ['<line class="track" x1="2%" x2="98%" y1="12" y2="12"/>']
    if chance is not None:
        marks.append(f'<line class="chance" x1="{x(chance)}" x2="{x(chance)}" y1="3" y2="21"/>')
    if not math.isnan(value.low):
        marks.append(f'<line class="span" x1="{x(value.low)}" x2="{x(value.high)}" y1="12" y2="12"/>')
    marks.append(f'<circle class="dot" cx="{x(value.value)}" cy="12" r="5"/>')
    label = f"{words} {number(value.value)}, interval {number(value.low)} to {number(value.high)}"
    label += f", chance {number(chance)}" if chance is not None else ""
    return Markup(f'<svg class="interval" width="100%" height="24" role="img" aria-label="{escape(label.strip())}">'
                  f'{"".join(marks)}</svg>')


def bars(counts: Sequence[Bar], title: str, every: int = 6) -> Markup:
    """Upright bars with a label under every `every`-th; the greatest value is written at the side."""
    width, height, base = 720, 150, 122
    most = max((bar.n for bar in counts), default=0) or 1
    step = (width - 44) / max(1, len(counts))
    parts = [f'<line class="grid" x1="40" x2="{width}" y1="{base - 100}" y2="{base - 100}"/>',
             f'<line class="axis" x1="40" x2="{width}" y1="{base + 0.5}" y2="{base + 0.5}"/>',
             f'<text class="tick" x="34" y="{base - 96}" text-anchor="end">{most:,}</text>',
             f'<text class="tick" x="34" y="{base + 4}" text-anchor="end">0</text>']
    for i, (name, n, *_) in enumerate(counts):
        tall = 100 * n / most
        if n:
            parts.append(f'<rect class="bar" x="{40 + i * step + 1:.1f}" y="{base - tall:.1f}" width="{max(1.0, step - 2):.1f}" '
                         f'height="{tall:.1f}" rx="1.5"><title>{escape(name)}: {n:,}</title></rect>')
        if (len(counts) - 1 - i) % every == 0:
            parts.append(f'<text class="tick" x="{40 + (i + 0.5) * step:.1f}" y="{base + 18}" text-anchor="middle">'
                         f"{escape(name)}</text>")
    return Markup(f'<svg class="bars" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
                  f'<title>{escape(title)}</title>{"".join(parts)}</svg>')


def heat(value: float) -> str:
    """The class of a cell that shows agreement: 0.5 and below the palest, 1 the strongest."""
    return "none" if math.isnan(value) else f"heat{min(HEAT - 1, max(0, int((value - 0.3) / 0.7 * HEAT)))}"


def by_hour(times: Sequence[str], now: datetime) -> tuple[list[Bar], str]:
    """Counts an hour over the last two days, or a day over the last month where the last two days are empty."""
    stamps = [datetime.fromisoformat(t) for t in times]
    hour = now.replace(minute=0, second=0, microsecond=0)
    hours = [hour - timedelta(hours=h) for h in range(47, -1, -1)]
    if any(t >= hours[0] for t in stamps):
        count = dict.fromkeys(hours, 0)
        for t in stamps:
            at = t.replace(minute=0, second=0, microsecond=0)
            if at in count:
                count[at] += 1
        named = [_bar(h.strftime("%H:00") if h.hour else h.strftime("%d %b"), n, h, timedelta(hours=1)) for h, n in count.items()]
        return named, "Answers an hour, last two days (UTC)"
    days = [hour.replace(hour=0) - timedelta(days=d) for d in range(29, -1, -1)]
    daily = dict.fromkeys(days, 0)
    for t in stamps:
        day = t.replace(hour=0, minute=0, second=0, microsecond=0)
        if day in daily:
            daily[day] += 1
    return [_bar(d.strftime("%d %b"), n, d, timedelta(days=1)) for d, n in daily.items()], "Answers a day, last 30 days (UTC)"


def _bar(name: str, n: int, start: datetime, length: timedelta) -> Bar:
    return Bar(name, n, stamp(start), stamp(start + length))
