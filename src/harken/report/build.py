"""One offline HTML page about a set of runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from harken.core.errors import UserError
from harken.core.version import __version__
from harken.draw.page import page
from harken.report import (
    compared,
    curves,
    evals,
    monitors,
    opinions,
    overoptimisation,
    people,
    ratings,
    refusals,
    results,
    samples,
    seeds,
    tradeoff,
    wins,
)
from harken.report.browser import script, script_hash
from harken.report.load import RunData, load_runs
from harken.report.write import write_page


def build_report(runs: Sequence[Path], out: Path) -> Path:
    """Reads run directories and writes a self-contained page to `out`, atomically; returns `out`.

    Runs inside a quickstart directory are found by themselves. Missing pieces leave their section out.
    Raises `UserError` for no runs, a path that is not a run directory, or an `out` that cannot be written.
    """
    out = Path(out)
    whole = render(load_runs(runs))
    if out.is_dir():
        raise UserError(f"{out} is a directory.", "Name a file: --out report.html.")
    return write_page(out, whole)


def render(runs: Sequence[RunData]) -> str:
    """The page as text."""
    together = seeds.grouped(runs)
    alone = [run for run in runs if run.path not in together]
    shown_samples, data = samples.samples(runs)
    sections = (
        ("results", "Results", results.tables(runs), "Each bar is an interval on its column's scale, the dot the "
         "estimate."),
        ("wins", "Who wins against whom", wins.wins(runs), "Row over column, a tie half. One score a model cannot "
         "say everything: look for cycles."),
        ("ratings", "Ratings and flags", ratings.rated(runs), "What people said of each answer alone."),
        ("compared", "Is it better?", compared.compared(runs), "Item by item on the same items. A tie is claimed only within a "
         "margin; an interval that holds 0 proves no equality."),
        ("tradeoff", "What it cost", tradeoff.tradeoffs(runs), "Up and to the right is better."),
        ("refusals", "Does it refuse the right things?", refusals.reactions(runs), "Over-refusal and attack success are one "
         "question: either alone is won by a model that knows nothing."),
        ("evaluations", "Evaluations", evals.evals(runs), "What was measured, beside what it was compared with."),
        ("seeds", "Over seeds", seeds.over_seeds(runs), "Runs that differ in their seed alone. Lines are means, bands 95% "
         "intervals over seeds: what another seed would give."),
        ("frontier", "Reward against KL", curves.reward_against_kl(alone), "What each step away from the start bought. "
         "A proxy that climbs while gold falls is being exploited."),
        ("monitors", "Monitors", monitors.monitors(runs), "An audit, not a guarantee: what no monitor looks at is not seen "
         "here."),
        ("opinions", "Whose opinions", opinions.opinions(runs), "No opinions are the right ones: this says whose they are."),
        ("reward-model", "Reward model", curves.reward_models(runs) + overoptimisation.overoptimisation(alone),
         "Accuracy means little alone, so rules that read "
         "nothing stand beside it."),
        ("people", "The people behind it", people.people(runs), "A reward is what some people said. Intervals hold the learnt "
         "scores fixed."),
        ("parts", "What the score is made of", people.parts(runs), "A compositional score is a sum: each bar is what one "
         "attribute adds, against the average training answer."),
        ("training", "Training", curves.training(alone), "Faint: every step. Strong: a running mean, its last value "
         "in bold."),
        ("samples", "Samples", shown_samples, ""),
        ("missing", "Missing and dropped", samples.missing(runs), "Missing items are counted here, never scored as "
         "zero."),
        ("lineage", "Lineage", samples.lineage(runs), "What these figures were made from."),
    )
    verdict = (results.judged(runs) or compared.headline(runs) or results.verdict(runs) or seeds.headline(runs)
               or results.unjudged(runs))
    shown = [{"name": name, "title": title, "body": body, "lead": lead} for name, title, body, lead in sections if body]
    return page("report.html", title=f"Harken report: {runs[0].name}", count=f"{len(runs)} run{'s' * (len(runs) != 1)}",
                date=time.strftime("%Y-%m-%d"), verdict=Markup(verdict), facts=Markup(results.facts(runs, compared.cards(runs))),
                sections=shown, script=Markup(script()), script_hash=script_hash(), data=Markup(data), version=__version__)
