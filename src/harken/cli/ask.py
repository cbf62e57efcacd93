"""`harken ask`: prompts, and answers of models, into a project of the studio."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harken.cli.options import add_db
from harken.core.config import MAX_TOKENS
from harken.core.errors import UserError
from harken.store.connection import masked

ASK_HELP = """\
Puts what is to be judged into a project. Items of the file that are there already are not added again. Each answer's
source is kept in the database and never shown to labelers."""
ASK_EXAMPLES = """\
examples:
  harken ask prompts.jsonl --project helpful --kind rate_and_rank --overlap 2 --model runs/sft
  harken ask sft.jsonl ppo.jsonl --project better --kind compare     what harken sample wrote, of two models
  harken ask prompts.jsonl --project write --kind demonstrate
  harken ask prompts.jsonl --project helpful --kind compare --endpoint http://localhost:8000/v1 --model my-model --n 2"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command; it sets `handler`."""
    p = commands.add_parser("ask", help="put prompts and completions of a file into a project of the studio",
                            description=ASK_HELP, epilog=ASK_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.fill = _ask_options  # type: ignore[attr-defined]  # every parser of `cli` has it
    p.set_defaults(handler=ask)


def _ask_options(p: argparse.ArgumentParser) -> None:
    """Options of `harken ask`; the kinds are the studio's own list of them."""
    from harken.studio.tasks import KINDS
    p.add_argument("files", metavar="FILE", nargs="+", help="items, prompts, comparisons, or what harken sample wrote; of "
                   "several files, answers to equal prompts come together")
    p.add_argument("--project", metavar="NAME", required=True, help="made if it is new")
    p.add_argument("--kind", choices=KINDS, help="of a new project")
    p.add_argument("--overlap", type=int, help="answers for each item, of a new project (default: 1)")
    p.add_argument("--purpose", choices=("train", "eval"), default="train", help="of a new project (default: train)")
    p.add_argument("--model", help="let it answer the prompts first: a run directory or whatever harken sample takes; with "
                   "--endpoint its name there")
    p.add_argument("--endpoint", metavar="URL", help="ask the model at this OpenAI-compatible /v1 address")
    p.add_argument("--n", type=int, help="answers to each prompt (default: 4; of a comparison 2, to improve 1)")
    p.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help=f"longest answer in tokens (default: {MAX_TOKENS})")
    p.add_argument("--temperature", type=float, default=1.0, help="of sampling (default: 1.0)")
    add_db(p)


def ask(args: argparse.Namespace) -> int:
    """`harken ask`."""
    import secrets
    from collections import Counter
    from datetime import UTC, datetime

    from harken.store.database import open_database
    from harken.store.remote import fetched, is_address
    from harken.studio.work import projects
    from harken.studio.work.uploads import read_items
    from harken.web.errors import ApiError
    now = datetime.now(UTC)
    if args.endpoint and not args.model:
        raise UserError("--endpoint needs --model.", "harken ask --help shows an example.")
    with open_database(args.db) as db:
        with db.link.reading() as tx:
            project = projects.find_named(tx, args.project)
        kind = project.kind if project else args.kind
        if not kind:
            raise UserError(f"There is no project {args.project!r} yet.", "Give --kind to make it.")
        if args.kind not in (None, kind):
            raise UserError(f"{args.project} asks people to {kind}, not to {args.kind}.",
                            "Leave --kind away, or name another project.")
        notes: Counter[str] = Counter()
        items = (
            generated(args, kind)
            if args.model
            else read_items([fetched(f) if is_address(f) else Path(f) for f in args.files], notes)
        )
        try:
            with db.link.writing() as tx:
                project = projects.find_named(tx, args.project)
                wanted = {"name": args.project, "kind": args.kind, "purpose": args.purpose, "overlap": args.overlap or 1}
                number = project.id if project else projects.create_project(tx, wanted, now, seed=secrets.randbelow(2**53))
                result = projects.add_items(tx, number, items, now)
        except ApiError as error:
            raise UserError(error.message, error.hint) from None
    new = "" if project else f", a new project ({args.kind})"
    print(f"Added {result['added']:,} items to {args.project} in {masked(args.db)}{new}")
    for note in notes:
        print(f"  {note.replace(', or name the encoding with --encoding', '')}")
    if result["already"]:
        print(f"  {result['already']:,} were there already")
    if result["names_its_maker"]:
        print(f"  {result['names_its_maker']:,} have an answer that says which model wrote it: labelers are not blind to those")
    if result["repeats_an_answer"]:
        print(f"  {result['repeats_an_answer']:,} with the same completion twice: labelers will compare an answer with itself")
    print(f"Next: harken studio --db {masked(args.db)}")
    return 0


def generated(args: argparse.Namespace, kind: str) -> list[dict[str, Any]]:
    """Items of a kind, made of the files' prompts and a model's answers to them."""
    from harken.store.files import read_prompts
    from harken.studio.tasks import TASKS
    fewest, most = TASKS[kind].completions
    n = args.n if args.n is not None else min(4, most)
    if not most or not fewest <= n <= most:  # before the model works for nothing
        raise UserError(f'"{kind}" takes no answers of a model.' if not most else
                        f'"{kind}" takes {f"{fewest} to {most}" if fewest < most else most} answers to a prompt, --n says {n}.',
                        "Leave --model away." if not most else "Give another --n, or none.")
    prompts = [prompt for path in args.files for prompt in read_prompts(path, further=False).records]
    source = f"{args.model}{f' at {args.endpoint}' if args.endpoint else ''}, temperature {args.temperature}, " \
             f"max_tokens {args.max_tokens}"
    items, empty = [], 0
    for prompt, texts in zip(prompts, _answers(args, prompts, n)):
        if not all(texts):
            empty += 1
            continue
        row = {("prompt_kind" if k == "kind" else k): v for k, v in prompt.to_json().items()}
        items.append(row | {"completions": [{"text": t, "source": source} for t in texts]})
    if empty:
        print(f"  {empty:,} prompt{'s are' if empty != 1 else ' is'} left out: the model gave an empty answer")
    return items


def _answers(args: argparse.Namespace, prompts: list[Any], n: int) -> list[list[str]]:
    """`n` answers to each prompt."""
    if not args.endpoint:
        from harken.launch.models import check_context
        from harken.launch.policies import open_sampler
        sampler = open_sampler(args.model)
        check_context(sampler, prompts, args.max_tokens)
        groups = sampler.sample(prompts, n, max_tokens=args.max_tokens, temperature=args.temperature, seed=0)
        return [[sample.text for sample in group] for group in groups]
    from harken.engines.openai import EndpointSampler
    served = EndpointSampler(args.endpoint, args.model)
    # One at a time, each with its own seed: not every server honours "n".
    rounds = [served.sample(prompts, 1, max_tokens=args.max_tokens, temperature=args.temperature, seed=1000 * k)
              for k in range(n)]
    return [[group[at][0].text for group in rounds] for at in range(len(prompts))]
