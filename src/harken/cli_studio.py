"""`harken studio`, `harken users`, `harken backup` and `harken restore`."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from harken.core.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STUDIO_HELP = """\
Serves the pages where people give feedback, and the API behind them. On loopback without accounts it serves one person,
without a login. For a team make a lead's account first; the lead invites the others from the pages."""
STUDIO_EXAMPLES = """\
examples:
  harken studio                                        you alone, on this machine
  harken users add ada --role lead --db feedback.db    the first account; asks for a password
  harken studio --db feedback.db --host 0.0.0.0        for a team; put TLS in front (docs/studio-api.md)"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands; each sets `handler`."""
    layout = argparse.RawDescriptionHelpFormatter
    p = commands.add_parser("studio", help="serve the pages where people give feedback", description=STUDIO_HELP,
                            epilog=STUDIO_EXAMPLES, formatter_class=layout)
    _db(p)
    p.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: 8765)")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    p.add_argument("--public-name", action="append", default=[], metavar="HOST",
                   help="host name that browsers use for it behind a proxy; may be given more than once")
    p.set_defaults(handler=serve)

    p = commands.add_parser("users", help="accounts of the studio: add, list, withdraw")
    actions = p.add_subparsers(title="actions", metavar="ACTION", required=True)
    a = actions.add_parser("add", help="make an account; the password is asked for, or read from a file")
    a.add_argument("name")
    a.add_argument("--role", choices=("lead", "labeler", "viewer"), default="labeler")
    a.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    _db(a)
    a.set_defaults(handler=add_user)
    a = actions.add_parser("list", help="who has an account")
    _db(a)
    a.set_defaults(handler=list_users)
    a = actions.add_parser("withdraw", help="take a labeler's judgments out of later snapshots; list the runs that used them")
    a.add_argument("name")
    a.add_argument("--runs", nargs="*", default=["runs"], metavar="FOLDER", help="where to look for runs (default: runs)")
    _db(a)
    a.set_defaults(handler=withdraw)

    p = commands.add_parser("backup", help="copy a database while it is in use, and verify the copy")
    p.add_argument("--out", metavar="FILE", required=True, help="new file")
    _db(p)
    p.set_defaults(handler=backup)
    p = commands.add_parser("restore", help="put a backup back into a new database")
    p.add_argument("file", metavar="FILE", help="a backup")
    _db(p)
    p.set_defaults(handler=restore)


def serve(args: argparse.Namespace) -> int:
    """`harken studio`."""
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise UserError(f"The studio needs the package {error.name}.", "pip install harken") from None
    from harken.store.database import open_database
    from harken.studio import accounts
    from harken.studio import app as studio_app
    db = open_database(args.db)
    loopback = args.host in LOOPBACK
    with db.link.reading() as tx:
        alone = not accounts.has_accounts(tx)
        lead = accounts.has_lead(tx)
    if not loopback and not lead:
        raise UserError(f"--host {args.host} lets other machines in, and no lead has a password yet.",
                        f"Make an account first: harken users add NAME --role lead --db {args.db}")
    if db.backup:
        print(f"The database was brought up to date; as it was before: {db.backup}")
    hosts = (*studio_app.LOOPBACK, *args.public_name) if loopback else None
    studio = studio_app.Studio(db, single_user=alone and loopback, hosts=hosts)
    config = uvicorn.Config(studio_app.create_app(studio), host=args.host, port=args.port, log_level="warning", access_log=False,
                            server_header=False, ws="none", lifespan="on", timeout_graceful_shutdown=5,
                            h11_max_incomplete_event_size=32_768, proxy_headers=bool(args.public_name))
    sock = _bind(config, args)
    port = sock.getsockname()[1]
    shown = "localhost" if loopback else args.host
    print(f"Harken studio: http://{shown}:{port}\n  database: {db.name}")
    print("  One person, no login. To invite labelers make your account first: on the page People, or "
          f"harken users add NAME --role lead --db {args.db}" if studio.single_user else
          "  Log in as a lead to invite labelers: the page People makes the links.")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[sock])
    return 0


def _bind(config: Any, args: argparse.Namespace) -> Any:
    """Listens before anything is printed: whoever reads the address can call it."""
    import socket
    sock = socket.socket(socket.AF_INET6 if ":" in args.host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((args.host, args.port))
        sock.listen(128)
    except OSError as error:
        raise UserError(f"Cannot listen on {args.host} port {args.port}: {error.strerror}.",
                        "Choose another --port; 0 takes a free one.") from None
    sock.set_inheritable(True)
    return sock


def add_user(args: argparse.Namespace) -> int:
    """`harken users add`."""
    from datetime import UTC, datetime

    from harken.store.database import open_database
    from harken.studio import accounts
    from harken.studio.errors import ApiError
    password = _password(args)
    try:
        hashed = accounts.hash_password(password)
        with open_database(args.db) as db, db.link.writing() as tx:
            accounts.add_user(tx, args.name, hashed, args.role, datetime.now(UTC))
    except ApiError as error:
        raise UserError(error.message, error.hint) from None
    print(f"{args.name} can log in as {args.role}.\nNext: harken studio --db {args.db}")
    return 0


def _password(args: argparse.Namespace) -> str:
    if args.password_file:
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
    from harken.store.studio_schema import users
    with open_database(args.db, create=False) as db, db.link.reading() as tx:
        rows = tx.execute(select(users).order_by(users.c.id)).fetchall()
    for row in rows:
        print(f"{row.name}  {row.role}  {row.state}{'  held out' if row.held_out else ''}  since {row.created_at[:10]}")
    print(f"{len(rows)} account{'s' * (len(rows) != 1)} in {args.db}")
    return 0


def withdraw(args: argparse.Namespace) -> int:
    """`harken users withdraw`."""
    from datetime import UTC, datetime

    from harken.store.database import open_database
    from harken.studio import people
    with open_database(args.db, create=False) as db, db.link.writing() as tx:
        count, touched = people.withdraw(tx, args.name, datetime.now(UTC))
    print(f"{count:,} judgment{'s' * (count != 1)} of {args.name} will be in no later snapshot.")
    for row in touched:
        print(f"  earlier snapshot with some of them: {row.name} ({row.kind}, {row.created_at[:10]}, sha256 {row.sha256[:12]})")
    used = list(people.runs_that_used([row.sha256 for row in touched], [Path(r) for r in args.runs if Path(r).is_dir()]))
    for run, digest in used:
        print(f"  run that used one: {run} (data {digest[:12]})")
    if touched and not used:
        print(f"  no run below {', '.join(args.runs)} used them")
    return 0


def backup(args: argparse.Namespace) -> int:
    """`harken backup`."""
    from harken.store import backup as copies
    from harken.store.database import open_database
    with open_database(args.db, create=False) as db:
        done = copies.backup(db.link, args.out)
    print(f"Copied {args.db} to {done.path} and verified it: {_told(done)}")
    return 0


def restore(args: argparse.Namespace) -> int:
    """`harken restore`."""
    from harken.store import backup as copies
    done = copies.restore(args.file, args.db)
    print(f"Restored {args.file} into {done.path} and compared every count: {_told(done)}")
    return 0


def _told(done: Any) -> str:
    rows = ", ".join(f"{done.rows[name]:,} {name}" for name in ("judgments", "prompts", "items", "users"))
    return f"{rows}\n  the audit of {done.rows['events']:,} events ends in {done.chain[:16] or 'nothing'}"


def _db(command: argparse.ArgumentParser) -> None:
    command.add_argument("--db", metavar="FILE", default="feedback.db",
                         help="database: a file, or a postgresql:// address (default: feedback.db)")
