"""What `harken labelers` does: reads, fits, and prints a table or JSON, or writes a picture or a page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harken.core.errors import UserError
from harken.core.progress import waiting
from harken.core.records import Choice, Judgment
from harken.core.terminal import one_line, visible
from harken.labelers.campaigns.audit import fit_campaigns
from harken.labelers.models.influence import drop_each, drop_effect, held_out
from harken.labelers.models.reliability import Reliability, fit_reliability
from harken.labelers.models.use import Use, fit_use
from harken.labelers.models.verdicts import Person, describe, median_seconds, warnings
from harken.labelers.votes import Votes, votes_of
from harken.report.labelers import advice, cells, feedback_lines, figures, held_out_lines, page, picture
from harken.store.database import open_database
from harken.store.files import check_out, read_comparisons, write_text

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
        judgments, note = read(args.file, args.skip_bad)
        votes = votes_of(judgments)
    if not len(votes):
        raise UserError(f"{args.file} compares nothing: no row ranks two different completions.", "Is it the file you meant?")
    # Some tie half of what they see and some nothing: without a readiness of one's own, ties would pass for carelessness.
    traits = {"position": bool(votes.first.any()), "length": args.length, "indifference": bool((votes.won == 0).any())}
    with waiting("fitting", 1):
        fit = fit_reliability(votes, **traits)
    people = describe(votes, fit, drop_each(votes, **traits, watch=waiting), median_seconds(judgments))
    flagged = [votes.labelers.index(p.name) for p in people if p.verdict.startswith(FLAGGED)]
    tested = held_out(votes, without=flagged, seed=args.seed, **traits, watch=waiting) if len(people) > 1 else None
    effect = drop_effect(votes, seed=args.seed, **traits, watch=waiting) if args.effect else None
    notes = [note] * bool(note) + warnings(votes)
    summary: dict[str, Any] = {
        "file": str(args.file), "votes": len(votes), "labelers": len(people), "items": len(votes.items), "tie": fit.tie,
        "warnings": notes, "people": [p.to_json() for p in people], "flagged": [votes.labelers[k] for k in flagged],
        "held_out": figures(tested, votes, flagged) if tested else {}}
    with waiting("looking for campaigns", 1):
        audit = fit_campaigns(votes, seed=args.seed)
    summary["campaigns"] = audit.to_json() | {"lines": audit.describe()}
    if is_database(args.file) and (use := feedback_of(args.file, audit.weight_of)) is not None:
        summary["feedback"] = {"kinds": [k.to_json() for k in use.kinds], "lines": use.describe()}
    summary["use"], worse = advice(summary["held_out"])
    notes += worse
    if effect is not None:
        for row in summary["people"]:
            row["gain_when_dropped"] = float(effect[votes.labelers.index(row["name"])])
    if args.out:
        save(args.out, picture(people, args.file) if args.out.suffix == ".svg" else page(people, summary))
    if args.json:
        print(json.dumps(summary))
        return 0
    show(people, fit, votes, summary)
    if args.out:
        print(f"Wrote {args.out}")
    return 0


def is_database(file: str) -> bool:
    return str(file).startswith("postgresql") or Path(file).suffix in (".db", ".sqlite")


def feedback_of(file: str, weight_of: Mapping[str, float]) -> Use | None:
    """What each kind of feedback in a database tells of answers; None where there are comparisons alone, or no scale."""
    with open_database(file, create=False) as db:
        judgments = list(db.judgments())
    if all(j.kind == "ranking" for j in judgments):
        return None
    try:
        return fit_use(judgments, weight_of=weight_of)
    except UserError:
        return None


def read(file: str, skip_bad: bool) -> tuple[Sequence[Choice | Judgment], str | None]:
    """The judgments of a database, or the comparisons of a file with a note on what was skipped."""
    if is_database(file):
        with open_database(file, create=False) as db:
            return [j for j in db.judgments() if j.choice() is not None], None
    loaded = read_comparisons(file, skip_bad=skip_bad)
    return loaded.records, loaded.describe()


def show(people: Sequence[Person], fit: Reliability, votes: Votes, summary: Mapping[str, Any]) -> None:
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
    for line in (*held_out_lines(summary), *summary["campaigns"]["lines"], *feedback_lines(summary)):
        console.print(visible(line), markup=False)
    for warning in summary["warnings"]:
        console.print(visible(f"Note: {warning}"), markup=False)


def save(out: Path, text: str) -> None:
    """Writes whole or not at all, and the folder where there is none."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}.", "Choose another --out.") from None
    check_out(out)
    write_text(out, text)
