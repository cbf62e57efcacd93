"""`harken serve`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.store.private import readable_by_others

HELP = """\
Serves models behind OpenAI's HTTP API, with a chat page at the same address. With --db people's feedback on the answers is
stored as judgments, from which the next model is trained (harken snapshot, harken train)."""
EXAMPLES = """\
examples:
  harken serve --model runs/rloo --db feedback.db                 you alone, on this machine
  harken serve --model smollm2 --host 0.0.0.0 --keys keys.txt     for others; put TLS in front
  harken serve --model runs/old --model runs/new --weights 0.9,0.1 --db feedback.db
  harken serve --model http://localhost:8000/v1#my-model --db feedback.db
  harken serve --loop loops/help                                  the model that harken loop promoted; follows its turns"""


def add_commands(commands: Any) -> None:
    """Adds the command; it sets `handler`."""
    p = commands.add_parser("serve", help="serve a model behind OpenAI's API, with a chat page", description=HELP,
                            epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", action="append", default=[], metavar="MODEL", help="a run, a folder, a hub id, or the address "
                   "of an OpenAI-compatible server; may be given more than once, and as NAME=MODEL")
    p.add_argument("--loop", default="", metavar="LOOP", help="a loop's recipe or folder, in the place of --model: serves what "
                   "was approved there, with canaries and rollbacks, and an approval page at /loop")
    p.add_argument("--weights", default="", help="shares of the models, like 0.9,0.1: all answer under one name, and nobody is "
                   "told which")
    p.add_argument("--name", default="", help="the name they share (default: harken)")
    p.add_argument("--db", metavar="FILE", help="database for feedback; without it none is kept")
    p.add_argument("--port", type=int, default=8770, help="0 takes a free one (default: 8770)")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    p.add_argument("--public-name", action="append", default=[], metavar="HOST", help="host name that clients use behind a proxy")
    p.add_argument("--adapters", default="", metavar="FOLDER", help="let a trainer load its adapters from this folder: "
                   "samples for harken train ... --rollouts http://HOST:PORT/v1")
    p.add_argument("--keys", metavar="FILE", help="API keys, a line each: NAME KEY")
    p.add_argument("--rows", type=int, default=64, help="answers at once, of each model (default: 64)")
    p.add_argument("--queue", type=int, default=64, help="answers that may wait beyond; more are refused with 429 (default: 64)")
    p.add_argument("--context", type=int, default=0, help="most tokens of prompt and answer (default: the model's)")
    p.add_argument("--max-tokens", type=int, default=512, help="longest answer where a request names none (default: 512)")
    p.add_argument("--timeout", type=float, default=300.0, help="seconds an answer may take (default: 300)")
    p.add_argument("--keep-hours", type=float, default=24.0, help="how long an answer may be judged (default: 24); one that "
                   "nobody judged is then deleted")
    p.add_argument("--dtype", default="float32", help="float32, bfloat16 or auto (default: float32)")
    p.add_argument("--template", default="", help="another chat template than the model's own")
    p.add_argument("--mode", default="", help="good, bad or untagged, for models with control tokens (default: the model's own); "
                   "such a model answers one request at a time")
    p.add_argument("--telemetry", action="store_true", help="OpenTelemetry spans of answers, and an event for each judgment; "
                   "run it by opentelemetry-instrument")
    p.add_argument("--log-text", action="store_true", help="put prompts and answers into the log")
    p.set_defaults(handler=serve)


def serve(args: argparse.Namespace) -> int:
    import uvicorn

    from harken.cli.studio import LOOPBACK, bind
    from harken.serve.app import create_app
    from harken.serve.server import Server
    from harken.serve.telemetry import Telemetry
    from harken.store.database import open_database
    from harken.web.patience import MOST_CONNECTIONS, Patient
    _check(args)
    loopback = args.host in LOOPBACK
    keys = read_keys(Path(args.keys)) if args.keys else {}
    if not loopback and not keys:
        raise UserError(f"--host {args.host} lets other machines in, and there are no keys.",
                        "Write a file with a line NAME KEY for each user, and name it with --keys.")
    telemetry = Telemetry() if args.telemetry else None
    followed = _follow(args) if args.loop else None
    arms = open_arms(args) if followed is None else followed.arms()
    db = open_database(args.db) if args.db else None
    _tell_readable(args, db)
    server = Server(arms, db=db, keys=keys, queue=args.queue, seconds=args.timeout, keep_hours=args.keep_hours,
                    hosts=_hosts(args, loopback), log_text=args.log_text,
                    adapters=_adapters(args, arms) if args.adapters else None, telemetry=telemetry)
    if followed is not None:
        server.follow(followed)
    _log_to_stderr()
    config = uvicorn.Config(create_app(server), host=args.host, port=args.port, log_level="warning", access_log=False,
                            server_header=False, ws="none", lifespan="on", timeout_graceful_shutdown=5, http=Patient,
                            limit_concurrency=MOST_CONNECTIONS, proxy_headers=bool(args.public_name))
    sock = bind(config, args)
    address = f"http://{'localhost' if loopback else args.host}:{sock.getsockname()[1]}"
    print(f"Harken serves {', '.join(arms.names)}: {address}/v1\n  chat: {address}/chat\n  feedback: "
          f"{db.name if db else 'not kept (give --db)'}")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[sock])
    return 0


def _tell_readable(args: argparse.Namespace, db: Any) -> None:
    """Says which files of secrets other accounts of this machine can read."""
    if args.keys and readable_by_others(Path(args.keys)):
        print(f"{args.keys} can be read by other accounts of this machine, and the keys in it: chmod 600 it.", file=sys.stderr)
    if db is not None and db.link.is_file and readable_by_others(Path(db.name)):
        print(f"{db.name} can be read by other accounts of this machine, and what people said: chmod 600 it.", file=sys.stderr)


def _hosts(args: argparse.Namespace, loopback: bool) -> tuple[str, ...] | None:
    """The names that are served: known ones on loopback, and wherever somebody gave names; else whatever is asked for."""
    from harken.cli.studio import LOOPBACK
    own = f"[{args.host}]" if ":" in args.host else args.host
    return (*LOOPBACK, "[::1]", own, *args.public_name) if loopback or args.public_name else None


def _follow(args: argparse.Namespace) -> Any:
    """What serves a loop's models; the loop's first database keeps the feedback where --db names none."""
    from harken.launch.loop.recipe import read_loop
    from harken.serve.follow import Follow
    recipe = read_loop(args.loop)
    args.db = args.db or recipe.db[0]
    if str(args.db) not in recipe.db:
        raise UserError(f"--db {args.db} is no database of the loop: what is said there would never come back.",
                        f"Leave --db out, or name one of {', '.join(recipe.db)}.")
    return Follow(recipe, lambda name, word: open_backend(name, word, args), args.name or "harken")


def _adapters(args: argparse.Namespace, arms: Any) -> Any:
    """What loads a trainer's weights onto the one model served."""
    from harken.engines.sampler import HFSampler
    from harken.serve.adapters import Adapters
    served = [backend for backend in arms.backends if isinstance(getattr(backend, "sampler", None), HFSampler)]
    if args.loop or args.weights or len(arms.backends) != 1 or not served:
        raise UserError("--adapters serves one --model with weights of its own, and takes neither --loop nor --weights.",
                        "harken serve --model runs/sft --adapters runs/rloo/rollouts")
    Path(args.adapters).mkdir(parents=True, exist_ok=True)
    return Adapters(served[0], Path(args.adapters))


