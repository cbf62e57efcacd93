"""A labeler-by-labeler matrix as SVG: blue above chance, orange below, stronger the farther; text for who cannot tell them.

It needs no style sheet and takes the page's text colour, so it is readable on light and dark pages.
"""

from __future__ import annotations

import math
from html import escape

from harken.labelers.pairwise import Matrix

CELL, ROW = 46, 26
ABOVE, BELOW = "#2f6fb0", "#c8641e"


def matrix_svg(table: Matrix, title: str, most: int = 12) -> str:
    """The first `most` labelers: Cohen's kappa of every two as number and colour; the agreement and the units shared in
    each cell's tooltip. An empty cell: no shared unit, or one answer only, so that kappa is undefined."""
    names = table.raters[:most]
    left = 12 + 7 * max((min(len(n), 16) for n in names), default=0)
    top, width, height = 54, left + CELL * len(names) + 8, 54 + ROW * len(names) + 8
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
             f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12" fill="#777">'
             f"<title>{escape(title)}</title>", _words(0, 16, title, "start")]
    for i, name in enumerate(names):
        parts.append(_words(left - 6, top + ROW * i + 17, name, "end"))
        parts.append(_words(left + CELL * (i + 0.5), top - 8, name if len(name) <= 6 else name[:5] + "…", "middle"))
        parts += [_cell(table, i, j, left + CELL * j, top + ROW * i) for j in range(len(names)) if i != j]
    return "".join(parts) + "</svg>\n"


def _cell(table: Matrix, i: int, j: int, x: int, y: int) -> str:
    kappa, agreed, shared = float(table.kappa[i, j]), float(table.agreement[i, j]), int(table.shared[i, j])
    box = f'x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{ROW - 2}" rx="3"'
    if math.isnan(kappa):
        words = "no shared unit" if not shared else f"agree on {agreed:.0%} of {shared}; kappa undefined"
        return f'<g><title>{_pair(table, i, j)}: {words}</title><rect {box} fill="none" stroke="#777" stroke-opacity=".3"/></g>'
    strength = 0.12 + 0.88 * min(1.0, abs(kappa))
    words = f"kappa {kappa:.2f}, agree on {agreed:.0%} of {shared}"
    ink = "#fff" if strength > 0.55 else "#777"
    return (f'<g><title>{_pair(table, i, j)}: {words}</title><rect {box} fill="{ABOVE if kappa >= 0 else BELOW}" '
            f'fill-opacity="{strength:.2f}"/>{_words(x + CELL / 2, y + 17, f"{kappa:.2f}".replace("-", "−"), "middle", ink)}</g>')


def _pair(table: Matrix, i: int, j: int) -> str:
    return escape(f"{table.raters[i]} and {table.raters[j]}")


def _words(x: float, y: float, words: str, anchor: str, ink: str = "") -> str:
    colour = f' fill="{ink}"' if ink else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{colour}>{escape(words[:60])}</text>'
