"""Whose opinions a model has, as a heat map: how alike its answers are to each group's, a row a group, a column a model."""

from __future__ import annotations

from collections.abc import Sequence

from harken.core.protocols import Estimate
from harken.draw import numbers
from harken.draw.html import text
from harken.report.load import RunData, estimate
from harken.report.results import short


def opinions(runs: Sequence[RunData]) -> str:
    """Empty where no run asked for opinions by group."""
    columns: dict[str, dict[str, Estimate]] = {}
    for run in runs:
        result = run.result or {}
        for side in ("model", "against") if result.get("name") == "opinions" else ():
            figures = result.get(side)
            held = figures.get("groups") if isinstance(figures, dict) else None
            if isinstance(held, dict):
                names = [short(run.config.get(side) or run.name), short(f"{run.config.get(side)} ({run.name})")]
                name = names[0] if names[0] not in columns else names[1]
                columns[name] = {g: e for g, v in held.items() if (e := estimate(v))}
    groups = sorted({g for part in columns.values() for g in part})
    if not groups:
        return ""
    values = [e.value for part in columns.values() for e in part.values()]
    low, width = min(values), (max(values) - min(values)) or 1.0
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    body = ""
    for g in groups:
        cells = "".join(_cell(part.get(g), low, width) for part in columns.values())
        body += f'<tr><th scope="row">{text(g)}</th>{cells}</tr>'
    caption = ("How alike the model's answers are to each group's (1 is the same shares), with 95% intervals over questions; the "
               "stronger the colour, the more alike")
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="Opinions by group"><table class="plain heat"><caption>'
            f'{caption}</caption><thead><tr><th scope="col">Group</th>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _cell(e: Estimate | None, low: float, width: float) -> str:
    if e is None:
        return '<td style="--share: 0"><span class="none">not asked</span></td>'
    return (f'<td style="--share: {(e.value - low) / width:.2f}"><span class="value">{text(numbers.value(e))}</span> '
            f'<span class="range">{text(numbers.span(e))}, n = {e.n:,}</span></td>')
