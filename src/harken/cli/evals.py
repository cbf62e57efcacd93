"""`harken eval NAME …`: the evaluation's own Config makes the options."""

from __future__ import annotations

import argparse
from typing import Any

from harken.cli.options import Parser, add_config, make_config, summary
from harken.cli.show import show_result
from harken.core.errors import UserError
from harken.core.extras import import_extra


def add_commands(commands: Any) -> None:
    """Registers `eval`, whose options come from the evaluation: `run` reads them."""
    commands.add_parser("eval", help="judge a model (harken eval --help lists the evaluations)", add_help=False)


def run(argv: list[str]) -> int:
    """`harken eval NAME …`."""
    from harken.launch.evaluate import evaluate
    from harken.launch.find import eval_names, find_eval
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: harken eval EVAL [options]\n\nevaluations:")
        for name in eval_names():
            print(f"  {name:14} {summary('evals', name)}")
        print("\nharken eval EVAL --help shows its options. EVAL may also be your own module, like my_lab.idea.")
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"The evaluation comes first; found {argv[0]}.", "harken eval EVAL --model … (harken eval --help)")
    module = find_eval(argv[0])
    import_extra("harken.engines.loading")
    parser = Parser(f"harken eval {argv[0]}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser, module.Config)
    finished = evaluate(argv[0], module, make_config(module.Config, parser.parse_args(argv[1:])))
    show_result(finished.path, {k: v for k, v in finished.result.items() if k not in ("samples", "better")})
    return 0
