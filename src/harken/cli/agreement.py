"""`harken agreement`: do the people behind a file of judgments agree beyond chance?"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harken.core.errors import UserError
from harken.core.terminal import one_line

if TYPE_CHECKING:  # NumPy and SciPy would slow the start of every other command
    from harken.core.protocols import Estimate
    from harken.labelers.agreement.coefficients import Agreement
    from harken.labelers.agreement.pairwise import Matrix
    from harken.labelers.agreement.summary import Summary
    from harken.labelers.ratings import Ratings

HELP = """\
How far the people behind a file agree, each figure with its 95 % interval and what chance would give.

  comparisons  rows in any shape of harken import, with "labeler"; pairs of a ranking are drawn prompt by prompt
  ratings      {"prompt", "completion", "score", "labeler"}, or {"item", "label", "labeler"} for any items
  a database   its judgments, with the order things were shown in: mirrored repeats are told apart

"score", "rating", "label" or "value" holds the rating: a number or a word; --field names another."""

EXAMPLES = """\
examples:
  harken agreement comparisons.jsonl
  harken agreement feedback.db --json
  harken agreement ratings.jsonl --scale ordinal --svg matrix.svg"""

NAMES = {"percent": "raw agreement", "cohen": "Cohen's kappa", "fleiss": "Fleiss' kappa", "alpha": "Krippendorff's alpha",
         "gwet": "Gwet's AC1", "kendall_tau": "Kendall's tau-b", "kendall_w": "Kendall's W", "repeated": "the same pair again",
         "same order": "shown in the same order", "mirrored": "shown mirrored"}
SCALES = ("nominal", "linear", "ordinal", "interval", "ratio", "quadratic")
FIELDS = ("score", "rating", "label", "value")
OVERLAP = "Give some of the same prompts to two or more people: four hundred shared pairs tell kappa to about ±0.1."
NAMELESS = 'Add "labeler": "a7" (any name or number) to each row.'
FEW_ITEMS = 20
"""With fewer items, or prompts, intervals are called rough."""
SHOWN = 12


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `agreement`; it sets `handler`."""
    command = subparsers.add_parser("agreement", help="do the labelers agree, beyond chance?", description=HELP, epilog=EXAMPLES,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("file", metavar="FILE", help="comparisons or ratings (.jsonl, .jsonl.gz, .json), or a database (.db)")
    command.add_argument("--scale", choices=SCALES, default="nominal",
                         help="how ratings differ: nominal (any two alike), ordinal, interval … (default nominal)")
    command.add_argument("--field", metavar="NAME", help="the field that holds a rating")
    command.add_argument("--judge", metavar="NAME",
                         help="a labeler that is a judge: its votes against people's, both orders joined")
    command.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default 0)")
    command.add_argument("--svg", metavar="FILE", type=Path, help="draw the labeler matrix into this file")
    command.add_argument("--json", action="store_true", help="print everything as one JSON object")
    command.set_defaults(handler=run_agreement)


def run_agreement(args: argparse.Namespace) -> int:
    """`harken agreement`."""
    from harken.core.progress import waiting
    from harken.draw.matrix import matrix_svg
    from harken.store.files import check_out, write_text
    if args.svg:
        check_out(args.svg, args.file, "--svg")
    extra: dict[str, Any] = {}
    try:
        with waiting("reading and counting", 1):
            summary = _summary(args, extra)
    except ValueError as error:
        raise UserError(f"{args.file}: {error}.", OVERLAP) from None
    if args.svg:
        if summary is None or summary.matrix is None:
            raise UserError(f"{args.file}: no two people share an item, so there is no matrix to draw.", OVERLAP)
        write_text(args.svg, matrix_svg(summary.matrix, f"Cohen's kappa of every two labelers, {Path(args.file).name}"))
    if args.json:
        print(json.dumps({"file": args.file, **(summary.to_json() if summary else {}), **extra}))
    else:
        alone = f"{args.file}: no two people judged the same pair, so people cannot be compared with each other."
        print("\n".join([text_of(summary, args.file) if summary else alone, *_couples(extra)]))
    return 0