def _check(args: argparse.Namespace) -> None:
    if bool(args.model) == bool(args.loop) or (args.loop and args.weights):
        raise UserError("A server needs --model or --loop, one of them; --weights goes with --model.",
                        "harken serve --help shows examples.")
    for name, least in (("rows", 1), ("queue", 0), ("context", 0), ("max_tokens", 1), ("timeout", 0.1), ("keep_hours", 0.01)):
        if not getattr(args, name) >= least:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(args, name)}.", f"It must be at least {least}.")


def read_keys(path: Path) -> dict[str, str]:
    """Names and keys of a file; the key of NAME answers as rater NAME."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}).", "Name a text file with a line NAME KEY for each user.") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or "/" in words[0] or len(words[1]) < 16:
            raise UserError(f"{path}, line {number}: not a name and a key of at least 16 characters.",
                            "Write NAME KEY, the name without a slash; openssl rand -hex 24 makes a key.")
        if words[0] in keys or words[1] in keys.values():
            raise UserError(f"{path}, line {number}: the name or the key was there before.", "Each must be another.")
        keys[words[0]] = words[1]
    if not keys:
        raise UserError(f"{path} holds no key.", "Write a line NAME KEY for each user.")
    return keys


def open_arms(args: argparse.Namespace) -> Any:
    """The models, opened."""
    from harken.serve.arms import Arms
    given = [_named(word) for word in args.model]
    names = [name for name, _ in given]
    if len(set(names)) < len(names):
        raise UserError(f"Two models are called {next(n for n in names if names.count(n) > 1)}.", "Write --model NAME=MODEL.")
    weights: list[float] = []
    if args.weights:
        try:
            weights = [float(w) for w in args.weights.split(",")]
        except ValueError:
            weights = []
        if len(weights) != len(given) or not all(0 < w < float("inf") for w in weights):
            raise UserError(f"--weights {args.weights} does not give a positive share to each of {len(given)} models.",
                            "Write one number a model, like 0.9,0.1.")
    return Arms([open_backend(name, word, args) for name, word in given], args.name, weights)


def _named(word: str) -> tuple[str, str]:
    """A model's name and its word: NAME=WORD, or the word's last part."""
    name, equals, rest = word.partition("=")
    if equals and name and "/" not in name and ":" not in name:
        return name, rest
    return (word.rpartition("#")[2] if "#" in word else Path(word).name) or word, word


def open_backend(name: str, word: str, args: argparse.Namespace) -> Any:
    """What answers under a name. A server's address needs no torch."""
    from harken.launch.models import parse_model
    from harken.serve.backends import Endpoint, Whole
    parsed = parse_model(word)
    if parsed.kind == "endpoint":
        if args.mode:
            raise UserError(f"--mode {args.mode} steers a model's own tokens, and {word} is an address.", "Leave --mode out.")
        url, _, model = word.partition("#")
        return Endpoint(name, url, model, args.rows, args.timeout)
    from harken.engines.policies import Prompted
    from harken.launch.policies import open_sampler
    from harken.text.tags import steer
    sampler = open_sampler(word, dtype=args.dtype, template=args.template)
    steer(sampler, word, args.mode)
    if parsed.kind == "named":
        from harken.engines.sampler import HFSampler
        base = sampler
        while isinstance(base, Prompted):
            base = base.base
        # Rows that come and go know no tags: a model that is steered answers as `harken sample` does, one request at a time.
        if isinstance(base, HFSampler) and base.control is None:
            from harken.serve.weights import Weights
            base.engine.template.check()
            for note in base.engine.template.notes:
                print(note, file=sys.stderr)
            most = min(base.engine.spoken or sys.maxsize, 1 << 20)
            return Weights(name, sampler, rows=args.rows, context=min(args.context or most, most), max_tokens=args.max_tokens)
    return Whole(name, sampler, args.max_tokens)


def _log_to_stderr() -> None:
    """A line of JSON a request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("harken.serve")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
