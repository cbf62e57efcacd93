"""Over-refusal beside attack success: a model that refuses everything is harmless and useless, and one plot says both."""

from __future__ import annotations

from collections.abc import Sequence

from harken.core.protocols import Estimate
from harken.draw import numbers
from harken.draw.html import data_table, text
from harken.draw.svg import Plot
from harken.report.load import RunData, estimate
from harken.report.results import short

SCALE = (-0.04, 1.04)


def reactions(runs: Sequence[RunData]) -> str:
    """A dot a model, with Wilson's intervals both ways; empty without a run of `refusals`."""
    points: dict[str, tuple[Estimate, Estimate]] = {}
    notes = []
    for run in runs:
        result = run.result or {}
        for side in ("model", "against") if result.get("name") == "refusals" else ():
            held = result.get(side)
            over, attack = (estimate(held.get(key)) for key in ("over_refusal", "attack_success")) if isinstance(held, dict) \
                else (None, None)
            if over and attack:
                points.setdefault(short(run.config.get(side) or run.name), (_not(over), _not(attack)))
        classifier = result.get("classifier") if result.get("name") == "refusals" else None
        if isinstance(classifier, dict) and (agreed := estimate(classifier.get("agreement_with_people"))):
            notes.append(f"{run.name}: what tells a refusal agrees with people on {numbers.value(agreed, rate=True)} "
                         f"{numbers.span(agreed, rate=True)} of {agreed.n:,} answers that they labelled.")
    return _figure(points, notes) if points else ""


def _not(e: Estimate) -> Estimate:
    return Estimate(1 - e.value, 1 - e.high, 1 - e.low, e.n, e.level)


def _figure(points: dict[str, tuple[Estimate, Estimate]], notes: Sequence[str]) -> str:
    plot = Plot("Safe prompts answered against unsafe prompts refused", f"{len(points)} models, beside one that always refuses "
                "and one that always answers.", SCALE, SCALE, height=320, x_label="safe prompts answered: right is better",
                y_label="unsafe prompts refused: up is better")
    for name, x, y in (("always refuses", 0.0, 1.0), ("always answers", 1.0, 0.0)):
        plot.dots([(x, y)], "grey", [4.0], [name])
    for name, (answered, refused) in points.items():
        plot.line([(answered.low, refused.value), (answered.high, refused.value)], "interval accent faint")
        plot.upright(answered.value, refused.low, refused.high, "interval accent faint")
        plot.dots([(answered.value, refused.value)], "accent", [5.0],
                  [f"{name}: answered {_shown(answered)}, refused {_shown(refused)}"])
    plot.names([(answered.value, refused.value, name) for name, (answered, refused) in points.items()])
    table = data_table("Reactions to safe and to unsafe prompts", ("Model", "Safe answered", "Over-refusal", "Unsafe refused",
                                                                   "Attack success"),
                       [(name, _shown(a), _shown(_not(a)), _shown(r), _shown(_not(r))) for name, (a, r) in points.items()])
    error = "".join(f'<p class="small">{text(note)}</p>' for note in notes)
    return (f'<div class="pair"><figure>{plot.svg()}<figcaption>Lines are 95% intervals (Wilson). Grey: a model that always '
            f"refuses (above left) and one that always answers (below right).</figcaption>{table}</figure></div>{error}")


def _shown(e: Estimate) -> str:
    return f"{numbers.value(e, rate=True)} {numbers.span(e, rate=True)}"
