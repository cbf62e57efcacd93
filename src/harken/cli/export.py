"""`harken export`: judgments for other tools, and models for other libraries."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any

JUDGMENTS = {"comparisons": "rankings of completions, people's and imported", "demonstrations": "answers that people wrote",
             "ratings": "ratings of completions", "edits": "completions before and after", "prompts": "prompts that people wrote",
             "questions": "answers to a form's own questions"}
HELP = """\
Writes what counts: undone and withdrawn judgments, gold questions and repeats are left out. For training take a snapshot
instead (harken snapshot), which has a hash and is never overwritten; exports are for other tools. A model leaves as a folder that
transformers, peft, TRL, vLLM and llama.cpp read."""
EXAMPLES = """\
examples:
  harken export comparisons --out pairs.jsonl --shape trl       chosen and rejected, tied pairs left out
  harken export comparisons --out pairs.parquet --shape trl_ties
  harken export ratings --out ratings.jsonl --project helpful
  harken export model runs/rloo --out my-model --gguf F16       merged weights, tokenizer, stop tokens, model card"""
MODEL_HELP = """\
Writes a model as others load it: safetensors, tokenizer, chat template, generation_config and a model card from lineage. A
run's adapters are merged. A reward model becomes a sequence-classification model with one label. The same model gives the same
bytes."""
MODEL_EXAMPLES = """\
examples:
  harken export model runs/rloo --out my-model                  transformers and vLLM
  harken export model runs/rloo --out my-model --gguf Q8_0      and a file for llama.cpp
  harken export model runs/rloo --out my-adapter --no-merge     the adapter, those it stands on included
  harken export model runs/rm --out my-reward                   a reward for TRL"""

LOG_HELP = """\
Writes the items of a finished evaluation as others keep them. An item without a score stays without one. harken compare reads
Inspect's and lm-eval's back, and pairs them with the run itself."""
LOG_EXAMPLES = """\
examples:
  harken export log runs/truthful --to inspect --out truthful.eval      then: inspect view
  harken export log runs/truthful --to lm-eval --out out/
  harken export log runs/truthful --to every-eval-ever --out out/"""
LOGS = {"inspect": "log_writers.write_inspect", "lm-eval": "log_writers.write_lm_eval",
        "every-eval-ever": "log_writers.write_every_eval_ever", "alpaca-eval": "board_writers.write_alpaca_eval",
        "mt-bench": "board_writers.write_mt_bench", "arena": "board_writers.write_arena"}
"""Layouts, and what writes each: a file of `store` and a function."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command; each kind sets `handler`."""
    layout = argparse.RawDescriptionHelpFormatter
    p = commands.add_parser("export", help="write what was said, in Harken's shapes or TRL's, or a model as others load it",
                            description=HELP, epilog=EXAMPLES, formatter_class=layout)
    kinds = p.add_subparsers(title="what", metavar="WHAT", required=True)
    for what, summary in JUDGMENTS.items():
        k = kinds.add_parser(what, help=summary, description=HELP, formatter_class=layout)
        k.add_argument("--out", metavar="FILE", required=True, help=".jsonl, .jsonl.gz or .parquet")
        k.add_argument("--shape", choices=("harken", "trl", "trl_ties"), default="harken")
        k.add_argument("--project", metavar="NAME", help="only this project of the studio")
        k.add_argument("--purpose", choices=("train", "eval"), help="only projects of this purpose; imports count as train")
        k.add_argument("--db", metavar="FILE", default="feedback.db",
                       help="database: a file, or a postgresql:// address (default: feedback.db)")
        k.set_defaults(handler=export_judgments, what=what)
    k = kinds.add_parser("model", help="a model, for transformers, peft, TRL, vLLM, llama.cpp", description=MODEL_HELP,
                         epilog=MODEL_EXAMPLES, formatter_class=layout)
    k.add_argument("model", metavar="RUN", help="a run, or whatever --model takes that has weights")
    k.add_argument("--out", metavar="FOLDER", required=True, help="new folder")
    k.add_argument("--merge", action=argparse.BooleanOptionalAction, default=True,
                   help="whole weights (the default), or a run's adapter alone")
    k.add_argument("--gguf", metavar="FORMAT", default="", help="a GGUF file besides: F16, Q8_0, or F32 (exact)")
    k.add_argument("--push", metavar="REPO", default="", help="upload it all to this hub repository, private where it is new")
    k.add_argument("--eval", action="append", default=[], metavar="RUN", dest="evaluations",
                   help="a run of harken eval on this model, for the card's figures; may be given more than once")
    k.add_argument("--labelers", action="store_true", help="let the card name the labelers")
    k.set_defaults(handler=export_model)
    k = kinds.add_parser("log", help="an evaluation's items, for Inspect's viewer, lm-eval, Every Eval Ever",
                         description=LOG_HELP, epilog=LOG_EXAMPLES, formatter_class=layout)
    k.add_argument("run", metavar="RUN", help="a finished run of harken eval")
    k.add_argument("--to", choices=tuple(LOGS), required=True, help="whose layout")
    k.add_argument("--out", metavar="PATH", required=True, help="folder to write into; an .eval file may be named itself")
    k.set_defaults(handler=export_log)


def export_judgments(args: argparse.Namespace) -> int:
    """`harken export comparisons` and its like."""
    from harken.cli.data import project_number
    from harken.store.database import open_database
    from harken.store.remote import delivered
    from harken.studio.work.exports import export_rows, write_rows
    with open_database(args.db, create=False) as db:
        project = project_number(db, args.project)
        with delivered(args.out) as path:
            rows = write_rows(path, export_rows(db, args.what, args.shape, project=project, purpose=args.purpose))
        mixed = {} if args.purpose or project else _purposes(db)
    print(f"Wrote {rows:,} rows to {args.out}")
    if len(mixed) > 1:
        print(f"  It mixes projects for training and for evaluation ({', '.join(mixed)}), which were asked with different "
              "priorities. Take one with --purpose.", file=sys.stderr)
    return 0


def _purposes(db: Any) -> list[str]:
    from sqlalchemy import select

    from harken.store.studio_schema import projects
    with db.link.reading() as tx:
        return sorted(tx.scalars(select(projects.c.purpose).where(projects.c.items_done > 0).distinct()))


def export_model(args: argparse.Namespace) -> int:
    """`harken export model`."""
    from harken.launch.export import export
    folder = export(args.model, args.out, merge=args.merge, gguf=args.gguf, push=args.push, evaluations=args.evaluations,
                    labelers=args.labelers)
    for file in sorted(folder.iterdir()):
        print(f"  {file.name:28}{file.stat().st_size:>14,} bytes")
    print(f"{args.model} is in {folder}" + (f" and at {args.push}" if args.push else ""))
    return 0


def export_log(args: argparse.Namespace) -> int:
    """`harken export log`."""
    module, _, function = LOGS[args.to].partition(".")
    for file in getattr(import_module(f"harken.store.{module}"), function)(args.run, args.out):
        print(f"Wrote {file}")
    return 0
