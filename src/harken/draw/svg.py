"""Inline SVG: a plot with axes, and an interval bar for a table cell. Colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from harken.core.protocols import Estimate
from harken.draw.html import text
from harken.draw.numbers import compact

Points = Sequence[tuple[float, float]]
FOLLOWS_READER = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>"


def opening(width: float, height: float, title: str, inline: bool) -> str:
    """The start of a picture that is read aloud as `title`. Inside a page (`inline`) it takes the page's text colour, as a
    file of its own it follows the reader's light or dark setting."""
    name = text(title)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
            f'aria-label="{name}" font-family="system-ui, sans-serif" font-size="12" fill="currentColor"><title>{name}</title>'
            + ("" if inline else FOLLOWS_READER))


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside [low, high], about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.66)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def tick_label(value: float, among: Sequence[float]) -> str:
    """As many decimals as tell these ticks apart."""
    step = among[1] - among[0] if len(among) > 1 else abs(value)
    if step <= 0 or not 1e-4 <= step < 1e6:
        return compact(value)
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}".replace("-", "−")


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """A range that holds the finite values with some air."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    air = (high - low) * share or abs(high) * 0.1 or 1.0
    return low - air, high + air


def binned(points: Points, most: int = 240) -> list[tuple[float, float]]:
    """At most `most` points: means over equal runs of steps."""
    if len(points) <= most:
        return list(points)
    return [(float(c[:, 0].mean()), float(c[:, 1].mean())) for c in np.array_split(np.array(points), most)]


def smooth(points: Points) -> list[tuple[float, float]]:
    """Centred running mean over a twelfth of the points; the window is cut off at both ends."""
    half = len(points) // 24
    if half == 0:
        return list(points)
    y = np.array([p[1] for p in points])
    return [(x, float(y[max(0, i - half):i + half + 1].mean())) for i, (x, _) in enumerate(points)]


_drawn: ContextVar[list[Plot] | None] = ContextVar("drawn", default=None)


@contextmanager
def collecting() -> Iterator[list[Plot]]:
    """The plots that are drawn inside the block, in order: what a page's figures are made into files from."""
    plots: list[Plot] = []
    token = _drawn.set(plots)
    try:
        yield plots
    finally:
        _drawn.reset(token)