def _summary(args: argparse.Namespace, extra: dict[str, Any]) -> Summary | None:
    """None where only a judge and people overlap, not people with each other."""
    from harken.labelers.agreement.summary import summary_of_ratings
    from harken.store.files import read_comparisons, read_rows
    name = str(args.file)
    if name.endswith((".db", ".sqlite")) or "://" in name:
        from harken.store.database import open_database
        with open_database(name, create=False) as db:
            judgments = list(db.judgments())
        if any("ranks" in j.payload for j in judgments):
            return _comparisons(judgments, args, extra)
        rated = [{**j.payload, "prompt": j.prompt.id, "labeler": j.labeler} for j in judgments if j.kind == "rating"]
        return summary_of_ratings(_ratings(name, enumerate(rated, 1), args.field), args.scale, seed=args.seed)
    first = next(iter(read_rows(name)), (0, {}))[1]
    if (args.field or _field(first)) and not {"completions", "chosen"} & set(first):
        return summary_of_ratings(_ratings(name, read_rows(name), args.field), args.scale, seed=args.seed)
    return _comparisons(read_comparisons(name).records, args, extra)


def _comparisons(judgments: Any, args: argparse.Namespace, extra: dict[str, Any]) -> Summary | None:
    from harken.cli.couples import by_couples, by_judge
    from harken.labelers.agreement.summary import summary_of_comparisons
    if not any(one.labeler for one in judgments):
        raise UserError(f"{args.file} names no labeler: two people who differ look like one who changes his mind.",
                        NAMELESS)
    if args.scale != "nominal" or args.field:
        raise UserError(f"{args.file} holds comparisons, which have no scale and no field.", "Leave --scale and --field out.")
    judgments = [one_spelled(one) for one in judgments]
    people = {one.labeler for one in judgments if one.labeler}
    args.judge = unicodedata.normalize("NFC", args.judge) if args.judge else args.judge
    if args.judge:
        extra["judge"] = by_judge(judgments, args.judge, str(args.file))
        judgments = [one for one in judgments if one.labeler != args.judge]
        people.discard(args.judge)
    extra["couples"] = by_couples(judgments)
    try:
        return summary_of_comparisons(judgments, seed=args.seed)
    except ValueError:
        if args.judge:
            return None
        if len(people) == 1:
            raise UserError(f"{args.file}: all {len(judgments):,} judgments are by {people.pop()}: agreement takes two people.",
                            OVERLAP) from None
        raise


def one_spelled(judgment: Any) -> Any:
    """With its labeler's name in one spelling: canonically equal names are one person."""
    name = unicodedata.normalize("NFC", judgment.labeler or "")
    return judgment if name == (judgment.labeler or "") else dataclasses.replace(judgment, labeler=name)


def _field(row: Mapping[str, Any]) -> str | None:
    return next((f for f in FIELDS if f in row), None)


def _ratings(name: str, rows: Any, field: str | None) -> Ratings:
    """Ratings of two people or more, or of one who was asked again."""
    ratings = read_ratings(name, rows, field)
    if len(ratings.raters) == 1 and not len(ratings.repeats()):
        raise UserError(f"{name}: all {len(ratings):,} ratings are by {ratings.raters[0]}: agreement takes two people.", OVERLAP)
    return ratings


def read_ratings(name: str, rows: Any, field: str | None, items: list[dict[str, Any]] | None = None) -> Ratings:
    """Ratings of a file's rows; rows without a value (null) are left out. Each unit's item is appended to `items`."""
    from harken.labelers.ratings import ratings_of
    from harken.store.verdicts import one_spelling
    people: set[Any] = set()
    rated: list[tuple[Any, str, float | str]] = []
    clusters: list[str] = []
    unnamed = 0
    for line, row in rows:
        chosen = field or _field(row)
        if chosen is None or chosen not in row:
            raise UserError(f"{name}, line {line}: no {field or 'score, rating, label or value'} in this row.",
                            "Name the field that holds the rating: --field NAME.")
        value, item = row[chosen], row.get("item", row.get("prompt"))
        if item is None:
            raise UserError(f'{name}, line {line}: neither "item" nor "prompt" says what was rated.', "Add one of them.")
        if value is None:
            continue
        if isinstance(value, (list, dict)):
            raise UserError(f'{name}, line {line}: "{chosen}" must be a number or a word, found {type(value).__name__}.',
                            "Name the field that holds the rating: --field NAME.")
        if row.get("labeler") is None:
            unnamed += 1
            continue
        prompt = one_spelling(json.dumps(item, sort_keys=True, ensure_ascii=False))
        answer = row.get("completion")
        unit = (prompt, answer if answer is None else one_spelling(json.dumps(answer, sort_keys=True, ensure_ascii=False)))
        if items is not None and unit not in people:
            people.add(unit)
            items.append({k: row[k] for k in ("item", "prompt", "completion") if k in row})
        rated.append((unit, one_spelling(str(row["labeler"])), one_spelling(value) if isinstance(value, str) else _finite(value)))
        clusters.append(prompt)
    if not rated:
        if not unnamed:
            raise UserError(f"{name} holds no ratings and no rankings.", "Collect some, or name another file.")
        raise UserError(f"{name}: none of its {unnamed:,} ratings names a labeler.", NAMELESS)
    try:
        return ratings_of(rated, clusters=clusters)
    except ValueError as error:
        raise UserError(f"{name}: {error}.", "Give all ratings on one scale.") from None


