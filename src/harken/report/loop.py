"""The loop's page: win rate, agreement, label spend and tax over turns, every gate, what prompts are like, what labels would buy.

    build_loop(recipe, Path("loop.html"))
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harken.core.files import read_json
from harken.core.protocols import Estimate
from harken.core.version import __version__
from harken.draw import numbers
from harken.draw.html import data_table, text
from harken.draw.page import page
from harken.draw.svg import Plot, padded
from harken.launch.loop.lineage import Node
from harken.launch.loop.recipe import Recipe
from harken.launch.loop.status import status
from harken.launch.loop.turns import Loop, Turn
from harken.report.browser import script, script_hash
from harken.report.write import write_page

Row = Mapping[str, Any]
LEAD = {
    "over": "A turn is compared with the model that answered when it began. Bars are 95 % intervals.",
    "gates": "A rule holds only where the answers show it. What they leave open does not ship; the last column says about how "
             "many more prompts would decide.",
    "people": "Whoever is named here is to be looked at, not judged: a group with other values can look the same.",
    "prompts": "Real prompts without a use case take that of the most similar test prompt. What is like no test prompt is not "
               "tested.",
    "labels": "By the audit's model, the share of compared pairs whose order it has right: now, and after 200 more labels on "
              "such prompts. A guide, not a promise.",
    "decisions": "Who let which model answer, and when.",
}


def build_loop(recipe: Recipe, out: Path) -> Path:
    """Writes the page, whole or not at all. Raises `UserError` where `out` cannot be written."""
    return write_page(out, render(recipe))


def render(recipe: Recipe) -> str:
    found = status(recipe)
    turns = [t for t in found["turns"] if "verify" in t]
    loop = Loop(recipe.out)
    reports = {t.number: dict(read_json(t.path / "audit" / "report.json")) for t in loop.turns() if t.has("audit")}
    sections = (("over", "Over turns", _over(turns, reports)), ("gates", "Gates", _gates(found["turns"])),
                ("people", "Set aside", _aside(found["turns"])), ("prompts", "What people ask", _prompts(loop.turns())),
                ("labels", "What more labels would buy", _labels(reports)), ("decisions", "Decisions", _decisions(found)))
    shown = [{"name": n, "title": title, "body": body, "lead": LEAD[n]} for n, title, body in sections if body]
    count = len(found["turns"])
    return page("report.html", title=f"The loop: {recipe.out.name}", count=f"{count} turn{'s' * (count != 1)}",
                date=time.strftime("%Y-%m-%d"), verdict=Markup(_verdict(found)), facts=Markup(_facts(found)), sections=shown,
                script=Markup(script()), script_hash=script_hash(), version=__version__)


def _verdict(found: Row) -> str:
    words = f"{text(found['serving'])} answers"
    waiting = next((t for t in found["turns"] if t["state"] == "waits for approval"), None)
    if waiting:
        return f"Turn {waiting['turn']} passed its gate and waits for a person; {words} meanwhile."
    if found["canary"]:
        return f"{words}; {text(found['canary'])}."
    return words + "."


def _facts(found: Row) -> str:
    turns = found["turns"]
    last = next((t for t in reversed(turns) if "snapshot" in t), None)
    given = {"Turns": len(turns), "Promoted": sum("promoted" in t["steps"] for t in turns),
             "Not served": sum(t["state"] == "ended" for t in turns)}
    if last:
        given |= {"Comparisons": f"{last['snapshot']['comparisons']:,}", "People": f"{last['snapshot']['labelers']:,}"}
    pairs = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in given.items())
    return f'<dl class="facts">{pairs}</dl>'


def _over(turns: Sequence[Row], reports: Mapping[int, Row]) -> str:
    if not turns:
        return ""
    tax = {t["turn"]: Estimate.from_json(f["difference"]) for t in turns for rule in t.get("rules", []) if rule["metric"] == "tax"
           for f in rule["findings"] if f["difference"]}
    agreement = {n: Estimate.from_json(a) for n, r in reports.items()
                 if isinstance(a := (r.get("agreement") or {}).get("percent"), Mapping) and "value" in a}
    figures = [
        _series("Win rate over the model served before", "Turn", {
            t["turn"]: Estimate.from_json(t["verify"]["figures"]["win_rate"]) for t in turns}, reference=0.5),
        _series("Judge's mean score of the new model", "Turn", {
            t["turn"]: Estimate.from_json(t["verify"]["figures"]["judge"]["new"]) for t in turns
            if t["verify"]["figures"]["judge"]["new"]}),
        _series("KL to the model served before, nats an answer", "Turn", {
            t["turn"]: Estimate.from_json(t["verify"]["figures"]["kl"]) for t in turns if "kl" in t["verify"]["figures"]}),
        _series("Tax: nats a token less (above 0 is better)", "Turn", tax, reference=0.0),
        _series("Agreement of two people on one pair", "Turn", agreement)]
    spend = data_table("Labels by turn", ("Turn", "New comparisons", "All", "People", "Hours", "Left out by the audit"), (
        (str(t["turn"]), f"{t['snapshot']['new']:,}", f"{t['snapshot']['comparisons']:,}", f"{t['snapshot']['labelers']:,}",
         f"{t['snapshot'].get('seconds', 0) / 3600:.1f}", f"{t['audit']['left_out']:,}") for t in turns), summary="Label spend")
    return f'<div class="pair">{"".join(figures)}</div>{spend}'


def _series(title: str, axis: str, points: Mapping[int, Estimate], reference: float | None = None) -> str:
    if not points:
        return ""
    ends = [v for e in points.values() for v in (e.low, e.high)] + ([] if reference is None else [reference])
    at = list(points)
    plot = Plot(title, "; ".join(f"turn {n}: {numbers.span(e)}" for n, e in points.items()), (min(at) - 0.5, max(at) + 0.5),
                padded(ends), x_label=axis, x_ticks=at, x_format=lambda v: f"{v:.0f}", height=220)
    if reference is not None:
        plot.line([(min(at) - 0.5, reference), (max(at) + 0.5, reference)], "reference")
    for n, e in points.items():
        plot.upright(n, e.low, e.high, "line accent")
    plot.dots([(n, e.value) for n, e in points.items()], "accent", [5.0] * len(points))
    return f"<figure><figcaption>{text(title)}</figcaption>{plot.svg()}</figure>"


def _gates(turns: Sequence[Row]) -> str:
    parts = []
    for turn in reversed([t for t in turns if "rules" in t]):
        rows = []
        for rule in turn["rules"]:
            for f in rule["findings"]:
                d = Estimate.from_json(f["difference"]) if f["difference"] else None
                size = f"{d.value:+.3f} {numbers.span(d)}".replace("-", "−") if d else "none"
                rows.append((rule["rule"], f["name"], "holds" if f["holds"] else f["why"], size, str(f["items"]),
                             f"{f['more']:.0f}" if f["more"] else ""))
        parts.append(f"<h3>Turn {turn['turn']}: {text(turn['gate']['verdict'])}, {text(turn['state'])}</h3>"
                     + "".join(f'<p class="note">{text(note)}</p>' for note in turn["gate"].get("notes", []))
                     + _table(("Rule", "Of", "Found", "New − served", "Prompts", "More needed"), rows, "plain left wide"))
    return "".join(parts)


def _aside(turns: Sequence[Row]) -> str:
    rows = [(str(t["turn"]), ", ".join(entry["people"]), entry["why"]) for t in turns if "audit" in t
            for entry in t["audit"]["set_aside"]]
    return _table(("Turn", "People", "Why"), rows) if rows else ""


def _prompts(turns: Sequence[Turn]) -> str:
    last = next((t for t in reversed(turns) if t.has("snapshot")), None)
    if last is None or not (use := last.facts("snapshot").get("use_cases")) or not use["real"]:
        return ""
    real, test = sum(use["real"].values()), sum(use["test"].values())
    names = list(dict.fromkeys([*use["real"], *use["test"]]))
    rows = [(n, numbers.percent(use["real"].get(n, 0) / max(real, 1)), numbers.percent(use["test"].get(n, 0) / max(test, 1)))
            for n in names]
    note = f'<p class="note">{real:,} prompts of people, {test:,} of the verification; {use["guessed"]:,} by similarity.</p>'
    return _table(("Use case", "Real prompts", "Test prompts"), rows) + note


def _labels(reports: Mapping[int, Row]) -> str:
    rows = reports[max(reports)].get("more_labels", []) if reports else []
    if not rows:
        return ""
    return _table(("Prompts", "Comparisons", "Right now", "After 200 more"), [
        (r["group"], f"{r['comparisons']:,}", numbers.percent(r["now"]), numbers.percent(r["then"])) for r in rows])


def _decisions(found: Row) -> str:
    rows = [(h["at"][:16].replace("T", " "), h["why"], h["by"], ", ".join(
        f"{k}: {v}" for k, v in h.items() if k in ("serving", "canary") and v is not None)) for h in reversed(found["history"])]
    return _table(("When (UTC)", "What", "By", "Then"), rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "plain left") -> str:
    top = "".join(f'<th scope="col">{text(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll" tabindex="0">{table}</div>'


def write_lineage(tree: Node, out: Path) -> Path:
    """The tree as a page whose branches open and close."""
    body = f'<div class="tree">{_branch(tree)}</div>'
    return write_page(out, page("report.html", title="Lineage", count="lineage", date=time.strftime("%Y-%m-%d"),
                            verdict=Markup(text(tree.words)), facts=Markup(""), version=__version__,
                            script=Markup(script()), script_hash=script_hash(), sections=[
                                {"name": "tree", "title": "Made from, or made of it", "body": body, "lead": ""}]))


def _branch(node: Node) -> str:
    if not node.below:
        return f"<p>{text(node.words)}</p>"
    inner = "".join(f"<li>{_branch(n)}</li>" for n in node.below)
    return f"<details open><summary>{text(node.words)}</summary><ul>{inner}</ul></details>"
