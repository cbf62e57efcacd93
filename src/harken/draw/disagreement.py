"""A picture of disagreement: how much is noise and how much values, and the items on which groups differ, as one SVG file."""

from __future__ import annotations

from collections.abc import Sequence

from harken.core.protocols import Estimate
from harken.draw.html import text
from harken.draw.numbers import percent
from harken.draw.svg import tick_label, ticks
from harken.labelers.groups.disagreement import Disagreement, ItemGap
from harken.labelers.votes import Votes

WIDTH, ROW, LEFT, RIGHT = 720, 28, 300, 24
EXCERPT = 44
STYLE = """<style>text{font:13px system-ui,sans-serif;fill:#1c2733}.small{font-size:11px;fill:#5b6875}.noise{fill:#b9c4cf}
.values{fill:#c4532d}.track{stroke:#e3e8ed}.zero{stroke:#8794a0;stroke-dasharray:3 3}.bar{stroke:#c4532d;stroke-width:3}
.dot{fill:#c4532d}.paper{fill:#fff}</style>"""


def excerpt(words: str, length: int = EXCERPT) -> str:
    """The first words of a text on one line."""
    line = " ".join(words.split())
    return line if len(line) <= length else line[:length - 1].rstrip() + "…"


def picture(disagreement: Disagreement, votes: Votes, most: int = 12) -> str:
    """The whole SVG: a bar of noise against values, then the surest items with their intervals."""
    items = disagreement.items[:most]
    top = 92
    height = top + (ROW * len(items) + 54 if items else 16)
    title = "Disagreement: noise, and differences of values"
    body = [f'<rect class="paper" width="{WIDTH}" height="{height}"/>', *_bar(disagreement)]
    if items:
        body += _rows(items, [votes.items[one.item][1] for one in items], disagreement.model.names, top)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{text(title)}">'
            f"<title>{text(title)}</title>{STYLE}{''.join(body)}</svg>\n")


def _bar(disagreement: Disagreement) -> list[str]:
    if disagreement.share is None:
        words, share = "No difference of values between groups was found: one group suffices", 0.0
    else:
        share = disagreement.share.value
        ends = f"{disagreement.share.level:.0%} interval {percent(disagreement.share.low)} to {percent(disagreement.share.high)}"
        words = f"{percent(share)} of disagreement is values ({ends}), between {' and '.join(disagreement.model.names)}"
    wide = WIDTH - 2 * RIGHT
    return [f'<text x="{RIGHT}" y="26">{text(excerpt(words, 96))}</text>',
            f'<rect class="noise" x="{RIGHT}" y="38" width="{wide}" height="14" rx="3"/>',
            f'<rect class="values" x="{RIGHT}" y="38" width="{max(share * wide, 0):.1f}" height="14" rx="3"/>',
            f'<text class="small" x="{WIDTH - RIGHT}" y="68" text-anchor="end">noise: people of one group who differ</text>']


def _rows(items: Sequence[ItemGap], texts: Sequence[str], names: Sequence[str], top: int) -> list[str]:
    """One row an item; between two groups, left is higher with the first and right with the second."""
    sides = len(names) == 2
    rows = [(words, one.high, _turned(one.gap) if sides and one.high == names[0] else one.gap)
            for one, words in zip(items, texts)]
    if sides:
        rows.sort(key=lambda row: row[2].value)
    low, high = min(0.0, *(e.low for *_, e in rows)), max(0.0, *(e.high for *_, e in rows))
    bottom = top + ROW * len(rows)

    def x(v: float) -> float:
        return round(LEFT + (v - low) / (high - low or 1.0) * (WIDTH - LEFT - RIGHT), 1)

    marks = ticks(low, high)
    out = [f'<line class="track" x1="{x(t)}" x2="{x(t)}" y1="{top - 6}" y2="{bottom}"/>'
           f'<text class="small" x="{x(t)}" y="{bottom + 16}" text-anchor="middle">{tick_label(t, marks)}</text>' for t in marks]
    out.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{top - 6}" y2="{bottom}"/>')
    for i, (words, group, e) in enumerate(rows):
        y = top + ROW * i + 8
        edge = f'x="{LEFT - 12}" text-anchor="end"'
        out.append(f'<text {edge} y="{y + 3}"><title>{text(words)}</title>{text(excerpt(words, 38))}</text>')
        if not sides:
            out.append(f'<text class="small" {edge} y="{y + 15}">{text(excerpt(group, 30))} higher</text>')
        out.append(f'<line class="bar" x1="{x(e.low)}" x2="{x(e.high)}" y1="{y}" y2="{y}"/>'
                   f'<circle class="dot" cx="{x(e.value)}" cy="{y}" r="4.5"/>')
    legend = f"← {excerpt(names[0], 20)} higher · {excerpt(names[1], 20)} higher → · " if sides else "how much higher, "
    out.append(f'<text class="small" x="{WIDTH - RIGHT}" y="{bottom + 36}" text-anchor="end">'
               f"{text(legend)}log-odds against the prompt's other answers, {items[0].gap.level:.0%} intervals</text>")
    return out


def _turned(e: Estimate) -> Estimate:
    return Estimate(-e.value, -e.high, -e.low, e.n, e.level)
