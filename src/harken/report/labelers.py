"""What `harken labelers` shows: the figures of the test on unseen votes, the table, the picture, the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from harken.core.protocols import Estimate
from harken.draw.forest import forest_svg
from harken.draw.page import page as filled
from harken.labelers.models.influence import Tested
from harken.labelers.models.verdicts import Person
from harken.labelers.votes import Votes
from harken.stats.intervals import mean_interval, paired_difference

NAMES = {"plain": "everybody alike (Bradley–Terry)", "beta": "a beta for each", "crowd": "honest with chance eta (Crowd-BT)",
         "plain without": "everybody alike, flagged people dropped"}


def figures(tested: Tested, votes: Votes, flagged: Sequence[int]) -> dict[str, Any]:
    """By model: mean log-probability and accuracy of the unseen votes of those not flagged (what a flagged person says is
    nothing to be good at), and the gain over plain, clustered by prompt, or by labeler where prompts are few."""
    counted = ~np.isin(votes.labeler, np.asarray(flagged, dtype=np.int64))
    if not counted.any():
        return {}
    prompts = votes.prompt[votes.a]
    cluster = prompts if len(np.unique(prompts)) >= 10 else votes.labeler
    units, untied = cluster[counted].tolist(), counted & (votes.won != 0)
    result: dict[str, Any] = {}
    for name, logp in tested.log_prob.items():
        row = {"log_prob": mean_interval(logp[counted], units)}
        if untied.any():
            row["accuracy"] = mean_interval(tested.right[name][untied], cluster[untied].tolist(), bounds=(0, 1))
        if name != "plain":
            row["gain"] = paired_difference(logp[counted], tested.log_prob["plain"][counted], units)
        result[name] = {k: e.to_json() for k, e in row.items()}
    return result


def cells(people: Sequence[Person], summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table as plain text; columns nobody has are left out."""
    gains = {row["name"]: row["gain_when_dropped"] for row in summary["people"] if "gain_when_dropped" in row}
    columns: dict[str, Any] = {
        "labeler": lambda p: p.name, "votes": lambda p: f"{p.votes:,}", "ties": lambda p: f"{p.ties:.0%}",
        "agrees": lambda p: None if p.agreement is None else f"{p.agreement:.0%}",
        "beta": lambda p: f"{p.beta:.2f} [{p.beta_low:.2f}, {p.beta_high:.2f}]".replace("-", "−"),
        "first": lambda p: pull(p.position, p.position_sd), "length": lambda p: pull(p.length, p.length_sd),
        "seconds": lambda p: None if p.seconds is None else f"{p.seconds:.0f}",
        "swaps": lambda p: None if p.swapped is None else f"{p.swapped:.1%}",
        "others' gain": lambda p: f"{gains[p.name]:+.4f}".replace("-", "−") if p.name in gains else None,
        "verdict": lambda p: p.verdict}
    shown = [n for n, cell in columns.items() if any(cell(p) is not None for p in people)]
    return shown, [[columns[n](p) or "" for n in shown] for p in people]


def pull(value: float | None, sd: float | None) -> str | None:
    return None if value is None or sd is None else f"{value:+.2f} ± {1.645 * sd:.2f}".replace("-", "−")


def advice(held_out: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """The model to use, and a warning for each that is shown to predict unseen votes worse than everybody alike.

    A model is used in place of "plain" where its gain's interval lies above 0, the one of the greatest gain; else the plain one.
    Crowd-BT gives every answer, however clear, one chance of being upside down. Careful people err on close pairs and hardly on
    clear ones, so its predictions stop short of 1 there: that is where it loses (tests/test_crowd_careful.py).
    """
    if not held_out:
        return None, []
    gains = {name: row["gain"] for name, row in held_out.items() if name in ("beta", "crowd") and "gain" in row}
    better = {name: g["value"] for name, g in gains.items() if g["low"] is not None and g["low"] > 0}
    why = {"crowd": "it keeps a chance of an upside-down answer even where the choice is clear, and careful people give none",
           "beta": "the votes are too few to tell people apart"}
    notes = [f"{NAMES[name][:1].upper()}{NAMES[name][1:]} predicts unseen votes worse than everybody alike "
             f"({g['value']:+.3f} [{g['low']:+.3f}, {g['high']:+.3f}] a vote): {why[name]}.".replace("-0.", "−0.")
             for name, g in gains.items() if g["high"] is not None and g["high"] < 0]
    return max(better, key=better.__getitem__, default="plain"), notes


def held_out_lines(summary: Mapping[str, Any]) -> list[str]:
    """One line a model, plain first."""
    whose = f" of the {summary['labelers'] - len(summary['flagged'])} not flagged" if summary["flagged"] else ""
    head = f"Unseen votes{whose} (5 folds): mean log-probability, accuracy, gain in log-probability [95 %]:"
    lines = [head] if summary["held_out"] else []
    for name, row in summary["held_out"].items():
        gain = f"  gain {Estimate(**row['gain'])}".rsplit(" n=", 1)[0] if "gain" in row else ""
        right = f"  accuracy {row['accuracy']['value']:.3f}" if "accuracy" in row else ""
        number = f"{row['log_prob']['value']:.4f}{right}{gain}".replace("-", "−")
        lines.append(f"  {NAMES[name]:42} {number}")
    if summary.get("use"):
        lines.append(f"Use: {NAMES[summary['use']]}.")
    return lines


def feedback_lines(summary: Mapping[str, Any]) -> list[str]:
    """What each kind of feedback contributed, under a heading; nothing where there are comparisons alone."""
    lines = summary.get("feedback", {}).get("lines", [])
    return ["What each kind of feedback tells (log-odds of the signal per unit of score, 95 %):", *lines] if lines else []


def picture(people: Sequence[Person], file: object, inline: bool = False) -> str:
    return forest_svg(people, f"How far each labeler can be trusted: {Path(str(file)).name}", inline)


def page(people: Sequence[Person], summary: Mapping[str, Any]) -> str:
    """An offline page: the picture, the table, the test on unseen votes, the warnings."""
    head, rows = cells(people, summary)
    lines = [*held_out_lines(summary), *summary.get("campaigns", {}).get("lines", []), *feedback_lines(summary)]
    return filled("labelers.html", title=f"{summary['labelers']} labelers, {summary['votes']:,} votes", head=head, rows=rows,
                  picture=Markup(picture(people, summary["file"], inline=True)), unseen=lines,
                  notes=summary["warnings"])
