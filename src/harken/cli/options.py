"""Options of the commands: made from the fields of a Config, or by hand."""

from __future__ import annotations

import argparse
import ast
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from harken.core.config import field_docs, from_dict
from harken.core.errors import UserError
from harken.core.find import nearest
from harken.core.version import PACKAGE

SHORT = {"--lr": "--learning-rate", "--max-steps": "--steps", "--num-epochs": "--epochs", "--output-dir": "--out",
         "--output": "--out", "--dataset": "--data", "--bs": "--batch-size", "--max-new-tokens": "--max-tokens",
         "--lora-r": "--lora-rank"}
"""What other trainers call the same."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an option in one message, not under a page of usage."""

    fill: Callable[[Parser], None] | None = None
    """Adds options once they are asked for: what they import need not slow every other command, nor stay in a server's memory."""

    partial = False
    """Whether options it does not know are left to another parser."""

    def filled(self) -> Parser:
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.filled()
        found, left = super().parse_known_args(args, namespace)
        if left and not self.partial:  # said by the command's own parser, which knows what it takes
            given = left[0].partition("=")[0]
            known, other = self.known_options(), SHORT.get(given, "")
            near = f" Did you mean {other}?" if other in known else nearest(given, known, 0.5)
            raise UserError(f"Unrecognized arguments: {' '.join(left)}.{near}", f"{self.prog} --help shows what it takes.")
        return found, left

    def _print_message(self, message: str, file: Any = None) -> None:
        """Help as it is: from Python 3.14 on it has colours."""
        super()._print_message(message, getattr(file, "rich_proxied_file", file))

    def known_options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """One word wrong of many: the nearest, not all of them."""
        if action.choices is not None and value not in action.choices:
            words = [str(choice) for choice in action.choices]
            near = nearest(str(value), words, 0.5)
            name = f"{'/'.join(action.option_strings) or action.metavar or action.dest}"
            raise UserError(f"{name}: there is no {value!r}.{near}",
                            f"{self.prog} --help shows what it takes." if near or len(words) > 12 else f"Use {', '.join(words)}.")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message[:1].upper()}{message[1:]}.", f"{self.prog} --help shows what it takes.")


class Joined(argparse.Action):
    """An option that may be given several times: its values with commas between."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option: str | None = None) -> None:
        before = getattr(namespace, self.dest, "")
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def add_config(parser: argparse.ArgumentParser, config: type, required: Sequence[str] = (), besides: Sequence[str] = (),
               optional: bool = False) -> None:
    """One option per field of a Config; its docstring is the help. `optional` asks for none of them."""
    docs = field_docs(config)
    for field in (f for f in dataclasses.fields(config) if f.name not in besides):
        flag = "--" + field.name.replace("_", "-")
        text = docs.get(field.name, "").replace("%", "%%")
        declared = getattr(field.type, "__name__", str(field.type))
        if declared == "bool":
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
            continue
        if field.metadata.get("repeats"):
            parser.add_argument(flag, action=Joined, default=argparse.SUPPRESS, metavar="NAME=COLUMN", help=text)
            continue
        kind = {"int": int, "float": float}.get(declared, str)
        default = "" if field.default in ("", dataclasses.MISSING) else f" (default {field.default})"
        parser.add_argument(flag, type=kind, default=argparse.SUPPRESS,
                            required=not optional and (field.name in required or bool(field.metadata.get("required"))),
                            metavar="TEXT" if kind is str else kind.__name__.upper(), help=text + default)


def make_config(config: type, args: argparse.Namespace, base: dict[str, Any] | None = None, source: str = "") -> Any:
    names = {f.name for f in dataclasses.fields(config)}
    given = {k: v for k, v in vars(args).items() if k in names}
    return from_dict(config, {**(base or {}), **given}, source)


def summary(folder: str, name: str) -> str:
    """First line of a module's docstring, read without importing it."""
    source = PACKAGE / folder / f"{name}.py"
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").splitlines()[0]


def add_db(command: argparse.ArgumentParser) -> None:
    """Adds --db."""
    command.add_argument("--db", metavar="FILE", default="feedback.db",
                         help="database: a file, or a postgresql:// address (default: feedback.db)")
