"""The harken command."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import harken
from harken.core import processes
from harken.core.config import MOST_SEED, RunConfig, field_docs, from_dict
from harken.core.errors import UserError
from harken.core.terminal import one_line, plain_output, visible

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


COMMANDS = (
    "cli_data",
    "cli_studio",
    "cli_agreement",
    "cli_labelers",
    "cli_goals",
    "cli_next",
    "cli_disagree",
    "cli_rewards",
    "cli_models",
)
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
        resumes = argv[:1] and argv[0] in ("train", "fit", "eval", "quickstart", "average")
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


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an option in one message, not under a page of usage."""

    fill: Callable[[Parser], None] | None = None
    """Adds options once they are asked for: what they import need not slow every other command, nor stay in a server's memory."""

    def filled(self) -> Parser:
        if self.fill is not None:
            self.fill, fill = None, self.fill
            fill(self)
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.filled()
        return super().parse_known_args(args, namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Help as it is: from Python 3.14 on it has colours."""
        super()._print_message(message, getattr(file, "rich_proxied_file", file))

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].upper()}{message[1:]}.", f"{self.prog} --help shows what it takes.")


def run(argv: list[str]) -> int:
    try:
        if argv[:1] == ["train"]:
            return train(argv[1:])
        if processes.started()[1] > 1:
            raise UserError(f"harken {argv[0] if argv else ''} is the work of one process.", "Only harken train is for torchrun.")
        if argv[:1] == ["eval"]:
            from harken import cli_models
            return cli_models.run_eval(argv[1:])
        args = build_parser().parse_args(argv)
        if not 0 <= getattr(args, "seed", 0) <= MOST_SEED:
            raise UserError(f"--seed {args.seed} is out of range.", "It must be 0 or more, and below 2^63.")
        if not hasattr(args, "handler"):
            build_parser().print_help()
            return 0
        status: int = args.handler(args)
        return status
    except SystemExit as done:  # argparse, after --help and --version
        return int(done.code or 0)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("harken", description=harken.__doc__, epilog=LOOP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"harken {harken.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in COMMANDS:
        importlib.import_module(f"harken.{module}").add_commands(commands)
    commands.add_parser("train", help="train a model (harken train --help lists the methods)", add_help=False)
    return parser


def add_config(parser: argparse.ArgumentParser, config: type, required: Sequence[str] = ()) -> None:
    """One option per field of a Config; its docstring is the help."""
    docs = field_docs(config)
    for field in dataclasses.fields(config):
        flag = "--" + field.name.replace("_", "-")
        text = docs.get(field.name, "").replace("%", "%%")
        declared = getattr(field.type, "__name__", str(field.type))
        if declared == "bool":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
            continue
        kind = {"int": int, "float": float}.get(declared, str)
        default = "" if field.default in ("", dataclasses.MISSING) else f" (default {field.default})"
        parser.add_argument(flag, type=kind, default=argparse.SUPPRESS, required=field.name in required,
                            metavar="TEXT" if kind is str else kind.__name__.upper(), help=text + default)


def make_config(config: type, args: argparse.Namespace, base: dict[str, Any] | None = None, source: str = "") -> Any:
    names = {f.name for f in dataclasses.fields(config)}
    given = {k: v for k, v in vars(args).items() if k in names}
    return from_dict(config, {**(base or {}), **given}, source)


def train(argv: list[str]) -> int:
    """`harken train METHOD …`: the method's own Config makes the options."""
    from harken import launch
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: harken train METHOD [options]\n\nmethods:")
        for name in launch.method_names():
            print(f"  {name:16} {summary('methods', name)}")
        print("\nharken train METHOD --help shows a method's options. METHOD may also be your own module, like my_lab.idea.")
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"The method comes first; found {argv[0]}.", "harken train METHOD --model … (harken train --help)")
    method = launch.find_method(argv[0])
    parser = Parser(f"harken train {argv[0]}", description=method.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="config.json of a run to repeat; other options override it")
    presets: dict[str, dict[str, Any]] = getattr(method, "PRESETS", {})
    if presets:
        parser.add_argument("--preset", choices=presets, help="settings of a known run; other options override them")
    add_config(parser, method.Config)
    args = parser.parse_args(argv[1:])
    base: dict[str, Any] = {}
    if args.config:
        from harken.core.run import read_json
        base = {k: v for k, v in read_json(args.config).items() if k not in ("command", "base", "reward_base", "out")}
    if presets and args.preset:
        base |= presets[args.preset]
    config: RunConfig = make_config(method.Config, args, base, str(args.config))
    run = launch.train(method, config)
    if processes.started()[0]:
        return 0
    show_result(run.path, run.result)
    return 0


def show_result(path: Path, result: dict[str, Any]) -> None:
    """The figures of a finished run, a line each."""
    from harken.core.protocols import Estimate
    print(f"{path}: done")
    for name, value in result.items():
        if isinstance(value, dict) and {"value", "low", "high", "n"} <= value.keys():
            print(f"  {name}: {Estimate.from_json(value)}")
        elif name == "labelers" and isinstance(value, dict):
            print(f"  {name}: " + ", ".join(f"{one_line(who)} beta {found['beta']:.2f}" for who, found in list(value.items())[:8])
                  + (f" and {len(value) - 8} more" if len(value) > 8 else ""))
        elif isinstance(value, dict):
            parts = {k: f"{v['value']:.3f}" if isinstance(v, dict) and "value" in v else v for k, v in value.items()}
            print(f"  {name}: " + ", ".join(f"{k} {v}" for k, v in parts.items()))
        elif isinstance(value, float):
            print(f"  {name}: {value:.4f}")
        elif isinstance(value, (int, str)) and value != "":
            print(f"  {name}: {value}")


def summary(folder: str, name: str) -> str:
    """First line of a module's docstring, read without importing it."""
    source = Path(harken.__file__).parent / folder / f"{name}.py"
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
