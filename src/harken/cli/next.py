"""`harken next`: which questions to ask people next, by what their answers would teach for a second of reading."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harken.core.errors import UserError

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
MOST = 9


def add_commands(commands: Any) -> None:
    """Adds `next`; sets `handler`."""
    p = commands.add_parser("next", help="choose the questions that teach most", description=HELP, epilog=EXAMPLES,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", metavar="FILE", nargs="?", help="comparisons so far (or --db)")
    p.add_argument("--db", help="feedback database: its judgments, their seconds, without --candidates all its answers")
    p.add_argument("--candidates", help="JSON Lines of prompt and completions, as harken sample writes")
    p.add_argument("--out", required=True, type=Path, help="file to write: a question a line, the best first")
    p.add_argument("--n", type=int, default=20, help="questions (default 20)")
    p.add_argument("--most", type=int, default=2, help=f"options of a question at most, to {MOST} (default 2: pairs)")
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
    from harken.launch.next import choose  # NumPy and SciPy would slow the start of every other command
    return choose(args)


def _check(args: argparse.Namespace) -> None:
    from harken.store.files import check_out
    for name, low, high in (("n", 1, 10**6), ("most", 2, MOST), ("dimensions", 11, 512)):
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
