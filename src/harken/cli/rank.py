"""`harken rank`: which model do stored votes prefer, and how surely?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from harken.core.errors import UserError
from harken.core.terminal import one_line

if TYPE_CHECKING:  # NumPy and SciPy would slow the start of every other command
    from harken.stats.ranking import Ranking
    from harken.store.verdicts import Votes

HELP = """\
Bradley–Terry scores of the models that votes compare, with ties, 95 % intervals over prompts, Elo points (400 are odds of
10 to 1), the places the intervals allow and the full matrix of win rates.

  comparisons  {"prompt", "completions", "ranks", "model": [who wrote each]}; --by names the field
  pairs        {"prompt", "chosen", "rejected", "chosen_model", "rejected_model"}
  other logs   Arena (model_a, model_b, winner), MT-bench (g1_winner, g2_winner), AlpacaEval (generator_1, preference)

--against NAME adds each model's win rate over NAME and, where the answers are in the file, the rate at equal lengths."""

EXAMPLES = """\
examples:
  harken rank votes.jsonl --by model
  harken rank annotations.json --against gpt4_1106_preview
  harken rank votes.jsonl --ties rao_kupper --anchor base --json"""

SHOWN = 12


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `rank`; it sets `handler`."""
    command = subparsers.add_parser("rank", help="which model do stored votes prefer?", description=HELP, epilog=EXAMPLES,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("file", metavar="FILE", help="votes (.jsonl, .jsonl.gz, .json)")
    command.add_argument("--by", metavar="FIELD", default="model",
                         help="the field that says who wrote each answer (default model)")
    command.add_argument("--ties", choices=("davidson", "rao_kupper", "half"), default="davidson",
                         help="ties as an outcome of their own, two ways, or as half-wins (default davidson)")
    command.add_argument("--anchor", metavar="MODEL", help="the model to put at 1000 points (default: the mean)")
    command.add_argument("--against", metavar="MODEL", help="also win rates over this model, raw and at equal lengths")
    command.add_argument("--prior", type=float, default=0.0,
                         help="wins each way added to every pair that met, where scores have no maximum (default 0)")
    command.add_argument("--json", action="store_true", help="print everything as one JSON object")
    command.set_defaults(handler=run_rank)


def run_rank(args: argparse.Namespace) -> int:
    """`harken rank`."""
    from harken.stats.ranking import rank
    from harken.store.verdicts import one_spelling, read_votes
    if not 0 <= args.prior < 1e6:
        raise UserError(f"--prior {args.prior} is no number of wins.", "Use a small number, like 0.1.")
    votes = read_votes(args.file, args.by)
    names = votes.models
    args.anchor, args.against = (None if name is None else one_spelling(name) for name in (args.anchor, args.against))
    for option, name in (("--anchor", args.anchor), ("--against", args.against)):
        if name is not None and name not in names:
            raise UserError(f"{option} {name!r}: no vote is about that model.", f"The models are {_some(names)}.")
    number = {name: i for i, name in enumerate(names)}
    try:
        ranking = rank([number[a] for a in votes.a], [number[b] for b in votes.b], votes.won, votes.prompts, names=names,
                       ties=args.ties, prior=args.prior, anchor=None if args.anchor is None else number[args.anchor])
    except ValueError as error:
        raise UserError(f"{args.file}: {str(error).replace('pass prior=0.1', 'pass --prior 0.1')}.",
                        "Compare more, or leave those models out.") from None
    rates = {} if args.against is None else win_rates(votes, args.against)
    if args.json:
        against = None if args.against is None else {"model": args.against, "rates": rates}
        print(json.dumps({"file": args.file, **ranking.to_json(), **counts(votes), "against": against}))
    else:
        print(text_of(ranking, votes, args.file, args.against, rates))
    return 0


def counts(votes: Votes) -> dict[str, int]:
    """What the votes hold and what was left out."""
    return {"votes": len(votes.prompts), "ties": sum(w == 0 for w in votes.won), "missing": votes.missing,
            "inconsistent": votes.inconsistent, "identical_texts": votes.identical, "same_model": votes.same_model,
            "repeated": votes.repeated}


def win_rates(votes: Votes, against: str) -> dict[str, dict[str, Any]]:
    """Each model's rate over one, as JSON: `raw`, `standard_error`, and `length_controlled` or why there is none."""
    from harken.stats.intervals import mean_interval
    from harken.stats.length_control import length_controlled
    from harken.stats.testing import standard_error
    rows: dict[str, list[tuple[float, int, int, str]]] = {}
    for prompt, a, b, p, la, lb in zip(votes.prompts, votes.a, votes.b, votes.preference, votes.length_a, votes.length_b):
        if against in (a, b):
            row = (1 - p, la, lb, prompt) if b == against else (p, lb, la, prompt)
            rows.setdefault(a if b == against else b, []).append(row)
    result: dict[str, dict[str, Any]] = {}
    for name, some in rows.items():
        share, own, theirs, prompts = (list(column) for column in zip(*some))
        error = standard_error(share, prompts)[1]
        one: dict[str, Any] = {"raw": mean_interval(share, prompts, bounds=(0.0, 1.0)).to_json(),
                               "standard_error": error if error == error else None, "length_controlled": None}
        if min(own + theirs) < 0:
            one["why"] = "the answers are not in the file"
        else:
            try:
                found = length_controlled(share, own, theirs, clusters=prompts)
                if found.theta == 0:  # L1 holds the model at even odds, and with it the interval's width at 0
                    one["why"] = "its penalty (AlpacaEval's) holds the model at even odds: too few votes, or no difference"
                else:
                    one["length_controlled"] = found.controlled.to_json()
            except ValueError as problem:
                one["why"] = str(problem)
        result[name] = one
    return result


