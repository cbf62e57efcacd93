"""The page of `harken goals demo`: what a learner believes of an agent's goals, after more and more actions."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harken.draw.html import text
from harken.draw.page import page as filled
from harken.goals.demo import AGENTS, GOALS, WORTHS, Frame, Scene, world, worths
from harken.goals.mdp import Floats

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}
body{color:#1d2733;background:#fbfaf7}h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}
td,th{padding:.35rem .6rem;text-align:left;vertical-align:middle;border-top:1px solid #d8d5cc}
rect{fill:#0f766e}.back{fill:#e6e3da}text{font:11px system-ui;fill:currentColor}
.num{text-align:right;font-variant-numeric:tabular-nums}pre{line-height:1.15}
@media(prefers-color-scheme:dark){body{color:#e4e7ea;background:#14181d}.back{fill:#2a3038}rect{fill:#2dd4bf}
td,th{border-color:#333b45}}"""


def page(scene: Scene, frames: Sequence[Frame]) -> str:
    """One offline HTML page of all frames."""
    rows = [{"seen": f.seen, "worths": [_bars(row, [f"{w:g}" for w in WORTHS]) for row in worths(f.joint.rewards)],
             "kinds": _bars(f.joint.planners, [a[:4] for a in AGENTS]), "regret": f"{f.joint_regret:.3f}",
             "rational_regret": f"{f.rational_regret:.3f}"} for f in frames]
    truth = ", ".join(f"{name} {w:g}" for name, w in zip(GOALS.values(), scene.truth))
    return filled("goals.html", style=STYLE, title="What does it want?", agent=scene.agent, truth=truth, world=world().draw(),
                  goals=list(GOALS.values()), rows=rows)


def _bars(shares: Floats, labels: list[str]) -> Markup:
    """A small bar chart with its numbers in the title."""
    wide = 26
    title = ", ".join(f"{label}: {p:.2f}" for label, p in zip(labels, shares))
    parts = [f'<rect class="back" x="{i * wide}" y="0" width="{wide - 5}" height="40"/>'
             f'<rect x="{i * wide}" y="{40 - 40 * p:.1f}" width="{wide - 5}" height="{40 * p:.1f}"/>'
             f'<text x="{i * wide + (wide - 5) / 2}" y="52" text-anchor="middle">{label}</text>'
             for i, (p, label) in enumerate(zip(shares, labels))]
    return Markup(f'<svg role="img" width="{wide * len(labels)}" height="56"><title>{text(title)}</title>{"".join(parts)}</svg>')
