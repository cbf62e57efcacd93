"""`harken quickstart`: the whole loop on a small real model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harken.core.extras import import_extra


def add_commands(commands: Any) -> None:
    """Registers `quickstart`; it sets `handler`."""
    p = commands.add_parser("quickstart", help="the whole loop on a small real model, offline, in minutes",
                            description="Trains SFT, lets simulated labelers rank, trains a reward model and RLOO, evaluates "
                                        "against the known truth, and makes report.html. A second run reuses what is done.")
    p.add_argument("loop", nargs="?", choices=("phf",), help="phf: pretraining with human feedback on real code instead")
    p.add_argument("--out", type=Path, help="folder to write (default runs/quickstart, or runs/quickstart_phf)")
    p.add_argument("--model", default="smollm2", help="model to start from (default smollm2)")
    p.add_argument("--seed", type=int, default=0, help="seed of everything (default 0)")
    p.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto (default auto)")
    p.set_defaults(handler=quickstart)


def quickstart(args: argparse.Namespace) -> int:
    import_extra("harken.engines.hf")
    if args.loop == "phf":
        from harken.cli.phf_loop import run
        run(args.out or Path("runs/quickstart_phf"), args.seed)
        return 0
    from harken.cli.first_loop import Quickstart
    Quickstart(args.out or Path("runs/quickstart"), args.model, args.seed, args.dtype).run()
    return 0
