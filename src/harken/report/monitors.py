"""Is a run still healthy: what a stop rule did, proxy beside held-out reward, and how far each monitor has drifted."""

from __future__ import annotations

from collections.abc import Sequence

from harken.draw import numbers
from harken.draw.html import data_table, text
from harken.draw.svg import Plot, padded
from harken.report.curves import label
from harken.report.load import RunData
from harken.stats.drift import MONITORS, Audit, Drift, change

NAMES = {"proxy": ("Reward that is climbed (proxy)", "accent"), "held_out": ("Held-out reward", "gold")}
LIMITS = {"grows": "× {:g}", "shrinks": "× {:g}", "rises": "+{:g}", "falls": "−{:g}", "above": "> {:g}", "below": "< {:g}",
          "beyond": "± {:g}"}


def monitors(runs: Sequence[RunData]) -> str:
    """A block for each run that samples: stopped or not, its audits, its drifts."""
    out = []
    for run in runs:
        block = _stopped(run) + _audits(run) + _drift(run)
        if block:
            out.append(f"<h3>{text(run.name)}</h3>{block}")
    return "".join(out)


def _stopped(run: RunData) -> str:
    stopped = (run.result or {}).get("stopped")
    if not isinstance(stopped, dict):
        return ""
    step, kept_step, rule, why = (text(stopped.get(key)) for key in ("step", "kept_step", "rule", "why"))
    return (f"<p>Stopped after step <strong>{step}</strong> by the rule {rule}: {why}. The model kept is that after step "
            f"<strong>{kept_step}</strong>.</p>")


def _audits(run: RunData) -> str:
    """Change of both rewards since the first audit, prompt by prompt, with intervals."""
    audits = []
    for row in run.audits:
        try:
            audits.append(Audit.from_json(row))
        except (KeyError, TypeError):
            continue  # a torn or foreign line; load counts what is unreadable
    if len(audits) < 2:
        return ""
    kept_step = ((run.result or {}).get("stopped") or {}).get("kept_step")
    return f'<div class="pair">{"".join(_panel(run, audits, which, kept_step) for which in NAMES)}</div>'


def _panel(run: RunData, audits: Sequence[Audit], which: str, kept_step: object) -> str:
    name, style = NAMES[which]
    changes = [(a.step, change(audits[0], a, which)) for a in audits]
    changes = [(s, e) for s, e in changes if e.n]
    if len(changes) < 2:
        return ""
    prompts, (last, end) = changes[-1][1].n, changes[-1]
    ends = [v for _, e in changes for v in (e.low, e.high)]
    plot = Plot(f"{name} of {run.name}", f"Changed by {numbers.value(end)} {numbers.span(end)} by step {last}.",
                (changes[0][0], last), padded(ends), x_label="Step", y_label="Change since the first audit")
    if isinstance(kept_step, int):
        plot.upright(kept_step, *plot.y, "reference")
    for step, e in changes[1:]:
        plot.upright(step, e.low, e.high, f"interval {style} faint")
    plot.line([(s, e.value) for s, e in changes], f"line {style}")
    table = data_table(f"{name} of {run.name}", ("Step", "Change", "95% interval"),
                       ((str(s), numbers.value(e), numbers.span(e)) for s, e in changes))
    mark = " The upright line is the step that was kept." if isinstance(kept_step, int) else ""
    return (f"<figure>{plot.svg()}<figcaption>{name}, on {prompts} prompts kept out of training, each compared with itself.{mark}"
            f"</figcaption>{table}</figure>")


def _drift(run: RunData) -> str:
    """First and last mean of everything watched; what passed its limit, and when."""
    if not any("kl" in row for row in run.metrics):
        return ""
    watch = Drift()
    for row in run.metrics:
        watch.see(row)
    alarms = {a.monitor: a for a in watch.alarms}
    rows = []
    for m in MONITORS:
        if m.metric not in watch.first:
            continue
        first, last = watch.compared(m.metric)
        alarm = f"<strong>step {alarms[m].step}</strong>" if m in alarms else '<span class="none">no</span>'
        limit = f"{m.kind} {LIMITS[m.kind].format(m.limit)}"
        rows.append(f'<tr><th scope="row">{text(label(m.metric))}</th><td>{numbers.number(first)}</td>'
                    f"<td>{numbers.number(last)}</td><td>{text(limit)}</td><td>{alarm}</td></tr>")
    if not rows:
        return ""
    return ('<table class="plain left"><caption>What is watched: means of the first and the last steps</caption><thead><tr>'
            '<th scope="col">Monitor</th><th scope="col">First</th><th scope="col">Last</th><th scope="col">Limit</th>'
            f'<th scope="col">Passed</th></tr></thead><tbody>{"".join(rows)}</tbody></table>')
