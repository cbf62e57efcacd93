"""The page of `harken eval dynamics`: two circles with the chances between them, curves over segments, and texts as they went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from harken.core.protocols import Estimate
from harken.draw.html import data_table, text
from harken.draw.numbers import number, percent
from harken.draw.page import page as filled
from harken.draw.svg import Plot
from harken.stats.dynamics import BAD, Dynamics

STYLE = """main{max-width:52rem;margin:2rem auto;padding:0 1.2rem}
.chain{width:100%;max-width:40rem;height:auto;display:block;margin:1rem auto}
.chain .good{fill:var(--wash);stroke:var(--accent);stroke-width:2}.chain .bad{fill:none;stroke:var(--gold);stroke-width:3}
.chain path{fill:none;stroke:var(--soft)}.chain text{fill:var(--ink);font-size:14px}.chain .small{fill:var(--soft);font-size:12px}
.paths{width:100%;height:auto}.paths .g{fill:var(--track)}.paths .b{fill:var(--gold)}
.findings{border-collapse:collapse;width:100%}.findings th,.findings td{text-align:left;padding:.4rem .6rem;vertical-align:top}
.key{color:var(--accent)}.key2{color:var(--gold)}"""
SHOWN = 40
"""Texts drawn as rows of squares."""


def page(model: str, result: Dynamics, by_turn: Sequence[Estimate], figures: Mapping[str, Any], decoding: Mapping[str, Any],
         rollouts: Sequence[Sequence[int]]) -> str:
    """One offline HTML page. `by_turn` is the share of bad segments at each place."""
    from harken.draw.page import HERE
    css = (HERE / "style.css").read_text(encoding="utf-8") + STYLE
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in decoding.items() if value != "")
    return filled("dynamics.html", style=css, title="How likely does it turn bad?", model=model, rollouts=f"{result.rollouts:,}",
                  turns=f"{result.turns:,}", segment=decoding["segment"], answer=answer(result), picture=chain(result),
                  turns_plot=_curves(by_turn, result.recovery), findings=_findings(result, figures), paths=_paths(rollouts),
                  decoding=words)


def answer(result: Dynamics) -> str:
    """The title's question, answered in words."""
    first, stay = result.first.value, result.stay.value
    turns = (f"A good segment is followed by a bad one with {percent(result.entry.value)} chance "
             f"({percent(result.entry.low)} to {percent(result.entry.high)})"
             + (f", so a text goes on for about {number(first, 2)} segments before it does. " if math.isfinite(first) else ". "))
    if result.rarely_leaves:
        back = f"Once bad it rarely comes back: under {percent(result.escape.high)} a segment."
    else:
        escape = result.escape
        back = (f"From bad it comes back with {percent(escape.value)} chance a segment ({percent(escape.low)} to "
                f"{percent(escape.high)})" + (f", after about {number(stay, 2)} segments." if math.isfinite(stay) else "."))
    return turns + back


def chain(result: Dynamics) -> Markup:
    """Good and bad as circles; an arrow is as thick as it is likely."""
    def arrow(path: str, chance: float, x: int, y: int, e: Estimate | None, words: str) -> str:
        interval = f" [{percent(e.low)}, {percent(e.high)}]" if e else ""
        return (f'<path d="{path}" stroke-width="{1 + 9 * chance:.1f}" marker-end="url(#tip)"/>'
                f'<text x="{x}" y="{y}" text-anchor="middle">{text(words)} {percent(chance)}</text>'
                + (f'<text class="small" x="{x}" y="{y + 16}" text-anchor="middle">{text(interval.strip())}</text>' if e else ""))

    entry, escape = result.entry, result.escape
    label = text(f"Good to bad {percent(entry.value)}, bad to good {percent(escape.value)} a segment")
    parts = [arrow("M 205 95 Q 320 45 430 93", entry.value, 320, 32, entry, "turns bad"),
             arrow("M 435 155 Q 320 205 210 157", escape.value, 320, 212, escape, "comes back"),
             arrow("M 115 150 C 45 215 25 85 108 100", 1 - entry.value, 80, 235, None, "stays good"),
             arrow("M 525 150 C 595 215 615 85 532 100", 1 - escape.value, 560, 235, None, "stays bad")]
    return Markup(f'<svg class="chain" viewBox="0 0 640 250" role="img" aria-label="{label}"><title>{label}</title>'
                  '<defs>'
                  '<marker id="tip" viewBox="0 0 10 10" refX="6" refY="5" markerUnits="userSpaceOnUse" markerWidth="14" '
                  'markerHeight="14" orient="auto">'
                  '<path d="M0 0 10 5 0 10z" style="fill:var(--soft);stroke:none"/></marker></defs>'
                  '<circle class="good" cx="160" cy="125" r="52"/><text x="160" y="130" text-anchor="middle">good</text>'
                  '<circle class="bad" cx="480" cy="125" r="52"/><text x="480" y="130" text-anchor="middle">bad</text>'
                  f"{''.join(parts)}</svg>")


