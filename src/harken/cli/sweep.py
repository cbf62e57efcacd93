"""`harken sweep FILE`: a run for each combination of settings and seed, and one table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = """\
Runs every combination of the grid's settings with every seed, one after another, and ends with one table: mean and interval
over seeds. The same command continues a sweep that was stopped. docs/runs.md shows a file."""


def add_commands(commands: Any) -> None:
    """Registers `sweep`; it sets `handler`."""
    p = commands.add_parser("sweep", help="a run for each combination of settings and seed, and one table", description=HELP,
                            epilog="harken sweep sweep.yaml", formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="YAML, TOML or JSON: method, out, grid, and settings, seeds, measure, eval")
    p.set_defaults(handler=sweep)


def sweep(args: argparse.Namespace) -> int:
    from harken.launch.sweep import run_sweep
    path, table = run_sweep(args.file)
    print(f"{table}\n\n{path}: intervals of 95 % over seeds; runs.csv beside it holds every run")
    return 0
