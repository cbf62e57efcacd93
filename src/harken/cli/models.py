"""Commands on models: sample, score, eval, report, doctor, quickstart."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

import harken
from harken.core.errors import UserError
from harken.core.terminal import visible


def add_commands(commands: Any) -> None:
    """Registers the commands; each sets `handler(args) -> exit status`."""
    p = commands.add_parser("sample", help="write completions of prompts",
                            description="Samples n completions of every prompt.",
                            epilog="harken sample --model runs/rloo --prompts prompts.jsonl --n 4 --out samples.jsonl")
    p.add_argument("--model", required=True, help="smollm2, a run directory, a folder, a .gguf file or a hub id")
    p.add_argument("--prompts", required=True, help="JSON Lines file of prompts")
    p.add_argument("--out", required=True, type=Path, help="file to write: a prompt a line with its completions")
    p.add_argument("--n", type=int, default=1, help="completions a prompt (default 1)")
    p.add_argument("--max-tokens", type=int, default=128, help="longest completion in tokens (default 128)")
    p.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default 1)")
    p.add_argument("--top-p", type=float, default=1.0, help="nucleus sampling mass (default 1: off)")
    p.add_argument("--seed", type=int, default=0, help="seed of sampling (default 0)")
    p.add_argument("--dtype", default="float32", help="float32, bfloat16 or auto (default float32)")
    p.add_argument("--mode", default="", help="of a model with control tokens: good, bad or untagged (default: its own)")
    p.add_argument("--tag", default="each", help="put the mode's token before each segment, or once (default each)")
    p.add_argument("--skip-bad", action="store_true", help="skip malformed lines and count them")
    p.set_defaults(handler=sample)

    p = commands.add_parser("score", help="score completions with a reward",
                            description='Adds "scores" to every row of comparisons; prints accuracy beside null baselines.',
                            epilog="harken score --reward runs/rm --data comparisons.jsonl --out scores.jsonl")
    p.add_argument("--reward", required=True, help="a reward run, several with commas, a scorer such as toxicity, or gold")
    p.add_argument("--aggregate", default="", metavar="WAY",
                   help="of a reward model with groups: mean, group:NAME, worst or quantile:Q (default: its shared score)")
    p.add_argument("--explain", action="store_true", help='add the "parts" of every score, and print one ranking\'s')
    p.add_argument("--data", required=True, help="JSON Lines file of comparisons")
    p.add_argument("--out", required=True, type=Path, help="file to write")
    p.add_argument("--dtype", default="float32", help="float32, bfloat16 or auto (default float32)")
    p.add_argument("--skip-bad", action="store_true", help="skip malformed lines and count them")
    p.set_defaults(handler=score)

    commands.add_parser("eval", help="judge a model: win_rate, capability", add_help=False)

    p = commands.add_parser("report", help="one offline HTML page from runs", description="Makes one offline HTML page.",
                            epilog="harken report runs/* --out report.html")
    p.add_argument("runs", nargs="+", type=Path, help="run directories")
    p.add_argument("--out", type=Path, default=Path("report.html"), help="page to write (default report.html)")
    p.set_defaults(handler=report)

    p = commands.add_parser("doctor", help="what is installed, what is missing and how to get it")
    p.set_defaults(handler=doctor)

    p = commands.add_parser("quickstart", help="the whole loop on a small real model, offline, in minutes",
                            description="Trains SFT, lets simulated labelers rank, trains a reward model and RLOO, evaluates "
                                        "against the known truth, and makes report.html. A second run reuses what is done.")
    p.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder to write (default runs/quickstart)")
    p.add_argument("--model", default="smollm2", help="model to start from (default smollm2)")
    p.add_argument("--seed", type=int, default=0, help="seed of everything (default 0)")
    p.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto (default auto)")
    p.set_defaults(handler=quickstart)


def sample(args: argparse.Namespace) -> int:
    from harken.core.extras import import_extra
    from harken.core.progress import progress
    from harken.core.settings import check_values
    from harken.launch.models import check_context
    from harken.launch.policies import open_sampler, steer
    from harken.store.files import check_out, read_prompts, write_jsonl
    check_values(vars(args))
    check_out(args.out, args.prompts)
    loaded = read_prompts(args.prompts, skip_bad=args.skip_bad)
    _say(loaded.describe())
    import_extra("harken.engines.sampler")
    sampler = open_sampler(args.model, dtype=args.dtype)
    steer(sampler, args.model, args.mode, args.tag)
    check_context(sampler, loaded.records, args.max_tokens)
    with progress("sampling", len(loaded.records)) as advance:
        found = sampler.sample(loaded.records, args.n, max_tokens=args.max_tokens, temperature=args.temperature,
                               top_p=args.top_p, seed=args.seed, advance=advance)
    steered = {"mode": args.mode or "own", "tag": args.tag} if getattr(sampler, "guide", None) else {}
    source = {"model": args.model, **steered, "temperature": args.temperature, "top_p": args.top_p, "seed": args.seed}
    write_jsonl(args.out, ({**p.to_json(), "completions": [s.text for s in group], "finished": [s.finished for s in group],
                            "source": source} for p, group in zip(loaded.records, found)))
    print(f"{args.out}: {args.n} completions of {len(found)} prompts")
    return 0


def score(args: argparse.Namespace) -> int:
    from harken.core.settings import check_values
    from harken.launch.rewards import open_reward
    from harken.stats.pairs import evaluate_pairs
    from harken.store.files import check_out, read_comparisons, write_jsonl
    check_values(vars(args))
    check_out(args.out, args.data)
    loaded = read_comparisons(args.data, skip_bad=args.skip_bad)
    _say(loaded.describe())
    reward = open_reward(args.reward, dtype=args.dtype, aggregate=args.aggregate)
    scores = reward.score([c.prompt for c in loaded.records], [c.options for c in loaded.records])
    rows = [{**c.to_json(), "scores": row} for c, row in zip(loaded.records, scores)]
    if args.explain:
        from harken.cli.rewards import explain
        rows = [{**row, "parts": parts} for row, parts in zip(rows, explain(reward, args.reward, loaded.records, scores))]
    write_jsonl(args.out, rows)
    print(f"{args.out}: {len(scores)} rankings scored")
    if any(row[i] is not None and row[j] is not None for c, row in zip(loaded.records, scores) for i, j in c.pairs()):
        found = evaluate_pairs(loaded.records, scores)
        print(f"  {found}" + (f"; {found.missing} pairs without a score" if found.missing else ""))
    elif any(c.has_preference for c in loaded.records):
        print("  No untied pair has both scores (the completions are too long for the reward): there is no accuracy.")
    else:
        print("  Every ranking is a tie: there is no accuracy.")
    return 0


EVALS = {"capability": ("model", "data", "out"), "win_rate": ("model", "prompts", "judge", "out")}


def run_eval(argv: list[str]) -> int:
    """`harken eval NAME …`: the evaluation's own Config makes the options."""
    from harken.cli.options import Parser, add_config, make_config, summary
    from harken.cli.show import show_result
    from harken.core.extras import import_extra
    from harken.launch.evaluate import evaluate as launch_evaluate
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: harken eval EVAL [options]\n\nevaluations:")
        for name in EVALS:
            print(f"  {name:14} {summary('evals', name)}")
        print("\nharken eval EVAL --help shows its options.")
        return 0
    if argv[0] not in EVALS:
        raise UserError(f"There is no evaluation {argv[0]!r}.", f"Evaluations: {', '.join(EVALS)}.")
    module = import_extra(f"harken.evals.{argv[0]}")
    parser = Parser(f"harken eval {argv[0]}", description=module.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser, module.Config, EVALS[argv[0]])
    config = make_config(module.Config, parser.parse_args(argv[1:]))
    run = launch_evaluate(argv[0], module, config)
    show_result(run.path, {k: v for k, v in run.result.items() if k != "samples"})
    return 0


