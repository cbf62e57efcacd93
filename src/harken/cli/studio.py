"""`harken studio`, `harken users`, `harken backup` and `harken restore`."""

from __future__ import annotations

import argparse
import getpass
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from harken.core.config import MAX_TOKENS
from harken.core.errors import UserError
from harken.core.terminal import one_line, visible
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

AUDIT_HELP = """\
Works out anew what each answer's hash must be, and compares every answer, import, retraction, account and item with the
events that made them, in both directions. Says where they differ; changes nothing. Ends with 1 if anything does."""
ASK_HELP = """\
Puts what is to be judged into a project. Items of the file that are there already are not added again. Each answer's
source is kept in the database and never shown to labelers."""
ASK_EXAMPLES = """\
examples:
  harken ask prompts.jsonl --project helpful --kind rate_and_rank --overlap 2 --model runs/sft
  harken ask sft.jsonl ppo.jsonl --project better --kind compare     what harken sample wrote, of two models
  harken ask prompts.jsonl --project write --kind demonstrate
  harken ask prompts.jsonl --project helpful --kind compare --endpoint http://localhost:8000/v1 --model my-model --n 2"""


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
    p.add_argument("--root-path", default="", metavar="PATH", help="path of the host below which a proxy serves it, like /harken")
    p.add_argument("--sso-issuer", metavar="URL", help="OpenID Connect provider that people sign on with, like "
                   "https://accounts.example.org")
    p.add_argument("--sso-client", metavar="ID", help="the studio's client id there; its address to return to is /login/sso/back")
    p.add_argument("--sso-secret-file", metavar="FILE", help="its first line is the client's secret")
    p.add_argument("--sso-domain", action="append", default=[], metavar="DOMAIN",
                   help="only verified addresses of this domain get an account; may be given more than once")
    p.add_argument("--sso-lead", action="append", default=[], metavar="EMAIL", help="whose new account is a lead's")
    p.add_argument("--idle-hours", type=float, default=72.0, metavar="N",
                   help="a login that was not used for so long ends (default: 72)")
    p.set_defaults(handler=serve)

    p = commands.add_parser("users", help="accounts of the studio: add, password, list, withdraw, erase")
    actions = p.add_subparsers(title="actions", metavar="ACTION", required=True)
    a = actions.add_parser("add", help="make an account; the password is asked for, or read from a file")
    a.add_argument("name")
    a.add_argument("--role", choices=("lead", "labeler", "viewer"), default="labeler")
    a.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    _db(a)
    a.set_defaults(handler=add_user)
    a = actions.add_parser("password", help="give an account another password; ends its sessions")
    a.add_argument("name")
    a.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    _db(a)
    a.set_defaults(handler=change_password)
    a = actions.add_parser("list", help="who has an account")
    _db(a)
    a.set_defaults(handler=list_users)
    a = actions.add_parser("withdraw", help="take a labeler's judgments out of later snapshots; list the runs that used them")
    a.add_argument("name")
    a.add_argument("--runs", nargs="*", default=["runs"], metavar="FOLDER", help="where to look for runs (default: runs)")
    _db(a)
    a.set_defaults(handler=withdraw)

    a = actions.add_parser("erase", help="erase what says who somebody is and what they wrote; withdraws their judgments first")
    a.add_argument("name")
    a.add_argument("--sure", action="store_true", help="needed: nothing brings it back")
    _db(a)
    a.set_defaults(handler=erase)

    p = commands.add_parser("ask", help="put prompts and completions of a file into a project of the studio",
                            description=ASK_HELP, epilog=ASK_EXAMPLES, formatter_class=layout)
    p.fill = _ask_options  # type: ignore[attr-defined]  # every parser of `cli` has it
    p.set_defaults(handler=ask)

    p = commands.add_parser("backup", help="copy a database while it is in use, and verify the copy")
    p.add_argument("--out", metavar="FILE", required=True, help="new file")
    _db(p)
    p.set_defaults(handler=backup)
    p = commands.add_parser("audit", help="check every row of a database against its audit", description=AUDIT_HELP,
                            formatter_class=layout)
    p.add_argument("--expect", metavar="HASH", help="how the audit ended at an earlier time, as a backup or the page Settings "
                   "showed it: shows that nothing after it was removed")
    _db(p)
    p.set_defaults(handler=audit)
    p = commands.add_parser("restore", help="put a backup back into a new database")
    p.add_argument("file", metavar="FILE", help="a backup")
    _db(p)
    p.set_defaults(handler=restore)


