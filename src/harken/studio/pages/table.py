"""The lead's table: a project's items and answers, found, filtered, sorted, and changed many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from harken.store.schema import judgments
from harken.store.studio_schema import retractions
from harken.studio.api.project import ITEM_STATES
from harken.studio.api.table import found_item
from harken.studio.lead import charts
from harken.studio.pages.frame import page, render
from harken.studio.pages.label import in_words
from harken.studio.work.forms import shown_answer
from harken.studio.work.table import ANSWER_STATES, SHOWN, choices, find_items
from harken.web.operations import number_in_path
from harken.web.site import Site

if TYPE_CHECKING:
    from harken.studio.lead.insight import Insight
    from harken.studio.pages.lead import Figures

LISTS = {"disagree": "People gave opposite verdicts", "contradict": "A ranking contradicts its own ratings",
         "decided": "Decided by a lead", "flagged": "Reported as unsafe", "set_aside": "Set aside", "done": "Finished",
         "open": "Open", "answered": "Answered so far", "repeated": "Asked again of the same labeler",
         "gold": "Questions whose answer is known", "ungraded": "Waiting for a grade", "commented": "With comments"}
STATES = {"flagged", "answered", *ITEM_STATES}
ITEM_ORDER = {"id": "oldest first", "-id": "newest first", "-done": "most answers", "done": "fewest answers",
              "-skips": "most skips", "-flags": "most reports", "disagreement": "most disagreement"}
ANSWER_ORDER = {"-id": "newest first", "id": "oldest first", "seconds": "fastest", "-seconds": "slowest", "labeler": "by labeler"}
FILTERS = ("q", "tag", "source", "assigned", "from", "to")


def routes(site: Site, figures: Figures) -> list[BaseRoute]:
    """The pages Items and Answers."""
    async def listed(request: Request) -> Response:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        asked = request.query_params
        what, sort = asked.get("list", ""), asked.get("sort", "id")
        picked, waiting, title = None, False, LISTS.get(what, "All items")
        if sort == "disagreement" or what in ("disagree", "contradict") or what.startswith("flag:"):
            progress = await site.call(request, "get_progress", path={"project": project["id"]})
            worked_out = await figures.of(site, project["id"], project["form"], progress["answers"])
            waiting = worked_out is None
            picked = _picked(worked_out[0], what, sort) if worked_out else []
            title = LISTS.get(what) or (f"Marked: {what[5:].replace('_', ' ')}" if what.startswith("flag:") else title)
        query = _item_query(asked, what)
        number = number_in_path(asked["page"]) if asked.get("page") else 1
        found = await site.read(lambda tx: find_items(tx, project["id"], query, sort=sort, page=number, picked=picked))
        split = await site.read(lambda tx: opposite(tx, [row.id for row in found.rows]))
        offered = await site.read(lambda tx: choices(tx, project["id"]))
        people = (await site.call(request, "list_users", query={"limit": 500}))["items"]
        if query["labelers"]:
            title = f"{title if what else 'Answered'} by {' and '.join(query['labelers'])}"
        if query.get("from") and "T" in query["from"]:
            title = f"Answered from {query['from'][:16].replace('T', ' ')}" + (
                f" to {query['to'][:16].replace('T', ' ')}" if query.get("to") else "") + " UTC"
        return render(request, "lead_items.html", tab="items", project=project, rows=[found_item(row) for row in found.rows],
                      title=title, lists=LISTS, query=asked, split=split, charts=charts, total=found.total, page=number,
                      pages=-(-found.total // SHOWN), offered=offered, orders=ITEM_ORDER, sort=sort, waiting=waiting,
                      people={u["id"]: u["name"] for u in people if u["state"] == "active" and u["role"] != "viewer"},
                      link=_links(asked))

    async def answers(request: Request) -> Response:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        asked = request.query_params
        query: dict[str, Any] = {k: v for k in ("q", "labeler", "source", "from", "to") if (v := asked.get(k, "")[:200])}
        if asked.get("state") in ANSWER_STATES:
            query["state"] = asked["state"]
        if asked.get("sort") in ANSWER_ORDER:
            query["sort"] = asked["sort"]
        for name in ("item", "page"):
            if asked.get(name):
                query[name] = number_in_path(asked[name])
        found = await site.call(request, "find_answers", path={"project": project["id"]}, query=query)
        return render(request, "lead_answers.html", tab="answers", project=project, rows=found["items"], total=found["total"],
                      page=found["page"], pages=found["pages"], offered=found["choices"], states=ANSWER_STATES, query=asked,
                      orders=ANSWER_ORDER, sort=query.get("sort", "-id"), said=said, link=_links(asked), charts=charts)

    return [Route("/lead/projects/{project}/items", page(listed, who="reader")),
            Route("/lead/projects/{project}/answers", page(answers, who="reader"))]


def _item_query(asked: Any, what: str) -> dict[str, Any]:
    query: dict[str, Any] = {k: v for k in FILTERS if (v := asked.get(k, "").strip()[:200])}
    query["labelers"] = [name for name in asked.getlist("labeler") if name][:9]
    state = asked.get("state") or what
    if state in STATES:
        query["state"] = state
    if what == "gold":
        query["role"] = "known"
    if what in ("ungraded", "repeated", "commented", "decided"):
        query["list"] = what
    if query.get("assigned"):
        query["assigned"] = number_in_path(query["assigned"])
    return query


def _picked(insight: Insight, what: str, sort: str) -> list[int]:
    """The items behind a figure; by disagreement, those that people judged most oppositely first."""
    ordered = [o.item for o in sorted(insight.queue, key=lambda o: (-o.split, -o.bits))]
    wanted = insight.split.get(what)
    if sort == "disagreement":
        return [item for item in ordered if wanted is None or item in wanted]
    return sorted(wanted or ())


def _links(asked: Any) -> Any:
    """Makes this page's address with some of its query changed."""
    from urllib.parse import urlencode

    def link(**changes: Any) -> str:
        rest = [(k, v) for k, v in asked.multi_items() if k not in changes and k != "page" and v]
        return "?" + urlencode([*rest, *((k, v) for k, v in changes.items() if v)])
    return link


def opposite(tx: Connection, ids: list[int]) -> dict[int, float]:
    """Item → the share of its pairs of completions on which two people gave opposite verdicts."""
    gone = select(retractions.c.judgment_seq)
    query = select(judgments.c.item_id, judgments.c.payload).where(
        judgments.c.item_id.in_(ids), judgments.c.role.is_(None), judgments.c.seq.not_in(gone))
    ranks: dict[int, list[list[int]]] = {}
    for row in tx.execute(query):
        if "ranks" in row.payload:
            ranks.setdefault(row.item_id, []).append(row.payload["ranks"])
    return {item: _split(of) for item, of in ranks.items() if len(of) > 1}


def _split(of: list[list[int]]) -> float:
    ranks = np.array(of)
    above = np.sign(ranks[:, None, :] - ranks[:, :, None])
    pairs = np.triu_indices(ranks.shape[1], 1)
    verdicts = above[:, pairs[0], pairs[1]]
    return float(((verdicts == 1).any(0) & (verdicts == -1).any(0)).mean())


def said(answer: dict[str, Any]) -> str:
    """An answer in a few words, its completions in the item's own order."""
    if answer["payload"].get("redacted"):
        return "(erased)"
    order = range(len(answer["payload"].get("completions", ())))
    if answer["task"] == "edit":
        order = range(1)
    return in_words(shown_answer(answer["task"], {"prompt_flags": [], "use_case": None, "notes": "", **answer["payload"]}, order))

