"""`harken studio`: the pages where people give feedback."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from harken.cli.options import add_db
from harken.core.errors import UserError
from harken.core.terminal import one_line
from harken.store.connection import masked
from harken.store.private import readable_by_others

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
    add_db(p)
    p.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: 8765)")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    p.add_argument("--public-name", action="append", default=[], metavar="HOST",
                   help="host name that browsers use for it behind a proxy; may be given more than once")
    p.add_argument("--root-path", default="", metavar="PATH", help="path of the host below which a proxy serves it, like /harken")
    _sso_options(p)
    p.add_argument("--idle-hours", type=float, default=72.0, metavar="N",
                   help="a login that was not used for so long ends (default: 72)")
    p.set_defaults(handler=serve)


def _sso_options(p: argparse.ArgumentParser) -> None:
    """Options of single sign-on."""
    p.add_argument("--sso-issuer", metavar="URL", help="OpenID Connect provider that people sign on with, like "
                   "https://accounts.example.org")
    p.add_argument("--sso-client", metavar="ID", help="the studio's client id there; its address to return to is /login/sso/back")
    p.add_argument("--sso-secret-file", metavar="FILE", help="its first line is the client's secret")
    p.add_argument("--sso-domain", action="append", default=[], metavar="DOMAIN",
                   help="only verified addresses of this domain get an account; may be given more than once")
    p.add_argument("--sso-lead", action="append", default=[], metavar="EMAIL", help="whose new account is a lead's")


def serve(args: argparse.Namespace) -> int:
    """`harken studio`."""
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise UserError(f"The studio needs the package {error.name}.", "pip install harken") from None
    from harken.store.database import open_database
    from harken.studio import app as studio_app
    from harken.web import accounts
    from harken.web.address import public_address
    from harken.web.patience import MOST_CONNECTIONS, Patient
    db = open_database(args.db)
    loopback = args.host in LOOPBACK
    with db.link.reading() as tx:
        alone = not accounts.has_accounts(tx)
        lead = accounts.has_lead(tx)
    provider = _provider(args)
    if not loopback and not lead and not (provider and provider.leads):
        raise UserError(f"--host {args.host} lets other machines in, and no lead has a password yet.",
                        f"Make an account first: harken users add NAME --role lead --db {masked(args.db)}")
    if db.backup:
        print(f"The database was brought up to date; as it was before: {db.backup}")
        _tell_shared_names(db)
    # Names are checked wherever somebody gave them; on an open address without names, whatever name is used must do.
    own = f"[{args.host}]" if ":" in args.host else args.host  # as a Host header has it
    hosts = (*studio_app.LOOPBACK, own, *args.public_name) if loopback or args.public_name else None
    if hosts is None:
        print(f"--host {args.host} without --public-name: requests under any host name are answered. Name the one that people "
              "use, so that pages of others cannot reach the studio under theirs.", file=sys.stderr)
    if db.link.is_file and readable_by_others(Path(db.name)):
        print(f"{db.name} can be read by other accounts of this machine: people's answers and password hashes are in it.\n"
              f"  chmod 600 {shlex.quote(db.name)}*", file=sys.stderr)
    sys.setswitchinterval(0.001)  # the writer hands over after 1 ms, not 5: an answer is not kept waiting by the next one's work
    studio = studio_app.Studio(
        db,
        single_user=alone and loopback and provider is None,
        provider=provider,
        hosts=hosts,
        idle_hours=args.idle_hours,
        public_names=tuple(args.public_name),
        base=root_path(args.root_path),
    )
    config = uvicorn.Config(studio_app.create_app(studio), host=args.host, port=args.port, log_level="warning", access_log=False,
                            server_header=False, ws="none", lifespan="on", timeout_graceful_shutdown=5,
                            http=Patient, limit_concurrency=MOST_CONNECTIONS, proxy_headers=bool(args.public_name))
    sock = bind(config, args)
    port = sock.getsockname()[1]
    address = public_address(args.host, port, tuple(args.public_name)) + studio.base
    studio.address = "" if loopback and not args.public_name else address
    _greet(args, studio, address, loopback)
    uvicorn.Server(config).run(sockets=[sock])
    return 0


def _greet(args: argparse.Namespace, studio: Any, address: str, loopback: bool) -> None:
    """Says where the studio is, who can reach it, and what comes next."""
    print(f"Harken studio: {address}\n  database: {studio.db.name}")
    if not loopback and not args.public_name:
        print("  Plain HTTP: whoever shares the network can read passwords and answers. For more than a trusted network put TLS\n"
              "  in front (deploy/, docs/studio.md); other machines' firewalls must let this port in.")
    elif loopback and not studio.single_user and not args.public_name:
        print("  This machine alone: to let others in, --host 0.0.0.0 (a trusted network) or a proxy with TLS (deploy/).")
    print("  One person, no login. To invite labelers make your account first: on the page People, or "
          f"harken users add NAME --role lead --db {masked(args.db)}" if studio.single_user else
          "  Log in as a lead to invite labelers: the page People makes the links.")
    sys.stdout.flush()


def _tell_shared_names(db: Any) -> None:
    """Accounts of before whose names differ in case or form only: both are kept."""
    from sqlalchemy import select

    from harken.store.studio_schema import events
    with db.link.reading() as tx:
        for body in tx.scalars(select(events.c.body).where(events.c.kind == "name_shared")):
            print(f"  Two accounts were named {one_line(body['name'])}: one now signs in as \"{one_line(body['signs_in_as'])}\".")


def _provider(args: argparse.Namespace) -> Any:
    """Who signs people on; None where nobody is named."""
    from harken.web.sso import Provider
    if not args.sso_issuer:
        return None
    if not args.sso_client or not args.sso_secret_file:
        raise UserError("--sso-issuer needs --sso-client and --sso-secret-file.", "Both come from the provider.")
    try:
        secret = Path(args.sso_secret_file).read_text(encoding="utf-8").split("\n")[0].strip()
    except OSError as error:
        raise UserError(f"{args.sso_secret_file} cannot be read: {error.strerror}.", "Check its name and permissions.") from None
    return Provider(args.sso_issuer, args.sso_client, secret, tuple(args.sso_domain), tuple(args.sso_lead))


def root_path(given: str) -> str:
    """A path as addresses have it: one slash before it, none behind."""
    path = "/" + given.strip("/") if given.strip("/") else ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", path):
        raise UserError(f"--root-path {given} is no plain path.", "Like /harken: letters, digits, - and _.")
    return path


def bind(config: Any, args: argparse.Namespace) -> Any:
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
