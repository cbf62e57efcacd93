"""`harken users`: accounts of the studio."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from harken.cli.options import add_db
from harken.core.errors import UserError
from harken.core.terminal import one_line
from harken.store.connection import masked
from harken.store.private import readable_by_others


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command and its actions; each sets `handler`."""
    p = commands.add_parser("users", help="accounts of the studio: add, password, list, withdraw, erase")
    actions = p.add_subparsers(title="actions", metavar="ACTION", required=True)
    a = actions.add_parser("add", help="make an account; the password is asked for, or read from a file")
    a.add_argument("name")
    a.add_argument("--role", choices=("lead", "labeler", "viewer"), default="labeler")
    a.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    add_db(a)
    a.set_defaults(handler=add_user)
    a = actions.add_parser("password", help="give an account another password; ends its sessions")
    a.add_argument("name")
    a.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    add_db(a)
    a.set_defaults(handler=change_password)
    a = actions.add_parser("list", help="who has an account")
    add_db(a)
    a.set_defaults(handler=list_users)
    a = actions.add_parser("withdraw", help="take a labeler's judgments out of later snapshots; list the runs that used them")
    a.add_argument("name")
    a.add_argument("--runs", nargs="*", default=["runs"], metavar="FOLDER", help="where to look for runs (default: runs)")
    add_db(a)
    a.set_defaults(handler=withdraw)

    a = actions.add_parser("erase", help="erase what says who somebody is and what they wrote; withdraws their judgments first")
    a.add_argument("name")
    a.add_argument("--sure", action="store_true", help="needed: nothing brings it back")
    add_db(a)
    a.set_defaults(handler=erase)


def add_user(args: argparse.Namespace) -> int:
    """`harken users add`."""
    from datetime import UTC, datetime

    from harken.store.database import open_database
    from harken.web import accounts
    from harken.web.errors import ApiError
    password = _password(args)
    try:
        hashed = accounts.hash_password(password, args.name)
        with open_database(args.db) as db, db.link.writing() as tx:
            accounts.add_user(tx, args.name, hashed, args.role, datetime.now(UTC))
    except ApiError as error:
        raise UserError(error.message, error.hint) from None
    print(f"{args.name} can log in as {args.role}.\nNext: harken studio --db {masked(args.db)}")
    return 0


def change_password(args: argparse.Namespace) -> int:
    """`harken users password`."""
    from datetime import UTC, datetime

    from harken.store.database import open_database
    from harken.web import accounts
    from harken.web.errors import ApiError
    password = _password(args)
    try:
        hashed = accounts.hash_password(password, args.name)
        with open_database(args.db, create=False) as db, db.link.writing() as tx:
            accounts.set_password(tx, args.name, hashed, datetime.now(UTC))
    except ApiError as error:
        raise UserError(error.message, error.hint) from None
    print(f"{args.name} has another password; a studio that runs takes it at once.")
    return 0


def _password(args: argparse.Namespace) -> str:
    if args.password_file:
        if readable_by_others(Path(args.password_file)):
            print(f"{args.password_file} can be read by other accounts of this machine: chmod 600 it, and remove it "
                  "afterwards.", file=sys.stderr)
        try:
            return Path(args.password_file).read_text(encoding="utf-8").split("\n")[0].rstrip("\r")
        except OSError as error:
            raise UserError(f"{args.password_file} cannot be read: {error.strerror}.",
                            "Check its name and permissions.") from None
    if not sys.stdin.isatty():
        raise UserError("There is no terminal to ask for the password.", "Give --password-file FILE.")
    first = getpass.getpass(f"Password for {args.name}: ")
    if getpass.getpass("Again: ") != first:
        raise UserError("The two passwords differ.", "Try again.")
    return first


def list_users(args: argparse.Namespace) -> int:
    """`harken users list`."""
    from sqlalchemy import select

    from harken.store.database import open_database
    from harken.store.names import name_key
    from harken.store.studio_schema import users
    with open_database(args.db, create=False) as db, db.link.reading() as tx:
        rows = tx.execute(select(users).order_by(users.c.id)).fetchall()
    for row in rows:
        shared = "" if row.name_key == name_key(row.name) else f"  signs in as {one_line(row.name_key)}"
        held = "  held out" if row.held_out else ""
        print(f"{one_line(row.name)}{shared}  {row.role}  {row.state}{held}  since {row.created_at[:10]}")
    print(f"{len(rows)} account{'s' * (len(rows) != 1)} in {masked(args.db)}")
    return 0


def withdraw(args: argparse.Namespace) -> int:
    """`harken users withdraw`."""
    from datetime import UTC, datetime

    from harken.store.database import open_database
    from harken.studio.work import withdrawal
    with open_database(args.db, create=False) as db, db.link.writing() as tx:
        count, touched = withdrawal.withdraw(tx, args.name, datetime.now(UTC))
    print(f"{count:,} judgment{'s' * (count != 1)} of {args.name} will be in no later snapshot.")
    for row in touched:
        print(f"  earlier snapshot with some of them: {row.name} ({row.kind}, {row.created_at[:10]}, sha256 {row.sha256[:12]})")
    used = list(withdrawal.runs_that_used([row.sha256 for row in touched], [Path(r) for r in args.runs if Path(r).is_dir()]))
    for run, digest in used:
        print(f"  run that used one: {run} (data {digest[:12]})")
    if touched and not used:
        print(f"  no run below {', '.join(args.runs)} used them")
    return 0


def erase(args: argparse.Namespace) -> int:
    """`harken users erase`."""
    from datetime import UTC, datetime

    from harken.store.database import open_database
    from harken.studio.work import withdrawal
    if not args.sure:
        raise UserError(f"This erases the name, the answers and the notes of {args.name} for good.", "Add --sure to do it.")
    with open_database(args.db, create=False) as db, db.link.writing() as tx:
        erased, touched = withdrawal.erase(tx, args.name, datetime.now(UTC))
    print(f"Erased: {args.name} is {erased.alias} from now on; {erased.judgments:,} answers and {erased.events:,} events were "
          "redacted. harken audit still holds and counts it.")
    print("Not reached: backups, exports and snapshot files made before.")
    for row in touched:
        print(f"  snapshot with some of their answers: {row.name} ({row.kind}, {row.created_at[:10]}, sha256 {row.sha256[:12]})")
    return 0
