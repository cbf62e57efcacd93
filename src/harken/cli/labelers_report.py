"""What `harken labelers` computes and shows: the table, the picture, the page, the JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

import harken
from harken.core.errors import UserError
from harken.core.progress import waiting
from harken.core.protocols import Estimate
from harken.core.records import Choice, Judgment
from harken.core.terminal import one_line, visible
from harken.labelers.forest import forest_svg
from harken.labelers.influence import Tested, drop_each, drop_effect, held_out
from harken.labelers.people import Person, describe, median_seconds, warnings
from harken.labelers.reliability import Reliability, fit_reliability
from harken.labelers.votes import Votes, votes_of
from harken.stats.intervals import mean_interval, paired_difference
from harken.store.database import open_database
from harken.store.files import check_out, read_comparisons, write_text

NAMES = {"plain": "everybody alike (Bradley–Terry)", "beta": "a beta for each", "crowd": "honest with chance eta (Crowd-BT)",
         "plain without": "everybody alike, flagged people dropped"}
FLAGGED = ("reversed", "careless")
MOST_ROWS = 60


def run(args: argparse.Namespace) -> int:
    """`harken labelers`."""
    if args.out and args.out.suffix not in (".svg", ".html"):
        raise UserError(f"--out {args.out} ends neither in .svg nor in .html.", "Name a picture.svg or a page.html.")
    if args.out:
        near = next(p for p in args.out.absolute().parents if p.exists())  # the rest is made
        check_out(args.out if near == args.out.absolute().parent else near / args.out.name, args.file)
    with waiting("reading", 1):
        said, note = read(args.file, args.skip_bad)
        votes = votes_of(said)
    if not len(votes):
        raise UserError(f"{args.file} compares nothing: no row ranks two different completions.", "Is it the file you meant?")
    # Some tie half of what they see and some nothing: without a readiness of one's own, ties would pass for carelessness.
    traits = {"position": bool(votes.first.any()), "length": args.length, "indifference": bool((votes.won == 0).any())}
    with waiting("fitting", 1):
        found = fit_reliability(votes, **traits)
    people = describe(votes, found, drop_each(votes, **traits, watch=waiting), median_seconds(said))
    flagged = [votes.labelers.index(p.name) for p in people if p.verdict.startswith(FLAGGED)]
    tested = held_out(votes, without=flagged, seed=args.seed, **traits, watch=waiting) if len(people) > 1 else None
    effect = drop_effect(votes, seed=args.seed, **traits, watch=waiting) if args.effect else None
    notes = [note] * bool(note) + warnings(votes)
    summary: dict[str, Any] = {
        "file": str(args.file), "votes": len(votes), "labelers": len(people), "items": len(votes.items), "tie": found.tie,
        "warnings": notes, "people": [p.to_json() for p in people], "flagged": [votes.labelers[k] for k in flagged],
        "held_out": figures(tested, votes, flagged) if tested else {}}
    if effect is not None:
        for row in summary["people"]:
            row["gain_when_dropped"] = float(effect[votes.labelers.index(row["name"])])
    if args.out:
        save(args.out, picture(people, args.file) if args.out.suffix == ".svg" else page(people, summary))
    if args.json:
        print(json.dumps(summary))
        return 0
    show(people, found, votes, summary)
    if args.out:
        print(f"Wrote {args.out}")
    return 0


def read(file: str, skip_bad: bool) -> tuple[Sequence[Choice | Judgment], str | None]:
    """The judgments of a database, or the comparisons of a file with a note on what was skipped."""
    if str(file).startswith("postgresql") or Path(file).suffix in (".db", ".sqlite"):
        with open_database(file, create=False) as db:
            return [j for j in db.judgments() if j.choice() is not None], None
    loaded = read_comparisons(file, skip_bad=skip_bad)
    return loaded.records, loaded.describe()


def figures(tested: Tested, votes: Votes, flagged: Sequence[int]) -> dict[str, Any]:
    """By model: mean log-probability and accuracy of the unseen votes of those not flagged (what a flagged person says is
    nothing to be good at), and the gain over plain, clustered by prompt, or by labeler where prompts are few."""
    kept = ~np.isin(votes.labeler, np.asarray(flagged, dtype=np.int64))
    if not kept.any():
        return {}
    prompts = votes.prompt[votes.a]
    cluster = prompts if len(np.unique(prompts)) >= 10 else votes.labeler
    units, untied = cluster[kept].tolist(), kept & (votes.won != 0)
    result: dict[str, Any] = {}
    for name, logp in tested.log_prob.items():
        row = {"log_prob": mean_interval(logp[kept], units)}
        if untied.any():
            row["accuracy"] = mean_interval(tested.right[name][untied], cluster[untied].tolist(), bounds=(0, 1))
        if name != "plain":
            row["gain"] = paired_difference(logp[kept], tested.log_prob["plain"][kept], units)
        result[name] = {k: e.to_json() for k, e in row.items()}
    return result


def show(people: Sequence[Person], found: Reliability, votes: Votes, summary: Mapping[str, Any]) -> None:
    """The table, what reliability does for unseen votes, and the warnings."""
    console = Console(highlight=False)
    table = Table(title=f"{len(people)} labelers, {len(votes):,} votes on {len(votes.items):,} completions", title_justify="left",
                  caption="Intervals are of 90 %. agrees: with the order the others give. swaps: pairs that turn without them.",
                  caption_justify="left")
    head, rows = cells(people, summary)
    for name in head:
        table.add_column(name, justify="left" if name in ("labeler", "verdict") else "right")
    for row in rows[:MOST_ROWS]:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console.print(table)
    if len(rows) > MOST_ROWS:
        console.print(f"… and {len(rows) - MOST_ROWS} more; --json and --out have all.")
    for line in held_out_lines(summary):
        console.print(visible(line), markup=False)
    for warning in summary["warnings"]:
        console.print(visible(f"Note: {warning}"), markup=False)


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
    kept = [n for n, cell in columns.items() if any(cell(p) is not None for p in people)]
    return kept, [[columns[n](p) or "" for n in kept] for p in people]


def pull(value: float | None, sd: float | None) -> str | None:
    return None if value is None or sd is None else f"{value:+.2f} ± {1.645 * sd:.2f}".replace("-", "−")


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
    return lines


def picture(people: Sequence[Person], file: object, inline: bool = False) -> str:
    return forest_svg(people, f"How far each labeler can be trusted: {Path(str(file)).name}", inline)


def page(people: Sequence[Person], summary: Mapping[str, Any]) -> str:
    """An offline page: the picture, the table, the test on unseen votes, the warnings."""
    from harken.report.html import section, text
    head, rows = cells(people, summary)
    columns = "".join(f'<th scope="col">{text(h)}</th>' for h in head)
    body = "".join(f'<tr><th scope="row">{text(r[0])}</th>' + "".join(f"<td>{text(c)}</td>" for c in r[1:]) + "</tr>"
                   for r in rows)
    wide = '<div class="scroll" tabindex="0" role="region" aria-label="{}">'
    table = f'{wide.format("Labelers")}<table class="plain"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'
    unseen = "".join(f"<p>{text(line)}</p>" for line in held_out_lines(summary))
    notes = "".join(f"<p>{text(w)}</p>" for w in summary["warnings"])
    style = (Path(harken.__file__).parent / "report" / "style.css").read_text(encoding="utf-8")
    title = f"{summary['labelers']} labelers, {summary['votes']:,} votes"
    drawn = wide.format("Betas") + picture(people, summary["file"], inline=True) + "</div>"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title><style>{style}</style></head><body><main><h1>{text(title)}</h1>
{section("trust", "How far each can be trusted", drawn, "The dot is beta, the line its 90 % interval.")}
{section("table", "Figures", table)}{section("unseen", "Does it predict unseen votes?", unseen)}{section("notes", "Notes", notes)}
</main></body></html>
"""


def save(out: Path, text: str) -> None:
    """Writes whole or not at all, and the folder where there is none."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}.", "Choose another --out.") from None
    check_out(out)
    write_text(out, text)