def _ask_options(p: argparse.ArgumentParser) -> None:
    """Options of `harken ask`; the kinds are the studio's own list of them."""
    from harken.studio.tasks import KINDS
    p.add_argument("files", metavar="FILE", nargs="+", help="items, prompts, comparisons, or what harken sample wrote; of "
                   "several files, answers to equal prompts come together")
    p.add_argument("--project", metavar="NAME", required=True, help="made if it is new")
    p.add_argument("--kind", choices=KINDS, help="of a new project")
    p.add_argument("--overlap", type=int, help="answers for each item, of a new project (default: 1)")
    p.add_argument("--purpose", choices=("train", "eval"), default="train", help="of a new project (default: train)")
    p.add_argument("--model", help="let it answer the prompts first: a run directory or whatever harken sample takes; with "
                   "--endpoint its name there")
    p.add_argument("--endpoint", metavar="URL", help="ask the model at this OpenAI-compatible /v1 address")
    p.add_argument("--n", type=int, help="answers to each prompt (default: 4; of a comparison 2, to improve 1)")
    p.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help=f"longest answer in tokens (default: {MAX_TOKENS})")
    p.add_argument("--temperature", type=float, default=1.0, help="of sampling (default: 1.0)")
    _db(p)


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
                            h11_max_incomplete_event_size=32_768, http=Patient,
                            limit_concurrency=MOST_CONNECTIONS, proxy_headers=bool(args.public_name))
    sock = bind(config, args)
    port = sock.getsockname()[1]
    address = public_address(args.host, port, tuple(args.public_name)) + studio.base
    studio.address = "" if loopback and not args.public_name else address
    print(f"Harken studio: {address}\n  database: {db.name}")
    if not loopback and not args.public_name:
        print("  Plain HTTP: whoever shares the network can read passwords and answers. For more than a trusted network put TLS\n"
              "  in front (deploy/, docs/studio.md); other machines' firewalls must let this port in.")
    elif loopback and not studio.single_user and not args.public_name:
        print("  This machine alone: to let others in, --host 0.0.0.0 (a trusted network) or a proxy with TLS (deploy/).")
    print("  One person, no login. To invite labelers make your account first: on the page People, or "
          f"harken users add NAME --role lead --db {masked(args.db)}" if studio.single_user else
          "  Log in as a lead to invite labelers: the page People makes the links.")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[sock])
    return 0


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


