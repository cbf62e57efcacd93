"""Commands on rewards: fit one that is a sum of attributes, average several runs, explain scores."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash
from harken.core.protocols import Reward
from harken.core.records import Choice
from harken.core.run import Run
from harken.core.terminal import one_line

# toxicity:1 knows words alone; the later scorer also hears courtesy, which sentiment measures here.
RULES = ("length", "words_per_sentence", "list_items", "numbers", "questions", "repetition", "on_topic", "echo", "hedging",
         "refusal", "courtesy", "finished")
"""What `--judge rules` measures, beside toxicity and sentiment."""


def add_commands(commands: Any) -> None:
    """Registers `fit` and `average`; each sets `handler(args) -> exit status`."""
    p = commands.add_parser("fit", help="fit a reward without training a model: compositional, student",
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    p.fill = _fill_fit

    p = commands.add_parser("average", help="one model from several runs: the mean of their weights",
                            description="Averages the weights of finished runs from one base model (WARM for reward "
                                        "models). The result is a run like them.",
                            epilog="harken average runs/rm1 runs/rm2 --out runs/warm")
    p.add_argument("runs", nargs="+", help="run directories of one training method")
    p.add_argument("--out", required=True, help="run directory to write")
    p.set_defaults(handler=average)


def _fill_fit(p: argparse.ArgumentParser) -> None:
    from harken.cli.options import add_config
    from harken.rewards import compositional, student  # brings NumPy and SciPy: 30 MB
    kinds = p.add_subparsers(dest="reward", required=True, metavar="REWARD")
    for module, handler, needed in ((compositional, fit, ("data", "out")), (student, fit_student, ("reward", "data", "out"))):
        name = module.__name__.rpartition(".")[2]
        kind = kinds.add_parser(name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                help=(module.__doc__ or "").partition(".")[0].replace("\n", " "))
        add_config(kind, module.Config, needed)
        kind.set_defaults(handler=handler)


def fit(args: argparse.Namespace) -> int:
    from harken.cli.options import make_config
    from harken.cli.show import show_result
    from harken.core.settings import check_settings
    from harken.launch.models import model_identity
    from harken.launch.templates import dated
    from harken.rewards.compositional import Config, train
    config = make_config(Config, args)
    check_settings(config)
    source = Path(config.data)
    if not source.is_file():
        raise UserError(f"There is no file {config.data!r}.", "Check --data.")
    if not config.out:
        raise UserError("No run directory was given.", "Add --out runs/NAME.")
    lineage: dict[str, Any] = {"data": {"path": str(source), "sha256": file_hash(source)},
                               "judge": model_identity(config.judge)}
    if config.attributes:
        if not Path(config.attributes).is_file():
            raise UserError(f"There is no file {config.attributes!r}.", "Check --attributes.")
        lineage["attributes"] = {"path": config.attributes, "sha256": file_hash(Path(config.attributes))}
    panel = open_panel(config)
    with Run.open(config.out, {"command": "fit compositional", **dataclasses.asdict(config)}, lineage) as run, dated(run):
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
        else:
            train(config, panel, run)
    show_result(run.path, {k: v for k, v in run.result.items() if k not in ("attributes", "calibration", "cross_validation")})
    show_attributes(run.result["attributes"])
    return 0


def fit_student(args: argparse.Namespace) -> int:
    """`harken fit student`."""
    from harken.cli.options import make_config
    from harken.cli.show import show_result
    from harken.core.settings import check_settings
    from harken.launch.rewards import open_reward, parse_reward
    from harken.rewards.student import Config, train
    config = make_config(Config, args)
    check_settings(config)
    source = Path(config.data)
    if not source.is_file():
        raise UserError(f"There is no file {config.data!r}.", "Check --data.")
    word = parse_reward(config.reward)
    word.check()
    teacher = word.identity()
    lineage = {"data": {"path": str(source), "sha256": file_hash(source)}, "reward": teacher}
    with Run.open(config.out, {"command": "fit student", **dataclasses.asdict(config)}, lineage) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
        else:
            train(config, open_reward(word), teacher, run)
    show_result(run.path, run.result)
    return 0


def open_panel(config: Any) -> Any:
    """The attributes of a config and who rates them, opened."""
    from harken.launch.rewards import open_judge, open_reward
    from harken.text.attributes import Attribute, load_attributes
    from harken.text.panel import Panel
    if config.judge == "rules" and not config.attributes:
        named = {name: f"measure:{name}" for name in RULES} | {"toxicity": "toxicity:1", "sentiment": "sentiment"}
        attributes = [Attribute(name, scorer=scorer) for name, scorer in named.items()]
    else:
        attributes = load_attributes(config.attributes)
    judge = identity = None
    if asked := [a.name for a in attributes if not a.scorer]:
        if config.judge == "rules":
            raise UserError(f"Nobody rates {asked[0]}: it has no scorer, and --judge is rules.",
                            "Give it a scorer, or name a model.")
        judge, identity = open_judge(config.judge, config.judge_model, config.answers, dtype=config.dtype)
    scorers = {a.name: open_reward(a.scorer, dtype=config.dtype) for a in attributes if a.scorer}
    return Panel(attributes, judge, scorers, identity)


def show_attributes(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A line an attribute, the heaviest first: weight with interval, entropy, failures, test–retest."""
    print(f"  {'attribute':22} {'weight':>7} {'95 %':>16} {'entropy':>8} {'missing':>8} {'retest':>7}")
    for name, row in sorted(rows.items(), key=lambda item: -abs(item[1].get("weight", 0.0))):
        weight, interval = ("out", "") if "weight" not in row else \
            (f"{row['weight']:+.2f}", f"[{row['low']:+.2f}, {row['high']:+.2f}]")
        again = "" if row["retest"] is None else f"{row['retest']:.2f}"
        line = (f"  {one_line(name):22} {weight:>7} {interval:>16} {row['entropy']:8.2f} {row['failures']:8.0%} {again:>7}  "
                f"{row['weak']}")
        print(line.rstrip())