def report(args: argparse.Namespace) -> int:
    from harken.report.build import build_report
    if args.out.exists() and not args.out.is_file() and not args.out.is_dir():
        raise UserError(f"{args.out} is not a file that can be replaced.", "Choose another --out.")
    print(f"{build_report(args.runs, args.out)}: open it in a browser")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """What is installed, which devices there are, where the default model is, and what is missing."""
    import platform
    print(f"harken {harken.__version__}, Python {platform.python_version()}, {platform.platform()}")
    wanted = {"base": ("numpy", "scipy", "sqlalchemy", "rich"), "train": ("torch", "transformers", "peft", "gguf")}
    for extra, packages in wanted.items():
        for package in packages:
            try:
                print(f"  {package:14} {importlib.metadata.version(package)}")
            except importlib.metadata.PackageNotFoundError:
                print(f"  {package:14} missing: pip install 'harken[{extra}]'")
    if importlib.util.find_spec("torch") is None:
        print("Training and sampling are off; labeling, importing and statistics work.")
        return 0
    import torch

    from harken.engines.hf import resolve_dtype
    from harken.engines.loading import cache_folder, smollm2_file
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"devices: {', '.join(devices) if devices else f'CPU, {torch.get_num_threads()} threads'}; "
          f"--dtype auto is {str(resolve_dtype('auto')).removeprefix('torch.')}")
    try:
        print(f"default model: {smollm2_file()}")
    except UserError as error:
        print(f"default model: {error}")
    print(f"converted models: {cache_folder()} ($HARKEN_CACHE moves it)")
    return 0


def quickstart(args: argparse.Namespace) -> int:
    from harken.core.extras import import_extra
    import_extra("harken.engines.hf")
    from harken.cli.quickstart import Quickstart
    Quickstart(args.out, args.model, args.seed, args.dtype).run()
    return 0


def _say(note: str | None) -> None:
    if note:
        print(visible(note), file=sys.stderr)
