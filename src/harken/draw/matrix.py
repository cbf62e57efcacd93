"""A labeler-by-labeler matrix as SVG: blue above chance, orange below, stronger the farther; numbers for who cannot tell them."""

from __future__ import annotations

import math

from harken.draw.html import text
from harken.draw.svg import opening
from harken.labelers.agreement.pairwise import Matrix

CELL, ROW = 46, 26
ABOVE_CHANCE, BELOW_CHANCE = "#2f7fd0", "#e07020"


def matrix_svg(table: Matrix, title: str, most: int = 12, inline: bool = False) -> str:
    """The first `most` labelers: Cohen's kappa of every two as number and colour; the agreement and the units shared in
    each cell's tooltip. An empty cell: no shared unit, or one answer only, so that kappa is undefined."""
    names = table.raters[:most]
    left = 12 + 7 * max((min(len(n), 16) for n in names), default=0)
    top = 54
    width, height = max(left + CELL * len(names) + 8, 7 * min(len(title), 60)), top + ROW * len(names) + 8
    parts = [opening(width, height, title, inline), _words(0, 16, title, "start")]
    for i, name in enumerate(names):
        parts.append(_words(left - 6, top + ROW * i + 17, name, "end", 16))
        parts.append(_words(left + CELL * (i + 0.5), top - 8, name, "middle", 6))
        parts += [_cell(table, i, j, left + CELL * j, top + ROW * i) for j in range(len(names)) if i != j]
    return "".join(parts) + "</svg>\n"


def _cell(table: Matrix, i: int, j: int, x: int, y: int) -> str:
    kappa, agreed, shared = float(table.kappa[i, j]), float(table.agreement[i, j]), int(table.shared[i, j])
    box = f'x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{ROW - 2}" rx="3"'
    pair = text(f"{table.raters[i]} and {table.raters[j]}")
    if math.isnan(kappa):
        words = "no shared unit" if not shared else f"agree on {agreed:.0%} of {shared}; kappa undefined"
        return f'<g><title>{pair}: {words}</title><rect {box} fill="none" stroke="currentColor" stroke-opacity=".25"/></g>'
    colour, strength = ABOVE_CHANCE if kappa >= 0 else BELOW_CHANCE, 0.06 + 0.54 * min(1.0, abs(kappa))
    return (f"<g><title>{pair}: kappa {kappa:.2f}, agree on {agreed:.0%} of {shared}</title>"
            f'<rect {box} fill="{colour}" fill-opacity="{strength:.2f}"/>'
            f'{_words(x + CELL / 2, y + 17, f"{round(kappa, 2) + 0.0:.2f}".replace("-", "−"), "middle")}</g>')


def _words(x: float, y: float, words: str, anchor: str, most: int = 60) -> str:
    shown = words if len(words) <= most else words[:most - 1] + "…"
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text(shown)}</text>'
