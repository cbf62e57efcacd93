"""The harken command."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from harken.cli.options import Parser
from harken.core import processes
from harken.core.errors import UserError
from harken.core.seeds import MOST_SEED
from harken.core.terminal import plain_output, visible
from harken.core.version import ABOUT, __version__

LOOP = """\
the loop:
  harken import feedback.jsonl --db feedback.db
  harken snapshot comparisons --db feedback.db --out comparisons.jsonl
  harken train sft          --model smollm2  --data demos.jsonl --out runs/sft
  harken train reward_model --model runs/sft --data comparisons.jsonl --out runs/rm
  harken train rloo         --model runs/sft --reward runs/rm --data prompts.jsonl --out runs/rloo
  harken eval win_rate --model runs/rloo --against runs/sft --prompts prompts.jsonl --judge runs/rm --out runs/eval
  harken report runs/* --out report.html

harken quickstart runs all of it on a small real model, offline."""


COMMANDS = ("data", "studio", "users", "ask", "backup", "serve", "loop", "export", "agreement", "aggregate", "rank", "compare",
            "labelers", "goals", "next", "disagree", "rewards", "annotate", "surgery", "models", "evals", "sweep", "report",
            "doctor", "quickstart")
"""The files of the commands, in the order of `harken --help`; each has `add_commands`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0 done, 2 a user's mistake, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Read when torch loads: threads spin a little, then sleep. Spinning on makes a shared machine up to 15 times
    # slower, sleeping at once a free one 1.4 times.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    with suppress(AttributeError, ValueError):  # half an emoji in somebody's text, or a plain terminal, must not end a command
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with plain_output():
            status = run(argv)
            sys.stdout.flush()
        return status
    except UserError as error:
        return complain(str(error))
    except KeyboardInterrupt:
        resumes = argv[:1] and argv[0] in ("train", "fit", "eval", "quickstart", "average", "annotate", "sweep")
        return complain(f"interrupted{'; the same command continues the run.' if resumes else '.'}", 130)
    except BrokenPipeError:  # the reader has seen enough (harken … | head)
        forget_output()
        return 0
    except OSError as error:
        if error.filename is None:
            forget_output()
        reason = "The disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        return complain(f"{reason}: {error.filename or 'while writing'}\n  What was complete before is intact; the same command "
                        "continues a run.")
    except MemoryError:
        return complain("out of memory\n  Lower --tokens-per-micro-batch or --max-length.")


def complain(message: str, status: int = 2) -> int:
    """Says what went wrong; of several processes the first that fails does."""
    with suppress(OSError):
        if processes.group().fails_first():
            print(visible(f"harken: {message}"), file=sys.stderr, flush=True)
    return status


def forget_output() -> None:
    """Nobody reads stdout any more: what is left in its buffer must not fail again when Python ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(argv: list[str]) -> int:
    try:
        if argv == ["--version"]:  # without loading every command
            print(f"harken {__version__}")
            return 0
        if argv[:1] == ["train"]:
            from harken.cli import train
            return train.run(argv[1:])
        if processes.started()[1] > 1:
            raise UserError(f"harken {argv[0] if argv else ''} is the work of one process.", "Only harken train is for torchrun.")
        if argv[:1] == ["eval"]:
            from harken.cli import evals
            return evals.run(argv[1:])
        args = build_parser(argv[0] if argv else "").parse_args(argv)
        if not 0 <= getattr(args, "seed", 0) <= MOST_SEED:
            raise UserError(f"--seed {args.seed} is out of range.", "It must be 0 or more, and below 2^63.")
        if not hasattr(args, "handler"):
            build_parser().print_help()
            return 0
        status: int = args.handler(args)
        return status
    except SystemExit as done:  # argparse, after --help and --version
        return int(done.code or 0)


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """`command` is the one that is asked for: where a file is called so, only that one is loaded (all take half a second)."""
    parser = Parser("harken", description=ABOUT, epilog=LOOP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"harken {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in ([command] if command in COMMANDS else COMMANDS):
        importlib.import_module(f"harken.cli.{module}").add_commands(commands)
    commands.add_parser("train", help="train a model (harken train --help lists the methods)", add_help=False)
    return parser if command not in COMMANDS or command in commands.choices else build_parser()
