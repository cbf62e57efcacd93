"""`harken next`: which questions to ask people next, by what their answers would teach for a second of reading."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.records import Choice, Judgment, Prompt

HELP = """\
Chooses the pairs (or, with --most, the sets to rank) whose answers are expected to teach most about what people prefer,
for each second they take to read. What is known comes from the feedback so far and features of the texts (no model is
needed; --reward adds a reward model's scores). Without any feedback it chooses answers that differ most."""

EXAMPLES = """\
examples:
  harken next comparisons.jsonl --candidates samples.jsonl --n 20 --out queue.jsonl
  harken next --db feedback.db --candidates samples.jsonl --most 6 --out queue.jsonl   rankings of 2 to 6
  harken next --db feedback.db --assign --out queue.jsonl                              and whom to ask"""

STRATEGIES = ("bald", "d_optimal", "random", "margin", "diversity", "thompson")
MOST_OPTIONS = 9


def add_commands(commands: Any) -> None:
    """Adds `next`; sets `handler`."""
    p = commands.add_parser("next", help="choose the questions that teach most", description=HELP, epilog=EXAMPLES,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", metavar="FILE", nargs="?", help="comparisons so far (or --db)")
    p.add_argument("--db", help="feedback database: its judgments, their seconds, without --candidates all its answers")
    p.add_argument("--candidates", help="JSON Lines of prompt and completions, as harken sample writes")
    p.add_argument("--out", required=True, type=Path, help="file to write: a question a line, the best first")
    p.add_argument("--n", type=int, default=20, help="questions (default 20)")
    p.add_argument("--most", type=int, default=2, help=f"options of a question at most, to {MOST_OPTIONS} (default 2: pairs)")
    p.add_argument("--assign", action="store_true", help="choose for whom, too: at most twice an equal share each (pairs only)")
    p.add_argument("--strategy", choices=STRATEGIES, default="bald", help="how pairs are chosen (default bald)")
    p.add_argument("--explore", type=float, default=0.25, help="share of pairs picked at random, as a check (default 0.25)")
    p.add_argument("--threshold", type=float, default=0.9, help="a pair this surely decided is not asked again (default 0.9)")
    p.add_argument("--reward", help="a reward_model run: its scores become a feature")
    p.add_argument("--dimensions", type=int, default=32, help="features of the texts (default 32)")
    p.add_argument("--seed", type=int, default=0, help="seed of random choices (default 0)")
    p.set_defaults(handler=run_next)


def run_next(args: argparse.Namespace) -> int:
    """`harken next`."""
    _check(args)
    # NumPy and SciPy would slow the start of every other command
    from harken.core.progress import waiting
    from harken.launch.next import gather, questions
    from harken.store.files import write_jsonl
    with waiting("reading", 1):
        pool, candidate = gather(*_given(args))
    rows, random = questions(pool, candidate, args)
    write_jsonl(args.out, rows)
    votes = pool.votes
    feedback = f"{len(votes):,} votes of {len(votes.labelers)} labelers" if votes is not None else "no feedback yet"
    print(f"{args.out}: {len(rows)} questions from {int(candidate.sum()):,} answers to {len(pool.prompts):,} prompts; {feedback}")
    chosen = (sum(r["information"] for r in rows), sum(r["seconds"] for r in rows))
    for name, (nats, seconds) in (("chosen", chosen), ("random", random)):
        rate = 60 * nats / max(seconds, 1e-9)
        print(f"  {name}: {nats:.2f} nats expected in {seconds / 60:.1f} minutes of reading ({rate:.2f} a minute)")
    return 0


def _given(args: argparse.Namespace) -> tuple[list[Choice] | list[Judgment], list[tuple[Prompt, list[str]]]]:
    """(feedback, answers that may be asked about) of the files and the database."""
    from harken.store.files import read_comparisons
    feedback: list[Choice] | list[Judgment] = []
    offered: list[tuple[Prompt, list[str]]] = []
    if args.db:
        from harken.store.database import open_database
        with open_database(args.db, create=False) as db:
            feedback = list(db.judgments())
            if not args.candidates:
                offered = [(p, [c.text for c in db.completions(p.id)]) for p in db.prompts()]
                # A database filled by harken import holds what was compared inside its judgments only.
                offered += [(c.prompt, list(c.options)) for j in feedback if (c := j.choice()) is not None]
    elif args.file:
        feedback = read_comparisons(args.file).records
    if args.candidates:
        offered = list(read_samples(Path(args.candidates)))
    return feedback, offered


def read_samples(path: Path) -> Iterator[tuple[Prompt, list[str]]]:
    """Rows of {"prompt": …, "completions": [str, …]}; other fields are left alone."""
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "harken sample writes one.")
    from harken.store.files import read_rows
    for number, row in read_rows(path):
        try:
            answers = row.get("completions")
            if not isinstance(answers, list) or not all(isinstance(t, str) for t in answers):
                raise ValueError('"completions" must be a list of strings')
            yield Prompt.from_json(row), answers
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}.",
                            'A row is {"prompt": "…", "completions": ["…", "…"]}, as harken sample writes.') from None


def _check(args: argparse.Namespace) -> None:
    from harken.store.files import check_out
    for name, low, high in (("n", 1, 10**6), ("most", 2, MOST_OPTIONS), ("dimensions", 11, 512)):
        if not low <= getattr(args, name) <= high:
            raise UserError(f"--{name} must lie between {low} and {high}, found {getattr(args, name)}.", "Choose another.")
    if not 0 <= args.explore <= 1:
        raise UserError(f"--explore must lie between 0 and 1, found {args.explore}.", "It is the share of random picks.")
    if not 0.5 <= args.threshold < 1:
        raise UserError(f"--threshold must be at least 0.5 and below 1, found {args.threshold}.", "0.9 is a good start.")
    if not args.candidates and not args.db:
        raise UserError("There is nothing to choose from.", "Give --candidates samples.jsonl (harken sample), or --db.")
    if args.file and args.db:
        raise UserError("Feedback comes from FILE or from --db, not from both.", "Leave one out.")
    if args.assign and args.most > 2:
        raise UserError("--assign chooses pairs only.", "Leave out --most or --assign.")
    check_out(args.out, args.candidates or args.db)
