"""`harken aggregate`: one label an item from many people's."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harken.core.errors import UserError
from harken.core.terminal import one_line

if TYPE_CHECKING:  # NumPy and SciPy would slow the start of every other command
    from harken.labelers.ratings import Ratings

HELP = """\
One label for each item from several people's, with how sure it is.

  majority      the commonest label; a draw has none. The share's interval is Wilson's
  dawid_skene   each labeler has a confusion matrix, each item a true class; EM finds both
  glad          one ability a labeler, one difficulty an item

Rows are {"item", "label", "labeler"} or {"prompt", "completion", "score", "labeler"}; a labeler's last answer counts."""

EXAMPLES = """\
examples:
  harken aggregate labels.jsonl --method dawid_skene --out agreed.jsonl
  harken aggregate labels.jsonl --method majority --json"""


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `aggregate`; it sets `handler`."""
    command = subparsers.add_parser("aggregate", help="one label an item from many people's", description=HELP,
                                    epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("file", metavar="FILE", help="labels (.jsonl, .jsonl.gz, .json)")
    command.add_argument("--method", choices=("majority", "dawid_skene", "glad"), default="majority",
                         help="how (default majority)")
    command.add_argument("--field", metavar="NAME", help="the field that holds a label")
    command.add_argument("--out", metavar="FILE", type=Path, help="write an item a line: its label, how sure, its chances")
    command.add_argument("--json", action="store_true", help="print everything as one JSON object")
    command.set_defaults(handler=run_aggregate)


def run_aggregate(args: argparse.Namespace) -> int:
    """`harken aggregate`."""
    from harken.cli.agreement import read_ratings
    from harken.store.files import check_out, read_rows, write_jsonl
    if args.out:
        check_out(args.out, args.file)
    items: list[Any] = []
    ratings = read_ratings(args.file, read_rows(args.file), args.field, items)
    try:
        rows, people = (_majority if args.method == "majority" else _model)(ratings, items, args.method)
    except ValueError as error:
        raise UserError(f"{args.file}: {error}.", "Give labels of two kinds at least.") from None
    if args.out:
        write_jsonl(args.out, rows)
    settled = [r["label"] for r in rows if r["label"] is not None]
    result = {"file": args.file, "method": args.method, "items": len(rows), "labelers": len(ratings.raters),
              "labels": len(ratings), "undecided": len(rows) - len(settled),
              "counts": {name: settled.count(name) for name in ratings.names}, "reliability": people}
    print(json.dumps({**result, "rows": rows}) if args.json else text_of(result, args.out))
    return 0


def _majority(ratings: Ratings, items: list[Any], _: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from harken.stats.intervals import wilson
    counts_UV = ratings.latest().counts()
    rows = []
    for item, row in zip(items, counts_UV):
        n, most = int(row.sum()), row.max()
        best = [ratings.names[v] for v in (row == most).nonzero()[0]]
        share = wilson(float(most), n)
        rows.append({**item, "label": best[0] if len(best) == 1 else None, "sure": share.to_json(), "labels": n,
                     **({"draw": best} if len(best) > 1 else {})})
    return rows, {}


def _model(ratings: Ratings, items: list[Any], method: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    if method == "glad":
        from harken.labelers.models.glad import fit_glad
        able = fit_glad(ratings)
        posterior, labels = able.posterior_UK, able.labels()
        people: dict[str, Any] = {who: {"ability": e.to_json()} for who, e in able.ability().items()}
    else:
        from harken.labelers.models.dawid_skene import fit_dawid_skene
        model = fit_dawid_skene(ratings)
        posterior, labels = model.posterior_UK, model.labels()
        people = {who: r.to_json() for who, r in model.accuracy().items()}
    counts = ratings.latest().counts().sum(1)
    return [{**item, "label": label, "sure": float(p.max()), "labels": int(n),
             "chances": {name: round(float(x), 6) for name, x in zip(ratings.names, p)}}
            for item, label, p, n in zip(items, labels, posterior, counts)], people


def text_of(result: dict[str, Any], out: Path | None) -> str:
    """The outcome for a terminal."""
    lines = [f"{result['file']}: {result['labels']:,} labels of {result['items']:,} items by {result['labelers']:,} people",
             f"  {result['method']}: " + ", ".join(f"{one_line(name)} {n:,}" for name, n in result["counts"].items())
             + (f"; {result['undecided']:,} draws have no label" if result["undecided"] else "")]
    if result["reliability"]:
        kind = "ability" if result["method"] == "glad" else "accuracy"
        lines += ["", f"least reliable ({'0 is chance' if kind == 'ability' else 'balanced accuracy, 95 % interval'})"]
        worst = sorted(result["reliability"].items(), key=lambda x: x[1][kind]["high"])[:8]
        for who, r in worst:
            e = r[kind]
            lines.append(f"  {one_line(who)[:24]:24} {e['value']:6.2f}  [{e['low']:.2f}, {e['high']:.2f}]  {e['n']:,} labels"
                         + (f"  {r['verdict']}" if "verdict" in r else ""))
    if out:
        lines.append(f"{out}: an item a line")
    return "\n".join(lines)