def explain(reward: Reward, name: str, choices: Sequence[Choice], scores: Sequence[Sequence[float | None]]) -> list[Any]:
    """The parts of every score, [ranking][option]; prints those of the first ranking as a table."""
    parts_of = getattr(reward, "explain", None)
    if parts_of is None:
        raise UserError(f"{name} cannot explain its scores: they are one learnt number.",
                        "Fit a reward that can: harken fit compositional.")
    explained: list[Any] = parts_of([c.prompt for c in choices], [c.options for c in choices])
    first = next((i for i, row in enumerate(explained) if any(row)), None)
    if first is None:
        print("  No completion has a score to explain.")
        return explained
    print(f"  {choices[first].prompt.text[:100]!r}")
    given = [parts or {} for parts in explained[first]]
    names = sorted({n for parts in given for n in parts}, key=lambda n: -max(abs(parts.get(n, 0.0)) for parts in given))
    labels = [chr(ord("A") + i % 26) for i in range(len(given))]
    print(f"  {'':22}" + "".join(f"{label:>9}" for label in labels))
    for n in [*names, "score"]:
        cells = [score if n == "score" else parts.get(n) for score, parts in zip(scores[first], given)]
        print(f"  {one_line(n):22}" + "".join(f"{'–' if c is None else format(c, '+.3f'):>9}" for c in cells))
    return explained


def average(args: argparse.Namespace) -> int:
    from harken.core.extras import import_extra
    from harken.launch.models import model_identity
    import_extra("harken.engines.averaging")
    from harken.core.files import read_json
    from harken.engines.averaging import average as mean
    from harken.engines.averaging import check_alike, check_once
    from harken.engines.hf import Engine
    check_once(args.runs)
    check_alike(args.runs)
    members = [model_identity(r) for r in args.runs]
    first = read_json(Path(args.runs[0]) / "config.json")
    settings = {"command": "average", "runs": list(args.runs), "max_length": first.get("max_length", 1024)}
    with Run.open(args.out, settings, {"members": members}) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return 0
        loaded = mean(args.runs)
        engine = Engine(loaded, head="reward" if loaded.head is not None else None, train=False)
        run.finish({"runs": list(args.runs)}, lambda folder: engine.save(folder))
    print(f"{args.out}: the mean of {len(args.runs)} runs")
    return 0
