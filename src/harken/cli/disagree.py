"""`harken disagree`: how much disagreement is noise, how much a difference of values, between whom, and on what."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.terminal import one_line

HELP = """\
Reads comparisons by named people and says what their disagreement is made of. Noise is what people of one group differ in
(carelessness, near ties, the place on the screen); a difference of values is what lies between groups. Groups are given by
a tag (--group-by age) or looked for in the votes. Where one group suffices, it says so."""

EXAMPLES = """\
examples:
  harken disagree comparisons.jsonl                            are there kinds of people at all?
  harken disagree comparisons.jsonl --group-by age             do age groups differ, and on which answers?
  harken disagree comparisons.jsonl --group-by age --aggregate worst --json found.json
  harken disagree comparisons.jsonl --group-by age --jury "age=30-39:4,age=60+:2" --json found.json"""


def add_commands(commands: Any) -> None:
    """Registers `disagree`; it sets `handler(args) -> exit status`."""
    p = commands.add_parser("disagree", help="tell noise from differences of values between people", description=HELP,
                            epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", metavar="FILE", help="JSON Lines file of comparisons with labelers")
    p.add_argument("--group-by", metavar="TAG", help="group tag that divides the people (default: look for groups in the votes)")
    p.add_argument("--most", type=int, default=3, help="most groups to look for (default 3)")
    p.add_argument("--show", type=int, default=10, help="items to print (default 10)")
    p.add_argument("--permutations", type=int, default=999, help="of the test with --group-by (default 999)")
    p.add_argument("--aggregate", default="mean", metavar="WAY",
                   help="one score of the groups' for --json: mean, group:NAME, worst, quantile:0.2 (default mean)")
    p.add_argument("--jury", metavar="SEATS", help='whose judgments count in it: "age=30-39:4,age=60+:2" (default: everybody)')
    p.add_argument("--json", type=Path, metavar="FILE", help="write all findings, and every item's scores")
    p.add_argument("--svg", type=Path, metavar="FILE", help="write a picture")
    p.add_argument("--seed", type=int, default=0, help="seed of folds, permutations and draws (default 0)")
    p.add_argument("--skip-bad", action="store_true", help="skip malformed lines and count them")
    p.set_defaults(handler=disagree)


def disagree(args: argparse.Namespace) -> int:
    from harken.core.progress import waiting
    from harken.draw.disagreement import picture
    from harken.labelers.groups.aggregate import jury_group_weights, parse_aggregate, parse_jury
    from harken.labelers.groups.disagreement import fit_disagreement, to_json
    from harken.labelers.groups.scores import centred
    from harken.labelers.votes import votes_of
    from harken.store.files import check_out, read_comparisons, write_text
    for name, least in (("most", 1), ("show", 0), ("permutations", 19)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)} is out of range.", f"It must be at least {least}.")
    way, seats = parse_aggregate(args.aggregate), parse_jury(args.jury) if args.jury else ()
    for option, out in (("--json", args.json), ("--svg", args.svg)):
        if out:
            check_out(out, args.file, option)
    if args.json and args.svg and args.json.absolute() == args.svg.absolute():
        raise UserError(f"--json and --svg are both {args.svg}.", "Give each its own file.")
    with waiting("reading", 1):
        loaded = read_comparisons(args.file, skip_bad=args.skip_bad)
        votes, note = votes_of(loaded.records), loaded.describe()
        del loaded  # 100,000 records would lie in memory beside what is made of them
    if note:
        print(note)
    _check_names(votes, args.group_by, way, seats)
    disagreement = fit_disagreement(votes, group_by=args.group_by, most=args.most, permutations=args.permutations, seed=args.seed,
                             watch=waiting)
    print(describe(disagreement, votes, args.group_by, args.show))
    if args.json:
        model = disagreement.model
        weights = jury_group_weights(seats, args.group_by or "", model.names) if seats else model.shares
        scores = centred(model.scores(), votes.prompt)
        one = way(scores, model.names, weights)
        row = to_json(disagreement, votes) | {"aggregate": str(way), "jury": args.jury, "scores": [
            {"prompt_id": item[0], "text": item[1], "aggregate": round(float(one[i]), 6),
             "groups": {name: round(float(s), 6) for name, s in zip(model.names, scores[:, i])}}
            for i, item in enumerate(votes.items)]}
        write_text(args.json, json.dumps(row, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
        print(f"wrote {args.json}")
    if args.svg:
        write_text(args.svg, picture(disagreement, votes))
        print(f"wrote {args.svg}")
    return 0


def _check_names(votes: Any, by: str | None, way: Any, seats: Any) -> None:
    """Refuses a group, or a seat of the jury, that cannot be there: before the work."""
    from harken.labelers.groups.aggregate import jury_group_weights, place_of
    from harken.labelers.groups.scores import group_index
    if by:
        names = group_index(votes, by)[1]
        jury_group_weights(seats, by, names)
        if way.kind == "group":
            place_of(way.group, names)
    elif tagged := [seat for seat in seats if seat.tag]:
        raise UserError(f"--jury seats {tagged[0]}, and groups are looked for in the votes.", f"Add --group-by {tagged[0].tag}.")


def describe(result: Any, votes: Any, by: str | None, show: int) -> str:
    """The findings in words."""
    import numpy as np  # not above: it would be loaded for every command

    from harken.draw.disagreement import excerpt
    model, cast = result.model, np.bincount(votes.labeler, minlength=len(votes.labelers))
    names = [one_line(n) for n in model.names]
    people = int((cast > 0).sum())
    fifth = float(np.sort(cast)[::-1][:max(1, people // 5)].sum() / cast.sum())
    lines = [f"{len(votes):,} votes by {people:,} people on {len(votes.items):,} texts"]
    if fifth > 0.6 and people >= 5:
        lines.append(f"  a fifth of the people cast {fifth:.0%} of the votes: they speak for the rest here")
    lines += [f"  {kind}: {share:.0%} of {n:,} couples of votes on one pair differ"
              for kind, (share, n) in result.observed.items() if n]
    if not any(n for _, n in result.observed.values()):
        lines.append("  no pair was judged by two people: what follows rests on the model alone")
    if len(model.names) == 1:
        lines.append("One group suffices: the votes show no kinds of people that would predict new votes better. "
                     "What people differ in is noise, or tastes too fine for these votes.")
    else:
        kind = "Difference of values" if result.values else "No difference of values is established"
        lines.append(f"{kind} between {', '.join(f'{n} ({s:.0%} of people)' for n, s in zip(names, model.shares))}.")
        share = result.share
        lines.append(f"  of all disagreement {share.value:.1%} lies between groups ({share.level:.0%} interval "
                     f"{share.low:.1%} – {share.high:.1%}); {1 - share.value:.1%} is noise within them")
    if result.p_value is not None:
        lines.append(f"  chance of as much with groups dealt at random: p = {result.p_value:.3g} "
                     f"({result.permutations} permutations)")
    if result.gain is not None:
        what = "groups by " + by if by else f"{max(2, len(model.names))} groups found in the votes"
        gain, judged = result.gain, "" if result.gain.low > 0 else ": no better prediction"
        lines.append(f"  {what} add {gain.value:+.4f} nats a held-out vote [{gain.low:+.4f}, {gain.high:+.4f}]{judged}")
    for name in result.inverted:
        lines.append(f"  {one_line(name)} is another group upside down: a scale read the wrong way looks the same")
    if result.items and show:
        lines.append(f"Items on which groups differ ({len(result.items)} of {result.tested}; "
                     "5 % wrong signs expected among them):")
        for one in result.items[:show]:
            gap = one.gap
            lines.append(f"  {gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}]  higher with {one_line(one.high)} than "
                         f"{one_line(one.low)}: {excerpt(votes.items[one.item][1], 70)}")
    elif len(model.names) > 1 and not result.items:
        lines.append(f"No single item differs surely ({result.tested} looked at).")
    return "\n".join(lines)