def text_of(ranking: Ranking, votes: Votes, name: str, against: str | None, rates: dict[str, dict[str, Any]]) -> str:
    """The ranking for a terminal."""
    from harken.stats.ranking import ELO
    table = ranking.to_json()
    c = counts(votes)
    lines = [f"{name}: {c['votes']:,} votes on {ranking.prompts:,} prompts, {len(ranking.names)} models, {c['ties']:,} ties"]
    wide = max(5, *(len(one_line(m)[:28]) for m in ranking.names))
    lines += ["", f"{'model':{wide}}    Elo  95 % interval    SE   place  votes"]
    for m in table["models"]:
        e = m["elo"]
        low, high = ("–" if e[end] is None else f"{e[end]:.0f}" for end in ("low", "high"))
        first, last = m["places"]
        lines.append(f"{one_line(m['name'])[:28]:{wide}}  {e['value']:5.0f}  [{low}, {high}]".ljust(wide + 26)
                     + ("    –" if m["standard_error"] is None else f"{m['standard_error'] * ELO:5.0f}")
                     + f"  {f'{first}–{last}' if first != last else first:>6}"
                     + f"  {m['comparisons']:,}")
    lines += ["", *_matrix(ranking, [m["name"] for m in table["models"]])]
    if against is not None:
        lines += ["", f"preferred to {one_line(against)}"]
        for model, r in sorted(rates.items(), key=lambda x: -x[1]["raw"]["value"]):
            controlled = _rate(r["length_controlled"]) if r["length_controlled"] else f"no rate at equal lengths: {r['why']}"
            lines.append(f"  {one_line(model)[:28]:{wide}}  {_rate(r['raw'])}   at equal lengths {controlled}"
                         if r["length_controlled"] else f"  {one_line(model)[:28]:{wide}}  {_rate(r['raw'])}   {controlled}")
    return "\n".join([*lines, *_notes(ranking, c)])


def _rate(e: dict[str, Any]) -> str:
    return f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]"


def _matrix(ranking: Ranking, order: list[str]) -> list[str]:
    shown = [ranking.names.index(name) for name in order[:SHOWN]]
    wide = max(len(one_line(ranking.names[i])[:20]) for i in shown)
    lines = ["row preferred to column: share (± half the interval), a tie half"
             + (f"; the first {SHOWN} models" if len(order) > SHOWN else "")]
    lines.append("  " + " " * wide + "".join(f"{one_line(ranking.names[i])[:10]:>12}" for i in shown))
    for i in shown:
        cells = []
        for j in shown:
            e = ranking.matrix[i][j]
            cells.append(f"{'·' if i == j else '–' if e is None else f'{e.value:.2f} ±{(e.high - e.low) / 2:.2f}':>12}")
        lines.append((f"  {one_line(ranking.names[i])[:20]:{wide}}" + "".join(cells)).rstrip())
    return lines


def _notes(ranking: Ranking, c: dict[str, int]) -> list[str]:
    """What a reader would take for something else."""
    notes = []
    if c["missing"]:
        notes.append(f"{c['missing']:,} rows or pairs have no verdict and are left out, not counted as ties.")
    if c["inconsistent"]:
        notes.append(f"{c['inconsistent']:,} verdicts changed with the order of the answers: counted as ties.")
    if c["identical_texts"]:
        notes.append(f"{c['identical_texts']:,} votes are between models that gave the same text: they say nothing of either.")
    if c["same_model"]:
        notes.append(f"{c['same_model']:,} pairs are by one model and are left out.")
    if c["repeated"]:
        notes.append(f"{c['repeated']:,} votes are a labeler's second or later vote on the same two answers: all count.")
    if ranking.prompts < 30:
        notes.append(f"Only {ranking.prompts} prompts: read the intervals as rough.")
    if cycles := ranking.cycles():
        notes.append(f"{len(cycles)} triples go round in a circle, like {' > '.join(map(one_line, cycles[0]))} > "
                    f"{one_line(cycles[0][0])}: one score a model cannot say that.")
    return ["", *(f"  {x}" for x in notes)] if notes else []


def _some(names: list[str]) -> str:
    return ", ".join(one_line(n) for n in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
