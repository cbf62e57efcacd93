"""`harken import` and `harken snapshot`: feedback into the database, and frozen out of it."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from sqlalchemy import select

from harken.core.config import columns
from harken.core.errors import UserError
from harken.core.terminal import visible
from harken.store.connection import masked
from harken.store.database import Database, ImportResult, open_database, read_import
from harken.store.files import KINDS, counted
from harken.store.names import name_key
from harken.store.shapes import named_adapter
from harken.store.snapshots import snapshot
from harken.store.studio_schema import projects

QUIET_SECONDS = 2.0

IMPORT_HELP = """\
Reads a file of feedback into the database. The shape of its rows is recognised:

  comparisons     prompt, completions, ranks (1 is best, equal ranks are ties)
                  chosen, rejected  (text, messages, transcripts); two answers and a verdict; published data sets
  demonstrations  prompt, completion
                  messages; conversations (ShareGPT); instruction, input, output (Alpaca); instruction, context, response (Dolly)
  ratings, thumbs, edits
                  a prompt and an answer with a score (higher is better), a label (yes or no), or what it was before
  prompts         prompt

The table of all shapes, and of what is kept of each: docs/data.md.
All of the file is stored, or nothing. A row that is stored already is not stored again, so a file
can be imported twice, or again after it has grown."""

IMPORT_EXAMPLES = """\
examples:
  harken import pairs.jsonl                        into feedback.db, made if missing
  harken import hh/test.jsonl.gz --db team.db      `chosen` counts as the preferred answer
  harken import dolly.jsonl --as prompts           only the prompts of a file of demonstrations
  harken import crowd.jsonl --skip-bad             leave malformed lines out and count them
  harken import votes.csv --field prompt=question --field chosen=good --field rejected=bad
  harken import feedback.json                      Open WebUI's or LibreChat's export
  harken import scores.jsonl --join traces.jsonl   Langfuse; also Phoenix, LangSmith, TensorZero
  harken import odd.jsonl --shape my_lab.shapes:read     a function of yours: a row -> records"""

SNAPSHOT_HELP = """\
Freezes all feedback of one kind into a file, with its hash beside it (FILE.meta.json). Training reads
snapshots, so a run can always name the data it saw. The same feedback gives the same file."""

SNAPSHOT_EXAMPLES = """\
examples:
  harken snapshot comparisons --out pairs.jsonl
  harken snapshot demonstrations --db team.db --out shown.jsonl.gz"""

NEXT = {"comparisons": "reward_model", "demonstrations": "sft"}


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `import` and `snapshot`; each sets `handler`."""
    layout = argparse.RawDescriptionHelpFormatter
    command = subparsers.add_parser("import", help="read a file of feedback into the database", formatter_class=layout,
                                    description=IMPORT_HELP, epilog=IMPORT_EXAMPLES)
    command.add_argument("file", metavar="FILE", help="JSON Lines, JSON, CSV, Excel, Parquet or Arrow, packed or not; a folder "
                         "saved by datasets; or OWNER/NAME on a hub")
    command.add_argument("--field", action="append", default=[], metavar="NAME=COLUMN",
                         help="which column holds what, like prompt=question")
    command.add_argument("--ignore", action="append", default=[], metavar="COLUMN,…", help="columns that may stay unread")
    command.add_argument("--shape", metavar="MODULE:FUNCTION", help="a function that reads a row of a shape of your own")
    command.add_argument("--join", action="append", default=[], metavar="FILE", help="the traces, spans, runs or inferences that "
                         "a tool's export of feedback is of (Langfuse, Phoenix, LangSmith, TensorZero)")
    command.add_argument("--encoding", metavar="NAME", help="the text's encoding, where it is not recognised")
    command.add_argument("--as", dest="kind", choices=KINDS, help="what the file holds (default: its first row tells)")
    command.add_argument("--skip-bad", action="store_true", help="leave malformed lines out and count them")
    _add_db(command)
    command.set_defaults(handler=run_import)

    command = subparsers.add_parser("snapshot", help="freeze feedback into a file to train on", formatter_class=layout,
                                    description=SNAPSHOT_HELP, epilog=SNAPSHOT_EXAMPLES)
    command.add_argument("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    command.add_argument("--out", metavar="FILE", required=True, help="new file, .jsonl or .jsonl.gz")
    command.add_argument("--project", metavar="NAME", help="only what was said in this project of the studio")
    command.add_argument("--purpose", choices=("train", "eval"), help="only projects of this purpose; imports count as train")
    command.add_argument("--mask", choices=("use", "all", "none"), default="use", help="take personal data (e-mail, telephone, "
                         "card, IP, IBAN …) out of judgments from people's use of a model, of all, or of none (default: use)")
    _add_db(command)
    command.set_defaults(handler=run_snapshot)


def run_import(args: argparse.Namespace) -> int:
    """`harken import`."""
    fields = columns(",".join(args.field))
    ignore = [name for names in args.ignore for name in names.split(",")]
    adapter = named_adapter(args.shape) if args.shape else None
    if "://" in args.db or Path(args.db).exists():
        open_database(args.db).close()  # a wrong --db is said before the file is read; a refused file makes no new one
    with progress_bar(f"Reading {args.file}") as progress:
        incoming = read_import(args.file, args.kind, args.skip_bad, progress=progress, fields=fields, ignore=ignore,
                               adapter=adapter, encoding=args.encoding, join=args.join)
    with open_database(args.db) as db:
        result = db.store(incoming)
    print(import_summary(result, args.file, args.db))
    return 0


def run_snapshot(args: argparse.Namespace) -> int:
    """`harken snapshot`."""
    with open_database(args.db, create=False) as db:
        info = snapshot(db, args.kind, args.out, project=project_number(db, args.project), purpose=args.purpose,
                        mask=args.mask)
    people = f"{info.labelers:,} labeler{'s' * (info.labelers != 1)}" if info.labelers else "no labeler named"
    print(f"Froze {_count(info.rows, args.kind)} ({people}) in {info.path}")
    print(f"  sha256 {info.hash}")
    if info.masked:
        print(f"  {info.masked}")
    if info.repeating:
        print(same_answers(info.repeating, args.kind))
    for warning in info.warnings:
        print(visible(f"  {warning} Take one with --purpose or --project, or know why."), file=sys.stderr)
    if args.kind in NEXT:
        name = shlex.quote(str(info.path))
        print(f"Next: harken train {NEXT[args.kind]} --data {name} --out runs/{NEXT[args.kind]}")
    return 0


def project_number(db: Database, name: str | None) -> int | None:
    """The id of a project by its name."""
    if name is None:
        return None
    with db.link.reading() as connection:
        ids = dict(connection.execute(select(projects.c.name, projects.c.id)).tuples().all())
    alike = [one for one in ids if one == name or name_key(one) == name_key(name)]
    if not alike:
        raise UserError(f"{db.name} has no project {name!r}.", f"It has: {', '.join(sorted(ids)) or 'none'}.")
    return int(ids[name if name in ids else alike[0]])


def import_summary(result: ImportResult, file: str, db: str) -> str:
    """What an import did, in a few lines."""
    if result.before:
        lines = [f"{file} was imported on {result.before[:10]}: nothing new to store."]
    else:
        lines = [f"Stored {_count(result.added, result.kind)} in {masked(db)}"]
        if result.already:
            lines.append(f"  {result.already:,} stored before, not stored again")
    if result.repeating:
        lines.append(same_answers(result.repeating, result.kind))
    if result.skipped:
        lines.append(f"  {sum(result.skipped.values()):,} left out:")
        lines += [f"    {n:,} × {reason}" for reason, n in sorted(result.skipped.items(), key=lambda x: (-x[1], x[0]))]
    if result.unread:
        lines.append(f"  Fields not read: {counted(result.unread)}")
    lines += [f"  {note} ({n:,})" for note, n in sorted(result.notes.items())]
    lines.append(f"Next: harken snapshot {result.kind} --db {shlex.quote(masked(db))} --out {result.kind}.jsonl")
    return "\n".join(lines)


def same_answers(n: int, kind: str) -> str:
    """A note on comparisons of an answer with itself."""
    return f"  {_count(n, kind)} with the same completion twice: an answer is compared with itself there"


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr for work longer than two seconds; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    started = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True, disable=False, auto_refresh=False) as bar:
        task: Any = None

        def advance(done: int, size: int) -> None:
            nonlocal task
            if time.monotonic() - started < QUIET_SECONDS:
                return
            if task is None:
                task = bar.add_task(escape(visible(title)), total=size)
            bar.update(task, completed=done, total=size, refresh=True)

        yield advance


def _count(n: int, kind: str) -> str:
    return f"{n:,} {kind if n != 1 else kind.removesuffix('s')}"


def _add_db(command: argparse.ArgumentParser) -> None:
    command.add_argument("--db", metavar="FILE", default="feedback.db",
                         help="database: a file, or a postgresql:// address (default: feedback.db)")


