"""`harken eval NAME …`: the evaluation's own Config makes the options."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harken.cli.options import Parser, add_config, make_config, summary
from harken.cli.people import with_people
from harken.cli.show import show_result
from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.protocols import Estimate


def add_commands(commands: Any) -> None:
    """Registers `eval`, whose options come from the evaluation: `run` reads them."""
    commands.add_parser("eval", help="judge a model (harken eval --help lists the evaluations)", add_help=False)


USAGE = """\
usage: harken eval EVAL [options]
       harken eval EVAL EVAL … --model RUN[,RUN…] --out DIR [options]     several, each model loaded once
       harken eval suite --list quick --model RUN[,RUN…] --out DIR        a list: quick, full, harmless, or a file

evaluations:"""


def run(argv: list[str]) -> int:
    """`harken eval NAME …`."""
    from harken.launch.evaluate import evaluate
    from harken.launch.find import eval_names, find_eval
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        for name in eval_names():
            print(f"  {name:14} {summary('evals', name)}")
        print("\nharken eval EVAL --help shows its options. EVAL may also be your own module, like my_lab.idea.")
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"The evaluation comes first; found {argv[0]}.", "harken eval EVAL --model … (harken eval --help)")
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    if names == ["suite"] or len(names) > 1:
        return _run_several(names, argv[len(names):])
    module = find_eval(argv[0])
    if _several_models(argv[1:]):
        return _run_several(names, argv[1:])
    import_extra("harken.engines.loading")
    parser = Parser(f"harken eval {argv[0]}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser, module.Config)
    config = make_config(module.Config, parser.parse_args(argv[1:]))
    finished = with_people(config, lambda: evaluate(argv[0], module, config))
    show_result(finished.path, {k: v for k, v in finished.result.items() if k not in ("samples", "better")})
    _show_power(finished.result)
    return 0


def _show_power(result: dict[str, Any]) -> None:
    """How small a difference so many items could show."""
    from harken.launch.suite import least_detectable
    value = Estimate.from_json(result["value"])
    if least := least_detectable(value, bool(result.get("paired"))):
        print(f"  {value.n} units could show a difference of {least:.3f} (a chance of 80 %, at 5 %)")


def _several_models(argv: Sequence[str]) -> bool:
    values = [*argv[argv.index("--model") + 1:][:1]] if "--model" in argv else []
    values += [word.partition("=")[2] for word in argv if word.startswith("--model=")]
    return any("," in value and not Path(value).exists() for value in values)


def _run_several(names: list[str], argv: list[str]) -> int:
    """Several evaluations, or a list of them, of one model or several."""
    from harken.launch.find import find_eval
    from harken.launch.suite import LISTS, Entry, labelled, read_list, run_suite
    import_extra("harken.engines.loading")
    suite = names == ["suite"]
    parser = Parser(f"harken eval {' '.join(names)}", description=__doc__)
    if suite:
        parser.add_argument("--list", required=True, help=f"{', '.join(LISTS)}, or a file with an evaluation a line")
    parser.partial = True  # the evaluations' own options are known once it is known which they are
    chosen, _ = parser.parse_known_args([w for w in argv if suite or w not in ("-h", "--help")])
    parser.partial = False
    entries = read_list(chosen.list) if suite else labelled([Entry(name) for name in names])
    known: set[str] = set()
    for module in {entry.name: find_eval(entry.name) for entry in entries}.values():
        add_config(parser, module.Config, besides=sorted(known), optional=True)
        known |= {f.name for f in dataclasses.fields(module.Config)}
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if k != "list"}
    models = [m for m in str(given.pop("model", "")).split(",") if m]
    if not models or not given.get("out"):
        raise UserError("A suite needs --model and --out.", "harken eval suite --list quick --model runs/sft --out runs/suite")
    root = given.pop("out")
    every = run_suite(entries, models, given, root, done=_show_row, failed=_show_failed)
    rows = [row for row in every if "failed" not in row]
    _show_trends(rows, str(root))
    missing = sum(row["missing"] for row in rows)
    runs = " ".join(dict.fromkeys(row["run"] for row in rows))
    report = f" harken report {runs} --out report.html" if rows else ""
    print(f"{len(rows)} evaluations done; {missing} items have no score.{report}")
    if len(rows) < len(every):
        raise UserError(f"{len(every) - len(rows)} of {len(every)} evaluations could not be made; why stands above.",
                        "The same command tries them again and leaves the others as they are.")
    return 0


def _show_trends(rows: Sequence[dict[str, Any]], root: str) -> None:
    """Where an evaluation was made of models of several sizes: does its figure rise or fall with size?"""
    from harken.launch.evaluate import evaluate
    from harken.launch.find import find_eval
    module = find_eval("sizes")
    for label in dict.fromkeys(row["eval"] for row in rows):
        part = [row for row in rows if row["eval"] == label and row["parameters"]]
        if len({row["parameters"] for row in part}) > 1 and len(part) == sum(row["eval"] == label for row in rows):
            config = module.Config(runs=",".join(row["run"] for row in part), out=str(Path(root) / f"sizes-{label}"))
            evaluate("sizes", module, config)


def _show_failed(row: dict[str, Any]) -> None:
    print(f"  {row['model']:24} {row['eval']:14} not made: {row['failed']}", flush=True)


def _show_row(row: dict[str, Any]) -> None:
    least = row["least_detectable"]
    tail = f"; could show a difference of {least:.3f}" if least else ""
    missing = f"; {row['missing']} missing" if row["missing"] else ""
    spent = f"; {row['cpu_seconds'] / 60:.1f} min of CPU" if "cpu_seconds" in row else ""
    print(f"  {row['model']:24} {row['eval']:14} {Estimate.from_json(row['value'])}{tail}{missing}{spent}", flush=True)
