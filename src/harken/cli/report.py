"""`harken report`: one offline page from runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harken.core.errors import UserError


def add_commands(commands: Any) -> None:
    """Registers `report`; it sets `handler`."""
    p = commands.add_parser("report", help="one offline HTML page from runs", description="Makes one offline HTML page.",
                            epilog="harken report runs/* --out report.html")
    p.add_argument("runs", nargs="+", type=Path, help="run directories")
    p.add_argument("--out", type=Path, default=Path("report.html"), help="page to write (default report.html)")
    p.set_defaults(handler=report)


def report(args: argparse.Namespace) -> int:
    from harken.report.build import build_report
    if args.out.exists() and not args.out.is_file() and not args.out.is_dir():
        raise UserError(f"{args.out} is not a file that can be replaced.", "Choose another --out.")
    print(f"{build_report(args.runs, args.out)}: open it in a browser")
    return 0
