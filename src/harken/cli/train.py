"""`harken train METHOD …`."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.cli.options import Parser, add_config, make_config, summary
from harken.cli.show import show_result
from harken.core import processes
from harken.core.config import RunConfig
from harken.core.errors import UserError


def run(argv: list[str]) -> int:
    """`harken train METHOD …`: the method's own Config makes the options."""
    from harken.launch.find import find_method, method_names
    from harken.launch.train import train
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: harken train METHOD [options]\n\nmethods:")
        for name in method_names():
            print(f"  {name:16} {summary('methods', name)}")
        print("\nharken train METHOD --help shows a method's options. METHOD may also be your own module, like my_lab.idea.")
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"The method comes first; found {argv[0]}.", "harken train METHOD --model … (harken train --help)")
    method = find_method(argv[0])
    parser = parser_of(method, argv[0])
    args = parser.parse_args(argv[1:])
    base: dict[str, Any] = {}
    if args.config:
        from harken.core.recipes import read_settings
        base = {k: v for k, v in read_settings(args.config).items() if k not in ("command", "base", "reward_base", "out")}
    if preset := getattr(args, "preset", None):
        base |= method.PRESETS[preset]
    config: RunConfig = make_config(method.Config, args, base, str(args.config))
    if getattr(args, "plan", None):
        return _plan(method, config, args.plan)
    finished = train(method, config)
    if processes.started()[0]:
        return 0
    show_result(finished.path, finished.result)
    return 0


def parser_of(method: ModuleType, name: str) -> Parser:
    """The options of a method: its settings, and what stands beside them."""
    from harken.launch.train import learns
    parser = Parser(f"harken train {name}", description=method.__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path,
                        help="settings in YAML, TOML or JSON (a run's config.json repeats it); other options override it")
    presets: dict[str, dict[str, Any]] = getattr(method, "PRESETS", {})
    if presets:
        parser.add_argument("--preset", choices=presets, help="settings of a known run; other options override them")
    add_config(parser, method.Config)
    if learns(method):
        parser.add_argument("--plan", type=_processes, nargs="?", const=processes.started()[1], metavar="PROCESSES",
                            help="print the memory that these settings need, part by part, beside what is free here, and stop; "
                            "nothing is loaded. --plan 8 counts for 8 processes. --model may then also be llama-1b, llama-8b or "
                            "llama-70b, or a folder with config.json alone")
    return parser


def _processes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65536:
        raise UserError(f"--plan {text!r} is no number of processes.", "Write --plan, or --plan 8.")
    return int(text)


def _plan(method: ModuleType, config: RunConfig, count: int) -> int:
    """Prints the plan; of several processes the first does."""
    from harken.core.settings import check_settings
    from harken.launch.machine import free_memory
    from harken.launch.plan import plan_of
    check_settings(config)
    if processes.started()[0] == 0:
        print(plan_of(method, config, count).text(free_memory(count)))
    return 0
