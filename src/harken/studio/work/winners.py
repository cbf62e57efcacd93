"""Which model won: a project's verdicts joined with who wrote each answer.

    votes = votes_of_project(tx, project, use_case="open_qa")
    ranking = ranked(votes)          # harken.stats.ranking.Ranking

What counts is what an export holds; the statistics are those of `harken rank`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, null, select

from harken.core.errors import UserError
from harken.store.database import COUNTS
from harken.store.schema import judgments, prompts
from harken.store.studio_schema import items
from harken.store.verdicts import Votes, add_ranking

if TYPE_CHECKING:
    from harken.stats.ranking import Ranking

PRIOR = 0.1
"""Wins each way added to every pair that met where a model always won: without it the strengths would have no maximum."""


def votes_of_project(tx: Connection, project: int, *, use_case: str | None = None, tag: str | None = None,
                     group: str | None = None) -> Votes:
    """The pairs of answers that labelers judged and whose sources are known. `group` is `key:value` of the labeler's group.

    Raises UserError where no verdict is about two different sources.
    """
    key, _, value = (group or "").partition(":")
    filtered = bool(use_case or tag)  # only then are prompts read: half of a large project's seconds went into them
    body: Any = prompts.c.body if filtered else null()
    columns = (judgments.c.payload, prompts.c.id, items.c.body.label("asked"), body.label("prompt"),
               (judgments.c.labeler_group if key else null()).label("group"))
    query = (select(*columns).join_from(judgments, items, items.c.id == judgments.c.item_id)
             .join(prompts, prompts.c.key == judgments.c.prompt_key)
             .where(items.c.project_id == project, judgments.c.kind == "ranking", COUNTS).order_by(judgments.c.seq))
    votes = Votes()
    for payload, prompt, asked, words, people in tx.execute(query):
        if "ranks" not in payload or (key and people.get(key) != value):
            continue
        if filtered and ((use_case and words.get("use_case") != use_case) or (tag and tag not in (words.get("tags") or ()))):
            continue
        sources = [c.get("source") for c in asked["completions"]]
        add_ranking(votes, prompt, sources, payload["ranks"], payload["completions"])
    if not votes.prompts:
        raise UserError("No verdict is about answers of two known sources.",
                        'Give each completion its source: {"text": "…", "source": "runs/sft"}.')
    return votes


def ranked(votes: Votes, level: float = 0.95) -> tuple[Ranking, bool]:
    """The models' strengths, and whether a prior was needed: somebody always won or lost."""
    from harken.stats.ranking import rank
    names = votes.models
    number = {name: i for i, name in enumerate(names)}
    a, b = [number[n] for n in votes.a], [number[n] for n in votes.b]
    try:
        return rank(a, b, votes.won, votes.prompts, names=names, level=level), False
    except ValueError as error:
        if "never compared" in str(error) or "not connected" in str(error):
            raise UserError(f"{str(error)[0].upper()}{str(error)[1:]}.", "Ask about pairs that join them.") from None
    try:
        return rank(a, b, votes.won, votes.prompts, names=names, level=level, prior=PRIOR), True
    except ValueError as error:
        raise UserError(f"{str(error)[0].upper()}{str(error)[1:]}.", "Ask about more pairs.") from None