class Plot:
    """Axes with marks on them. `x` and `y` are the ranges shown; `title` and `desc` are read aloud."""

    def __init__(self, title: str, desc: str, x: tuple[float, float], y: tuple[float, float], *,
                 x_label: str = "", y_label: str = "", width: int = 430, height: int = 270,
                 x_format: Callable[[float], str] | None = None, y_format: Callable[[float], str] | None = None,
                 x_ticks: Sequence[float] | None = None, y_ticks: Sequence[float] | None = None) -> None:
        self.title, self.desc, self.x, self.y = title, desc, x, y
        self.width, self.height = width, height
        self.y_ticks = list(y_ticks if y_ticks is not None else ticks(*y, 4))
        self.x_ticks = list(x_ticks if x_ticks is not None else ticks(*x, 4))
        x_words = [x_format(t) if x_format else tick_label(t, self.x_ticks) for t in self.x_ticks]
        y_words = [y_format(t) if y_format else tick_label(t, self.y_ticks) for t in self.y_ticks]
        self.left = 12 + 7 * max(map(len, y_words), default=0)
        self.right, self.top = width - 14, 30 if y_label else 10
        self.bottom = height - (42 if x_label else 24)
        self.parts: list[str] = []
        self.series: list[tuple[str, Sequence[tuple[float, ...]]]] = []
        """What was drawn, in the data's units: the style and (x, y) or (x, low, high)."""
        for t, word in zip(self.y_ticks, y_words):
            y_at = self._y(t)
            self.parts.append(f'<line class="grid" x1="{self.left}" x2="{self.right}" y1="{y_at}" y2="{y_at}"/>')
            self._words(self.left - 7, y_at + 4, word, "tick", "end")
        for t, word in zip(self.x_ticks, x_words):
            x_at = self._x(t)
            anchor = "end" if x_at > width - 24 else "start" if x_at <= self.left else "middle"
            self._words(x_at, self.bottom + 16, word, "tick", anchor)
        self._words(0, 13, y_label, "axis", "start")
        self._words(self.right, height - 6, x_label, "axis", "end")

    def _words(self, x: float, y: float, words: str, style: str, anchor: str) -> None:
        if words:
            self.parts.append(f'<text class="{style}" x="{x}" y="{y:.1f}" text-anchor="{anchor}">{text(words)}</text>')

    def _x(self, v: float) -> float:
        return round(self.left + (v - self.x[0]) / (self.x[1] - self.x[0]) * (self.right - self.left), 1)

    def _y(self, v: float) -> float:
        return round(self.bottom - (v - self.y[0]) / (self.y[1] - self.y[0]) * (self.bottom - self.top), 1)

    def line(self, points: Points, style: str) -> None:
        self.series.append((style, points))
        if len(points) > 1:
            path = " ".join(f"{self._x(a)},{self._y(b)}" for a, b in points)
            self.parts.append(f'<polyline class="{style}" points="{path}"/>')
        else:
            self._dots(points, style, [3.0] * len(points))

    def band(self, points: Sequence[tuple[float, float, float]], style: str) -> None:
        """The area between (x, low, high)."""
        self.series.append((style, points))
        upper = [f"{self._x(x)},{self._y(high)}" for x, _, high in points]
        lower = [f"{self._x(x)},{self._y(low)}" for x, low, _ in reversed(points)]
        self.parts.append(f'<polygon class="{style}" points="{" ".join(upper + lower)}"/>')

    def dots(self, points: Points, style: str, radii: Sequence[float], names: Sequence[str] = ()) -> None:
        self.series.append((style, points))
        self._dots(points, style, radii, names)

    def _dots(self, points: Points, style: str, radii: Sequence[float], names: Sequence[str] = ()) -> None:
        for i, (a, b) in enumerate(points):
            title = f"<title>{text(names[i])}</title>" if names else ""
            at = f'cx="{self._x(a)}" cy="{self._y(b)}" r="{radii[i]:.1f}"'
            self.parts.append(f'<circle class="dot {style}" {at}>{title}</circle>')

    def upright(self, x: float, low: float, high: float, style: str) -> None:
        self.line([(x, max(low, self.y[0])), (x, min(high, self.y[1]))], style)

    def names(self, points: Sequence[tuple[float, float, str]]) -> None:
        """(x, y, words) beside each point, above, below or level with it on either side: where the words fit and hide least of
        points and of other words, the side with more room first. Call it once, after the dots."""
        dots = [(self._x(x), self._y(y)) for x, y, _ in points]
        taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in dots]
        for (x, y), (_, _, words) in sorted(zip(dots, points), key=lambda pair: pair[0][1]):  # from the top down
            shown = words if len(words) <= 34 else words[:33] + "…"
            left = x > (self.left + self.right) / 2
            places = [(end, down) for end in (left, not left) for down in (-8.0, 19.0, 4.0, -23.0)]
            boxes = [self._box(x, y, shown, *place) for place in places]
            inside = [i for i, box in enumerate(boxes) if box[0] >= 0 and box[2] <= self.width and box[3] <= self.bottom] or [0]
            best = min(inside, key=lambda i: (sum(_shared(boxes[i], other) for other in taken), i))
            end, down = places[best]
            taken.append(boxes[best])
            self._words(x - 9 if end else x + 9, y + down, shown, "point", "end" if end else "start")

    @staticmethod
    def _box(x: float, y: float, words: str, end: bool, down: float) -> tuple[float, float, float, float]:
        """About where words stand: left, top, right, bottom."""
        wide = 6.2 * len(words)
        near = x - 9 - wide if end else x + 9
        return near, y + down - 11, near + wide, y + down + 3

    def legend(self, lines: Sequence[tuple[str, str]]) -> None:
        """The names of lines given as (style, words), one under another in the upper left corner."""
        x, y = self.left + 12, self.top + 10
        for i, (style, words) in enumerate(lines):
            at = y + 16 * i
            self.parts.append(f'<polyline class="{style}" points="{x},{at} {x + 22},{at}"/>'
                              f'<text x="{x + 27}" y="{at + 4}">{text(words)}</text>')

    def file(self, css: str) -> str:
        """What a file of its own holds: no page gives it colours, `css` does."""
        inline = self._svg().replace("<title>", f"<style>{css}</style><title>", 1)
        return inline.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"

    def svg(self) -> str:
        drawn = _drawn.get()
        if drawn is not None:
            drawn.append(self)
        return self._svg()

    def _svg(self) -> str:
        title = text(self.title)
        return (f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{title}">'
                f"<title>{title}</title><desc>{text(self.desc)}</desc>{''.join(self.parts)}</svg>")


def interval_bar(e: Estimate, scale: tuple[float, float], words: str, *, reference: float | None = None,
                 style: str = "accent") -> str:
    """Interval and value on `scale`, as wide as its cell; `reference` draws a fine upright line."""
    def place(v: float) -> str:
        return f"{min(max((v - scale[0]) / (scale[1] - scale[0]), 0.0), 1.0) * 96 + 2:.2f}%"

    parts = ['<line class="track" x1="2%" x2="98%" y1="11" y2="11"/>']
    if reference is not None:
        parts.append(f'<line class="reference" x1="{place(reference)}" x2="{place(reference)}" y1="1" y2="21"/>')
    if not math.isnan(e.low) and not math.isnan(e.high):
        parts.append(f'<line class="interval {style}" x1="{place(e.low)}" x2="{place(e.high)}" y1="11" y2="11"/>')
    parts.append(f'<circle class="dot {style}" cx="{place(e.value)}" cy="11" r="4.5"/>')
    name = text(words)
    return (f'<svg class="bar" width="100%" height="22" role="img" aria-label="{name}"><title>{name}</title>'
            f"{''.join(parts)}</svg>")


def _shared(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