def _finite(value: float) -> float:
    """As a float; a whole number beyond all floats is infinite, and refused as that."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _couples(extra: Mapping[str, Any]) -> list[str]:
    """What `harken.cli.couples` found, for a terminal."""
    from harken.cli.couples import lines
    return lines(extra)


def text_of(summary: Summary, name: str) -> str:
    """The summary for a terminal."""
    counts = dict(summary.counts)
    ties = counts.pop("ties", None)
    lines = [f"{name}: " + ", ".join(f"{int(n):,} {what}" for what, n in counts.items() if n)
             + (f", {ties:.0%} ties" if ties is not None else "")]
    sections = (("all answers", summary.measures), ("without ties", summary.without_ties),
                ("rankings of three or more", summary.rankings), ("people with themselves", summary.self_consistency))
    for title, table in sections:
        if table:
            lines += ["", f"{title:26} value  95 % interval     chance  n"]
            lines += [_line(NAMES[key], agreement) for key, agreement in table.items()]
    clusters = min((a.value.n for a in summary.measures.values() if a), default=FEW_ITEMS)
    if clusters < FEW_ITEMS:
        lines.append(f"\n  Only {clusters} independent prompts or items: read the intervals as rough.")
    if summary.measures and ties is not None:
        lines += ["", *_published()]
    if summary.matrix:
        lines += ["", *_matrix(summary.matrix), *_least(summary.by_labeler)]
    return "\n".join(lines)


def _line(name: str, agreement: Agreement | None) -> str:
    if agreement is None:
        return f"  {name:24} undefined: every answer is the same"
    e = agreement.value
    return f"  {name:24} {_number(e.value)}  [{_number(e.low)}, {_number(e.high)}]  {_number(agreement.chance)}  {e.n:,}"


def _number(x: float) -> str:
    return f"{x:6.3f}".replace("-", "−")


def _published() -> list[str]:
    from harken.labelers.agreement.summary import PUBLISHED
    rates = {who: rate for who, rate in PUBLISHED.items() if isinstance(rate, dict)}
    return [f"to compare, raw agreement in InstructGPT ({PUBLISHED['source']}):",
            *(f"  {who:38} {100 * r['percent']:.1f} ± {100 * r['plus_minus']:.1f} %" for who, r in rates.items())]


def _matrix(table: Matrix) -> list[str]:
    names = [one_line(name) for name in table.raters[:SHOWN]]
    wide = max(len(n[:12]) for n in names)
    lines = ["labeler by labeler: Cohen's kappa and, after the slash, items shared"
             + (f" ({len(names)} of those with most)" if len(table.raters) > len(names) else "")]
    lines.append("  " + " " * wide + "".join(f"{n[:9]:>11}" for n in names))
    for i, name in enumerate(names):
        cells = [f"{'·':>11}" if i == j else f"{_kappa(table.kappa[i, j])}/{table.shared[i, j]:<4}".rjust(11)
                 for j in range(len(names))]
        lines.append((f"  {name[:12]:{wide}}" + "".join(cells)).rstrip())
    return lines


def _kappa(x: float) -> str:
    return "–" if math.isnan(x) else f"{round(x, 2) + 0.0:.2f}".replace("-", "−")


def _least(by_labeler: Mapping[str, Estimate]) -> list[str]:
    """Who agrees least with the others, by the upper end of the interval: a low value from few items proves little."""
    if len(by_labeler) < 3:
        return []
    lowest = sorted(by_labeler.items(), key=lambda x: x[1].high)[:5]
    return ["", "least agreement with the others",
            *(f"  {one_line(name)[:24]:24} {_number(e.value)}  [{_number(e.low)}, {_number(e.high)}]  {e.n:,}"
              for name, e in lowest)]
