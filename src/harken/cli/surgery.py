"""`harken surgery`: cut a model's bad mode, and see what it costs."""

from __future__ import annotations

import argparse
from typing import Any

from harken.cli.options import add_config, make_config
from harken.core.extras import import_extra
from harken.launch.settings import SurgerySettings


def add_commands(commands: Any) -> None:
    """Registers `surgery`; it sets `handler(args) -> exit status`."""
    p = commands.add_parser(
        "surgery", help="cut a model's bad mode out of its weights, and see what it costs",
        description="Deletes the bad token or the neurons that bad segments taught, projects a direction out or subtracts the "
                    "bad embedding; prints misalignment, fluency and capability before and after in good, bad and untagged mode; "
                    "refuses a cut that raises bits by more than 10 %. docs/surgery.md says what is a security boundary and what "
                    "is not.",
        epilog="harken surgery --model runs/conditional --delete-bad --reward toxicity --data text.txt --out runs/cut")
    add_config(p, SurgerySettings)
    p.set_defaults(handler=surgery)


def surgery(args: argparse.Namespace) -> int:
    """`harken surgery`."""
    settings = make_config(SurgerySettings, args)
    run = import_extra("harken.launch.surgery").surgery(settings)
    print(f"{run.path}: done")
    return 0