def ask(args: argparse.Namespace) -> int:
    """`harken ask`."""
    import secrets
    from collections import Counter
    from datetime import UTC, datetime

    from sqlalchemy import select

    from harken.store.database import open_database
    from harken.store.remote import fetched, is_address
    from harken.store.studio_schema import projects as table
    from harken.studio.work import projects
    from harken.studio.work.uploads import read_items
    from harken.web.errors import ApiError
    now = datetime.now(UTC)
    find = select(table.c.id, table.c.kind).where(table.c.name == args.project)
    if args.endpoint and not args.model:
        raise UserError("--endpoint needs --model.", "harken ask --help shows an example.")
    with open_database(args.db) as db:
        with db.link.reading() as tx:
            project = tx.execute(find).first()
        kind = project.kind if project else args.kind
        if not kind:
            raise UserError(f"There is no project {args.project!r} yet.", "Give --kind to make it.")
        if args.kind not in (None, kind):
            raise UserError(f"{args.project} asks people to {kind}, not to {args.kind}.",
                            "Leave --kind away, or name another project.")
        notes: Counter[str] = Counter()
        items = (
            generated(args, kind)
            if args.model
            else read_items([fetched(f) if is_address(f) else Path(f) for f in args.files], notes)
        )
        try:
            with db.link.writing() as tx:
                project = tx.execute(find).first()
                wanted = {"name": args.project, "kind": args.kind, "purpose": args.purpose, "overlap": args.overlap or 1}
                number = project.id if project else projects.create_project(tx, wanted, now, seed=secrets.randbelow(2**53))
                result = projects.add_items(tx, number, items, now)
        except ApiError as error:
            raise UserError(error.message, error.hint) from None
    new = "" if project else f", a new project ({args.kind})"
    print(f"Added {result['added']:,} items to {args.project} in {masked(args.db)}{new}")
    for note in notes:
        print(f"  {note.replace(', or name the encoding with --encoding', '')}")
    if result["already"]:
        print(f"  {result['already']:,} were there already")
    if result["names_its_maker"]:
        print(f"  {result['names_its_maker']:,} have an answer that says which model wrote it: labelers are not blind to those")
    if result["repeats_an_answer"]:
        print(f"  {result['repeats_an_answer']:,} with the same completion twice: labelers will compare an answer with itself")
    print(f"Next: harken studio --db {masked(args.db)}")
    return 0


def generated(args: argparse.Namespace, kind: str) -> list[dict[str, Any]]:
    """Items of a kind, made of the files' prompts and a model's answers to them."""
    from harken.store.files import read_prompts
    from harken.studio.tasks import TASKS
    fewest, most = TASKS[kind].completions
    n = args.n if args.n is not None else min(4, most)
    if not most or not fewest <= n <= most:  # before the model works for nothing
        raise UserError(f'"{kind}" takes no answers of a model.' if not most else
                        f'"{kind}" takes {f"{fewest} to {most}" if fewest < most else most} answers to a prompt, --n says {n}.',
                        "Leave --model away." if not most else "Give another --n, or none.")
    prompts = [prompt for path in args.files for prompt in read_prompts(path, further=False).records]
    source = f"{args.model}{f' at {args.endpoint}' if args.endpoint else ''}, temperature {args.temperature}, " \
             f"max_tokens {args.max_tokens}"
    items, empty = [], 0
    for prompt, texts in zip(prompts, _answers(args, prompts, n)):
        if not all(texts):
            empty += 1
            continue
        row = {("prompt_kind" if k == "kind" else k): v for k, v in prompt.to_json().items()}
        items.append(row | {"completions": [{"text": t, "source": source} for t in texts]})
    if empty:
        print(f"  {empty:,} prompt{'s are' if empty != 1 else ' is'} left out: the model gave an empty answer")
    return items


def _answers(args: argparse.Namespace, prompts: list[Any], n: int) -> list[list[str]]:
    """`n` answers to each prompt."""
    if not args.endpoint:
        from harken.launch.models import check_context
        from harken.launch.policies import open_sampler
        sampler = open_sampler(args.model)
        check_context(sampler, prompts, args.max_tokens)
        groups = sampler.sample(prompts, n, max_tokens=args.max_tokens, temperature=args.temperature, seed=0)
        return [[sample.text for sample in group] for group in groups]
    from harken.engines.openai import EndpointSampler
    served = EndpointSampler(args.endpoint, args.model)
    # One at a time, each with its own seed: not every server honours "n".
    rounds = [served.sample(prompts, 1, max_tokens=args.max_tokens, temperature=args.temperature, seed=1000 * k)
              for k in range(n)]
    return [[group[at][0].text for group in rounds] for at in range(len(prompts))]


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


def _db(command: argparse.ArgumentParser) -> None:
    command.add_argument("--db", metavar="FILE", default="feedback.db",
                         help="database: a file, or a postgresql:// address (default: feedback.db)")
