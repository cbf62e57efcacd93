"""`harken loop` and `harken lineage`."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.find import nearest

ACTIONS = ("approve", "reject", "rollback", "status", "page")
HELP = """\
Turns judgments on served answers into the next model: collect, audit, reward, policy, verify, gate; a person approves; a canary;
the new model is served. Does what is due, stops where people must speak, and says for what it waits. Killed anywhere, the
same command goes on; with nothing to do it does nothing. docs/loop.md shows a recipe."""
EXAMPLES = """\
examples:
  harken loop recipe.yaml                        what is due, then what it waits for
  harken loop status recipe.yaml                 every turn, and which model answers
  harken loop approve recipe.yaml --by ada       sign for the turn that waits
  harken loop reject recipe.yaml --by ada --comment "colder than before"
  harken loop reject recipe.yaml --by ada --comment "typo in verify.text"      also gives up a turn that cannot go on
  harken loop rollback recipe.yaml --by ada      the model before answers again, or the canary ends
  harken loop page recipe.yaml --out loop.html   win rate, agreement, labels and tax over turns
  harken serve --loop recipe.yaml                serve what was approved"""
LINEAGE = """\
Both ways from a run, an answer or a judgment: what it was made from, and what was made from it."""
LINEAGE_EXAMPLES = """\
examples:
  harken lineage loops/help/turns/0002/policy/run          the judgments, people and models behind these weights
  harken lineage runs/rloo                                 any run: its chain of models, data and rewards
  harken lineage --answer chatcmpl-4f2a/0 --loop recipe.yaml
  harken lineage --judgment 118 --loop recipe.yaml         which weights it touched, and whether they answer now
  harken lineage --withdrawn --loop recipe.yaml            the same for everything that was taken back since"""


def add_commands(commands: Any) -> None:
    """Adds the commands; each sets `handler`."""
    p = commands.add_parser("loop", help="from use to the next model, a person in charge", description=HELP, epilog=EXAMPLES,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("words", nargs="+", metavar="[ACTION] RECIPE", help=f"the recipe (or the loop's folder); before it one of "
                   f"{', '.join(ACTIONS)}")
    p.add_argument("--by", default="", metavar="NAME", help="who decides (default: the account that runs the command)")
    p.add_argument("--forward", action="store_true", help="rollback: serve again what was rolled back")
    p.add_argument("--comment", default="", help="kept with the decision")
    p.add_argument("--out", default="", metavar="FILE", help="the page to write (default: loop.html in the loop's folder)")
    p.add_argument("--json", action="store_true", help="print the state as one JSON object")
    p.set_defaults(handler=run_loop)
    p = commands.add_parser("lineage", help="which judgments made this, and what a judgment made", description=LINEAGE,
                            epilog=LINEAGE_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", nargs="?", default="", metavar="RUN", help="a run, or a turn's folder")
    p.add_argument("--answer", default="", metavar="ID", help="an answer's id, as served: ID or ID/CHOICE")
    p.add_argument("--judgment", default="", metavar="NUMBER", help="a judgment's number; DB:NUMBER where the loop "
                   "has several databases")
    p.add_argument("--withdrawn", action="store_true", help="all judgments that a turn learnt from and that were "
                   "taken back since")
    p.add_argument("--loop", default="", metavar="LOOP", help="the loop's recipe or folder")
    p.add_argument("--out", default="", metavar="FILE", help="write a picture (.html) instead of text")
    p.add_argument("--json", action="store_true", help="print as one JSON object")
    p.set_defaults(handler=run_lineage)


def run_loop(args: argparse.Namespace) -> int:
    """`harken loop`."""
    from harken.launch.loop.recipe import read_loop
    action, words = (args.words[0], args.words[1:]) if args.words[0] in ACTIONS and len(args.words) > 1 else ("", args.words)
    if len(words) != 1:
        raise UserError(f"{' '.join(args.words)!r} is not an action and a recipe.{nearest(args.words[0], ACTIONS)}",
                        f"harken loop RECIPE, or one of {', '.join(ACTIONS)} before it.")
    recipe = read_loop(words[0], trust=action in ("status", "page"))
    if action in ("approve", "reject", "rollback"):
        return _decide(args, recipe, action)
    if action == "status":
        return _status(args, recipe)
    if action == "page":
        return _page(args, recipe, words[0])
    from harken.launch.loop.drive import drive
    state = drive(recipe, (lambda line: None) if args.json else (lambda line: print(line, flush=True)))
    _write_page(recipe, recipe.out / "loop.html")
    print(json.dumps(state.to_json(), ensure_ascii=False) if args.json else _waiting(state, words[0]))
    return 0


def _waiting(state: Any, word: str) -> str:
    word = shlex.quote(word)
    more = {"approval": f"\n  harken loop page {word} shows why; then: harken loop approve {word} --by NAME"}.get(state.waits, "")
    return "" if state.lines and state.lines[-1] == state.words else state.words + more


def _decide(args: argparse.Namespace, recipe: Any, action: str) -> int:
    from harken.launch.loop import approval
    from harken.launch.loop.drive import give_up, rollback, waiting
    from harken.launch.loop.turns import Loop
    by, how = args.by or approval.person(), f"command, by the account {approval.person()}"
    if action == "rollback":
        print(rollback(recipe, by, forward=args.forward))
        return 0
    current = Loop(recipe.out).current()
    if action == "reject" and current is not None and not current.has("gate"):
        print(give_up(recipe, by, args.comment))
        return 0
    loop, turn, its = waiting(recipe)
    facts = approval.decide(its, loop, turn, by=by, how=how, yes=action == "approve", comment=args.comment)
    print(f"Turn {turn.number}: {facts['decision']}, {by}. harken loop goes on from here.")
    return 0


def _status(args: argparse.Namespace, recipe: Any) -> int:
    from harken.launch.loop.status import status
    found = status(recipe)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    print(f"{recipe.out}: {found['serving']} answers" + (f", before it {found['previous']}" if found["previous"] else "")
          + (f"; {found['canary']}" if found["canary"] else ""))
    for row in found["turns"]:
        print(f"  turn {row['turn']}: {row['state']}" + (f" ({row['words']})" if row["words"] else ""))
    return 0


def _page(args: argparse.Namespace, recipe: Any, word: str) -> int:
    out = Path(args.out or recipe.out / "loop.html")
    _write_page(recipe, out)
    print(out)
    return 0


def _write_page(recipe: Any, out: Path) -> None:
    from harken.report.loop import build_loop
    build_loop(recipe, out)


def run_lineage(args: argparse.Namespace) -> int:
    """`harken lineage`."""
    from harken.launch.loop import lineage
    from harken.launch.loop.recipe import read_loop
    if sum(map(bool, (args.run, args.answer, args.judgment, args.withdrawn))) != 1:
        raise UserError("Name one thing: a run, --answer, --judgment or --withdrawn.", "harken lineage --help shows examples.")
    if not args.run and not args.loop:
        raise UserError("--answer, --judgment and --withdrawn are looked up in a loop.", "Add --loop RECIPE.")
    recipe = read_loop(args.loop, trust=True) if args.loop else None
    if args.run:
        tree = lineage.of_run(Path(args.run), recipe)
    elif args.answer:
        tree = lineage.of_answer(recipe, args.answer)  # type: ignore[arg-type]
    elif args.judgment:
        tree = lineage.of_judgment(recipe, args.judgment)  # type: ignore[arg-type]
    else:
        tree = lineage.of_withdrawn(recipe)  # type: ignore[arg-type]
    if args.out:
        from harken.report.loop import write_lineage
        write_lineage(tree, Path(args.out))
        print(args.out)
        return 0
    print(json.dumps(tree.to_json(), ensure_ascii=False) if args.json else tree.text())
    return 0
