"""Betas with their intervals as SVG, one line a labeler: what `harken labelers --out` draws."""

from __future__ import annotations

from collections.abc import Sequence

from harken.draw.html import text
from harken.draw.svg import opening
from harken.labelers.models.verdicts import Person

ROW, LEFT, WIDTH, RIGHT = 22, 150, 330, 190
COLOURS = {"reliable": "#2f7fd0", "careless": "#c58a00", "reversed": "#d0402f"}
OTHER_COLOUR = "#808890"


def forest_svg(people: Sequence[Person], title: str, inline: bool = False) -> str:
    """The dot is beta, the line its 90 % interval; upright lines at 0 (a coin) and 1 (the average labeler)."""
    low = min(-0.5, *(max(p.beta_low, -4.0) for p in people))
    high = max(1.5, *(min(p.beta_high, 5.0) for p in people))
    top, height = 46, 46 + ROW * len(people) + 26

    def at(beta: float) -> float:
        return LEFT + (min(max(beta, low), high) - low) / (high - low) * WIDTH

    parts = [opening(LEFT + WIDTH + RIGHT, height, title, inline),
             f'<text x="0" y="15" font-weight="600">{text(title)}</text>']
    for mark, word in ((0.0, "0: a coin"), (1.0, "1: average")):
        parts.append(f'<line x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="{top - 8}" y2="{height - 18}" stroke="currentColor" '
                     f'stroke-opacity=".25"/><text x="{at(mark):.1f}" y="{height - 4}" text-anchor="middle" '
                     f'opacity=".7">{word}</text>')
    for row, person in enumerate(people):
        y = top + ROW * row
        colour = COLOURS.get(person.verdict.split(",")[0], OTHER_COLOUR)
        name = person.name if len(person.name) <= 20 else person.name[:19] + "…"
        words = f"{person.name}: beta {person.beta:.2f} [{person.beta_low:.2f}, {person.beta_high:.2f}], {person.votes} votes"
        parts.append(f'<g><title>{text(words)}</title><text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{text(name)}</text>'
                     f'<line x1="{at(person.beta_low):.1f}" x2="{at(person.beta_high):.1f}" y1="{y}" y2="{y}" '
                     f'stroke="{colour}" stroke-width="3" stroke-opacity=".45" stroke-linecap="round"/>'
                     f'<circle cx="{at(person.beta):.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
                     f'<text x="{LEFT + WIDTH + 14}" y="{y + 4}" opacity=".8">{text(person.verdict)}</text></g>')
    return "".join(parts) + "</svg>\n"
