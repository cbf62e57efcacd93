"""`harken backup`, `harken audit` and `harken restore`: a database copied, checked and put back."""

from __future__ import annotations

import argparse
from typing import Any

from harken.cli.options import add_db
from harken.core.terminal import visible
from harken.store.connection import masked

AUDIT_HELP = """\
Works out anew what each answer's hash must be, and compares every answer, import, retraction, account and item with the
events that made them, in both directions. Says where they differ; changes nothing. Ends with 1 if anything does."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands; each sets `handler`."""
    layout = argparse.RawDescriptionHelpFormatter
    p = commands.add_parser("backup", help="copy a database while it is in use, and verify the copy")
    p.add_argument("--out", metavar="FILE", required=True, help="new file")
    add_db(p)
    p.set_defaults(handler=backup)
    p = commands.add_parser("audit", help="check every row of a database against its audit", description=AUDIT_HELP,
                            formatter_class=layout)
    p.add_argument("--expect", metavar="HASH", help="how the audit ended at an earlier time, as a backup or the page Settings "
                   "showed it: shows that nothing after it was removed")
    add_db(p)
    p.set_defaults(handler=audit)
    p = commands.add_parser("restore", help="put a backup back into a new database")
    p.add_argument("file", metavar="FILE", help="a backup")
    add_db(p)
    p.set_defaults(handler=restore)


def backup(args: argparse.Namespace) -> int:
    """`harken backup`."""
    from harken.store import backup as copies
    from harken.store.database import open_database
    with open_database(args.db, create=False) as db:
        done = copies.backup(db.link, args.out)
    print(f"Copied {masked(args.db)} to {done.path} and verified it: {_counts(done)}")
    return 0


def audit(args: argparse.Namespace) -> int:
    """`harken audit`."""
    from harken.store import audit as audits
    from harken.store.database import open_database
    with open_database(args.db, create=False) as db, db.link.reading() as connection:
        report = audits.check(connection, args.expect)
    for problem in report.problems:
        print(visible(problem))
    if report.problems:
        n = len(report.problems)
        print(f"{masked(args.db)} does not hold what its audit says: {n}{' or more' if n == audits.MOST_PROBLEMS else ''} "
              f"difference{'s' * (n != 1)}. Compare with a backup from before.")
        return 1
    rows = ", ".join(f"{report.rows[name]:,} {name}" for name in ("judgments", "retractions", "items", "users", "imports"))
    print(f"{masked(args.db)} holds what its audit says: {rows}")
    if report.redacted:
        print(f"  the data of {report.redacted:,} {'people were' if report.redacted != 1 else 'person was'} erased on request: "
              "redacted, not broken")
    print(f"  its {report.rows['events']:,} events end in {report.end or 'nothing'}")
    print("  Keep this hash: harken audit --expect shows later that nothing before it was removed.")
    return 0


def restore(args: argparse.Namespace) -> int:
    """`harken restore`."""
    from harken.store import backup as copies
    done = copies.restore(args.file, args.db)
    print(f"Restored {args.file} into {done.path} and compared every count: {_counts(done)}")
    return 0


def _counts(done: Any) -> str:
    rows = ", ".join(f"{done.rows[name]:,} {name}" for name in ("judgments", "prompts", "items", "users"))
    return f"{rows}\n  the audit of {done.rows['events']:,} events ends in {done.chain or 'nothing'}"