def _curves(by_turn: Sequence[Estimate], recovery: Sequence[Estimate]) -> Markup:
    turns = [(float(i), e.value) for i, e in enumerate(by_turn, 1)]
    after = [(float(i), e.value) for i, e in enumerate(recovery, 1)]
    longest = max(len(turns), len(after), 2)
    plot = Plot("Share of bad segments", "By place in a text, and after the first bad segment.", (0.5, longest + 0.5), (0.0, 1.0),
                x_label="segment", y_label="share bad", width=640, height=240, y_format=lambda v: percent(v, 0))
    plot.line(turns, "line accent")
    if after:
        plot.line(after, "line gold")
        for i, e in enumerate(recovery, 1):
            plot.upright(i, e.low, e.high, "interval gold")
    rows = [(str(i + 1), str(by_turn[i]) if i < len(by_turn) else "", str(recovery[i]) if i < len(recovery) else "")
            for i in range(longest)]
    key = ('<p class="note"><span class="key">■</span> at this place in a text '
           '<span class="key2">■</span> so many segments after the first bad one</p>')
    return Markup(plot.svg() + key + data_table("Share bad", ("segment", "at this place", "after the first bad"), rows))


def _findings(result: Dynamics, figures: Mapping[str, Any]) -> Markup:
    memory, two = result.memory, result.memory.two_steps
    rows = [("Ever bad", f"{percent(result.ever.value)} of texts ({percent(result.ever.low)} to {percent(result.ever.high)})"),
            ("In the long run", f"{percent(result.share.value)} of segments are bad; a start is forgotten by a factor e "
                                f"after {number(result.relaxation.value, 2)} segments."),
            ("A hidden persona?", (f"Yes: two segments after a bad one {percent(two.value)} are bad; with memory of no more "
                                   f"than a segment it were {percent(memory.two_steps_chain)}" if memory.persona else
                                   "None seen: what comes next depends on the present segment alone, for all these texts tell")
             + f" (p = {number(memory.p, 2)})."),
            ("Is one long text like many?", ("Yes, as far as these texts tell" if result.ergodic else
                                             "No: each text has a character of its own, and one tells little of the others")
             + f"; texts differ {number(result.spread.value, 2)} times as much as the chain says "
               f"[{number(result.spread.low, 2)}, {number(result.spread.high, 2)}]."),
            ("Loops", f"{percent(figures['loops'].value)} of texts end by repeating themselves.")]
    if "end_of_text" in figures:
        end = figures["end_of_text"]
        rows.append(("Does an ended text matter to the next?",
                     f"{'No' if end['invariant'] else 'Yes'}: {number(end['across_end'].value, 2)} nats a token across the end "
                     f"of a text, {number(end['without_end'].value, 2)} without it."))
        life = figures["prompt_half_life"]
        rows.append(("How long does a prompt matter?", "Half of its influence is left after "
                     + (f"{number(life, 2)} tokens." if life is not None else "more tokens than were looked at.")))
    body = "".join(f'<tr><th scope="row">{text(a)}</th><td>{text(b)}</td></tr>' for a, b in rows)
    return Markup(f'<table class="findings">{body}</table>')


def _paths(rollouts: Sequence[Sequence[int]]) -> Markup:
    shown = [r[:60] for r in rollouts if r][:SHOWN]
    wide = max(map(len, shown)) * 10
    squares = "".join(f'<rect class="{"b" if s == BAD else "g"}" x="{10 * x}" y="{10 * y}" width="8" height="8"/>'
                      for y, row in enumerate(shown) for x, s in enumerate(row))
    return Markup(f'<svg class="paths" style="max-width:{2 * wide}px" viewBox="0 0 {wide} {10 * len(shown)}" role="img" '
                  f'aria-label="{len(shown)} texts"><title>{len(shown)} texts</title>{squares}</svg>')
