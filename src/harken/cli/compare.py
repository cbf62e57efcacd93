"""`harken compare A B`: is A better than B, on logs of ours and of others?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from harken.core.errors import UserError

HELP = """\
Pairs two logs item by item and says in words: better, worse, tied (where --margin was given and the difference is shown to be
smaller) or inconclusive, with about how many more items would tell. Repeats of an item are averaged first; intervals are over
the clusters that --cluster names; several tasks are corrected by Holm. A missing score is counted and bounded, never 0.

  runs        a finished `harken eval` run
  lm-eval     samples_TASK_DATE.jsonl (--log_samples), or a folder of them
  Inspect     an .eval file, where inspect_ai is installed
  garak       a .report.jsonl: how often each probe was resisted, by detector
  PyRIT       exported conversations, .json: how often the model resisted, by scorer

With one log alone it prints the log's own figures with their intervals."""

EXAMPLES = """\
examples:
  harken compare runs/truthful-rloo runs/truthful-sft
  harken compare out/after out/before --metric acc --margin 0.02
  harken compare after.eval before.eval --cluster passage --json
  harken compare garak.abc.report.jsonl"""


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `compare`; it sets `handler`."""
    command = subparsers.add_parser("compare", help="is one run better than another?", description=HELP, epilog=EXAMPLES,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("a", metavar="A", help="a run, an lm-eval samples file or folder, or an .eval file")
    command.add_argument("b", metavar="B", nargs="?", help="the log it is compared with; without it A's own figures are printed")
    command.add_argument("--metric", default="", help="the score, where items have several")
    command.add_argument("--cluster", default="", metavar="FIELD", help="the field that names what items come from together")
    command.add_argument("--margin", type=float, default=0.0, help="smallest difference that matters: shows ties")
    command.add_argument("--level", type=float, default=0.95, help="level of the intervals (default 0.95)")
    command.add_argument("--json", action="store_true", help="print everything as one JSON object")
    command.set_defaults(handler=run_compare)


def run_compare(args: argparse.Namespace) -> int:
    """`harken compare`."""
    if not 0 < args.level < 1 or args.margin < 0:
        raise UserError("--level lies between 0 and 1, and --margin is not negative.", "harken compare --help shows more.")
    if args.b is None:
        _show_alone(args)
        return 0
    from harken.store.logs import paired, read_log
    a, b = (read_log(log, metric=args.metric, cluster=args.cluster) for log in (args.a, args.b))
    pairs = paired(a, b)
    results = _compared(pairs, args.cluster, args.margin or None, args.level)
    if args.json:
        print(json.dumps({name: c.to_json() for name, c in results.items()}, ensure_ascii=False))
        return 0
    for name, c in results.items():
        print(f"{name}: {c.words(args.a, args.b)}")
    used = [task for pair in pairs.values() for task in pair]
    for name, log in ((args.a, a), (args.b, b)):
        if left := [task for task, scores in log.tasks.items() if not any(scores is one for one in used)]:
            print(f"Only {name} holds, and so not compared: {', '.join(left)}")
    return 0


def _show_alone(args: argparse.Namespace) -> None:
    """One log's tasks: the mean over items, repeats averaged first, its interval, and what is missing."""
    found = figures(args.a, metric=args.metric, cluster=args.cluster, level=args.level)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, task in found.items():
        e = task["value"]
        missing = (f"; {task['missing']:,} of {task['scores']:,} scores are missing: whatever they are, it lies between "
                   f"{task['worst']:.3f} and {task['best']:.3f}" if task["missing"] else "")
        shown = f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}], {task['items']:,} items" if e else "no item has a score"
        print(f"{name}: {task['metric']} {shown}{missing}")


def figures(a: str, *, metric: str = "", cluster: str = "", level: float = 0.95) -> dict[str, dict[str, Any]]:
    """Each task's mean over items with its interval, by name; `worst` and `best` where every missing score were 0 or 1."""
    from harken.stats.compare import bounded_mean
    from harken.stats.intervals import mean_interval
    from harken.store.logs import read_log
    found: dict[str, dict[str, Any]] = {}
    for name, task in read_log(a, metric=metric, cluster=cluster).tasks.items():
        flat = [x for row in task.scores.values() for x in row]
        known = {item: [x for x in row if x is not None] for item, row in task.scores.items()}
        known = {item: row for item, row in known.items() if row}
        rates = all(0 <= x <= 1 for row in known.values() for x in row)
        alone = [item for item in known if item not in task.clusters]
        if cluster and alone:
            raise UserError(f"{name}: {len(alone)} of {len(known)} items have no {cluster!r} (the first is {alone[0]}).",
                            "Check --cluster: it names a field that every item has.")
        groups = [task.clusters[item] for item in known] if cluster else None
        value = mean_interval([sum(row) / len(row) for row in known.values()], groups, level,
                              bounds=(0.0, 1.0) if rates else None).to_json() if known else None
        low, high = bounded_mean(flat, (0.0, 1.0)) if rates else (None, None)
        found[name] = {"metric": task.metric, "value": value, "items": len(known), "scores": len(flat),
                       "missing": sum(x is None for x in flat), "worst": low, "best": high}
    return found


def comparisons(a: str, b: str, *, metric: str = "", cluster: str = "", margin: float | None = None,
                level: float = 0.95) -> dict[str, Any]:
    """A `stats.compare.Comparison` a task that both logs hold, Holm-corrected over them. Raises `UserError`."""
    from harken.store.logs import paired, read_log
    return _compared(paired(read_log(a, metric=metric, cluster=cluster), read_log(b, metric=metric, cluster=cluster)), cluster,
                     margin, level)


def _compared(pairs: Mapping[str, tuple[Any, Any]], cluster: str, margin: float | None, level: float) -> dict[str, Any]:
    from harken.stats.compare import compare, corrected
    found = {}
    for name, (one, other) in pairs.items():
        known = [x for t in (one, other) for row in t.scores.values() for x in row if x is not None]
        bounds = (0.0, 1.0) if known and min(known) >= 0 and max(known) <= 1 else None
        scores = [t.scores for t in (one, other)]
        if one.lower:  # toxicity: less is better, and a difference above 0 says so
            scores = [{item: [None if x is None else -x for x in row] for item, row in s.items()} for s in scores]
            bounds = (-1.0, 0.0) if bounds else None
        clusters = {**other.clusters, **one.clusters} if cluster else None
        try:
            found[name] = compare(*scores, clusters=clusters, bounds=bounds, margin=margin, level=level)
        except ValueError as error:
            raise UserError(f"{name} cannot be compared: {error}.", "Check --cluster, and that both logs have scores.") from None
    return corrected(found)
