"""`harken labelers`: how far each person behind a file of comparisons can be trusted, and in what sense not."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """\
Finds scores of completions and reliability of labelers together: whoever agrees with the others weighs more, whoever
answers upside down is found out. beta is 1 for the average labeler, 0 for a coin, below 0 for a reversed scale. People whose
votes lean one way together, beyond what quality explains, are named as a campaign.

FILE holds comparisons with "labeler" (any shape of harken import), or is a database of judgments, which also knows what
was shown first and how long it took: then pulls towards the first place are estimated too."""

EXAMPLES = """\
examples:
  harken labelers comparisons.jsonl
  harken labelers feedback.db --out labelers.html       the table and its picture as a page
  harken labelers comparisons.jsonl --effect --json     also what leaving each one out does to unseen votes"""


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `labelers`; it sets `handler`."""
    command = subparsers.add_parser("labelers", help="how far can each labeler be trusted?", description=HELP, epilog=EXAMPLES,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("file", metavar="FILE", help="comparisons (.jsonl, .jsonl.gz, .json) or a database (.db)")
    command.add_argument("--length", action="store_true", help="also estimate each one's pull towards length, beyond the crowd's")
    command.add_argument("--effect", action="store_true", help="also leave each labeler out and test on unseen votes (slower)")
    command.add_argument("--out", metavar="FILE", type=Path, help="write the picture (.svg) or the page (.html)")
    command.add_argument("--json", action="store_true", help="print everything as one JSON object")
    command.add_argument("--skip-bad", action="store_true", help="leave malformed lines out and count them")
    command.add_argument("--seed", type=int, default=0, help="seed of the folds (default 0)")
    command.set_defaults(handler=run_labelers)


def run_labelers(args: argparse.Namespace) -> int:
    """`harken labelers`."""
    from harken.cli import labelers_report  # NumPy and SciPy would slow the start of every other command
    return labelers_report.run(args)
