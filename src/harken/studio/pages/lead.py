"""The lead's pages: a project's figures, the items behind them, one item with all that was said, settings, people."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from harken.store.events import end as audit_end
from harken.store.events import stamp
from harken.store.schema import judgments, prompts
from harken.store.studio_schema import events, grades, items, retractions
from harken.studio.api.project import item_json
from harken.studio.api.review import READINGS, readings
from harken.studio.lead import charts
from harken.studio.pages.frame import CATEGORIES, page, render
from harken.studio.tasks import TASKS
from harken.studio.work.settings import PRESETS, QUALIFY
from harken.studio.work.stored import load
from harken.web.errors import ApiError
from harken.web.operations import number_in_path
from harken.web.site import Site

if TYPE_CHECKING:
    from harken.studio.lead.insight import Insight

FRESH_SECONDS, SHARE = 10.0, 20  # figures are kept so long, or 20 times as long as they took: a twentieth of one core
SHOWN = 100  # rows of a list of items
QUEUE = 10
LISTS = {"disagree": "People gave opposite verdicts", "contradict": "A ranking contradicts its own ratings",
         "decided": "Decided by a lead", "flagged": "Reported as unsafe", "set_aside": "Set aside", "done": "Finished",
         "open": "Open", "answered": "Answered so far", "repeated": "Asked again of the same labeler",
         "gold": "Questions whose answer is known", "ungraded": "Waiting for a grade"}


class Figures:
    """Insights of projects, kept while nothing new was said."""

    def __init__(self) -> None:
        self._computed: dict[int, tuple[float, tuple[int, int], Insight, list[str]]] = {}  # good until, of which state

    def of(self, tx: Connection, project: int, form: dict[str, Any]) -> tuple[Insight, list[str]]:
        """The figures, and when the answers came."""
        earlier = self._computed.get(project)
        start = time.monotonic()
        if earlier is not None and start < earlier[0]:
            return earlier[2], earlier[3]
        from harken.studio.lead.insight import insight  # SciPy: loaded when a lead looks, not when the studio starts
        stored = load(tx, project)
        state = len(stored), stored[-1].seq if stored else 0
        if earlier is None or earlier[1] != state:
            earlier = start, state, insight(stored, form), [answer.at for answer in stored]
        now = time.monotonic()
        self._computed[project] = (now + max(FRESH_SECONDS, SHARE * (now - start)), *earlier[1:])
        return earlier[2], earlier[3]


def routes(site: Site) -> list[BaseRoute]:
    """Every page under /lead."""
    return [*_making(site), *_figures(site), *_managing(site)]


def _figures(site: Site) -> list[BaseRoute]:
    """What was said in a project: the overview, and the items behind its numbers."""
    figures = Figures()

    async def of(request: Request) -> tuple[dict[str, Any], Insight, list[str]]:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        insight, times = await site.read(lambda tx: figures.of(tx, project["id"], project["form"]))
        return project, insight, times

    async def view(request: Request) -> Response:
        project, insight, times = await of(request)
        progress = await site.call(request, "get_progress", path={"project": project["id"]})
        decided = await site.read(lambda tx: readings(tx, project["id"]))
        open_ = [o for o in insight.queue if o.item not in decided][:QUEUE]
        queue = await site.read(lambda tx: _rows(tx, [o.item for o in open_]))
        held = (await site.call(request, "list_held", path={"project": project["id"]}))["items"]
        now = datetime.now(UTC)
        counts, title = charts.by_hour(times, now)
        return render(request, "lead_project.html", tab="view", project=project, task=TASKS[project["kind"]],
                      insight=insight, progress=progress, counts=counts,
                      chart_title=title, queue=[(o, queue[o.item]) for o in open_ if o.item in queue],
                      decided=[(words, list(decided.values()).count(name)) for name, words in READINGS.items()],
                      left=time_left(progress), hour_ago=stamp(now - timedelta(hours=1)), gold=gold_of(progress),
                      charts=charts, held=held)

    async def models(request: Request) -> Response:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        asked = {k: v for k in ("use_case", "tag", "group") if (v := request.query_params.get(k))}
        result, problem = None, ""
        try:
            result = await site.call(request, "which_model", path={"project": project["id"]}, query=asked)
        except ApiError as error:
            if error.code != "conflict":
                raise
            problem = f"{error.message} {error.hint}"
        return render(request, "lead_models.html", tab="models", project=project, result=result, problem=problem,
                      query=request.query_params, charts=charts)

    async def listed(request: Request) -> Response:
        project, insight, _ = await of(request)
        rows, title, after = await site.read(lambda tx: _listed(tx, project["id"], request.query_params, insight))
        return render(request, "lead_items.html", tab="items", project=project, rows=rows, title=title, after=after,
                      lists=LISTS, query=request.query_params, split={o.item: o for o in insight.queue}, charts=charts)

    return [Route("/lead/projects/{project}", page(view, who="reader")),
            Route("/lead/projects/{project}/models", page(models, who="reader")),
            Route("/lead/projects/{project}/items", page(listed, who="reader"))]


def _managing(site: Site) -> list[BaseRoute]:
    """One item, and a project's settings."""
    async def item(request: Request) -> Response:
        shown = await site.call(request, "get_item", path={"item": number_in_path(request.path_params["item"])})
        project = await site.call(request, "get_project", path={"project": shown["project"]})
        people = await names(request)
        return render(request, "lead_item.html", tab="items", project=project, item=shown, people=people,
                      readings=READINGS, categories=CATEGORIES, edited=edited)

    async def names(request: Request) -> dict[int, str]:
        listed = await site.call(request, "list_users", query={"limit": 500})
        return {u["id"]: u["name"] for u in listed["items"]}

    async def settings(request: Request) -> Response:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        snapshots = await site.call(request, "list_snapshots", query={"project": project["id"], "limit": 500})
        progress = await site.call(request, "get_progress", path={"project": project["id"]})
        wordings = await site.call(request, "list_instructions", path={"project": project["id"]})
        users = (await site.call(request, "list_users", query={"limit": 500}))["items"]
        end = await site.read(audit_end)
        return render(request, "lead_settings.html", audit_end=end, tab="settings", project=project, task=TASKS[project["kind"]],
                      presets=PRESETS, users=users, members={m["user"]: m["state"] for m in progress["labelers"]},
                      snapshots=snapshots["items"], wordings=wordings["items"])

    return [Route("/lead/projects/{project}/settings", page(settings, who="reader")),
            Route("/lead/items/{item}", page(item, who="reader"))]


def _making(site: Site) -> list[BaseRoute]:
    """New projects and new people."""
    async def new(request: Request) -> Response:
        return render(request, "lead_new.html", tasks=TASKS, qualify=QUALIFY)

    async def people(request: Request) -> Response:
        users = (await site.call(request, "list_users", query={"limit": 500}))["items"]
        lead = request.state.user.role == "lead"
        invitations = (await site.call(request, "list_invitations"))["items"] if lead else []
        projects = (await site.call(request, "list_projects"))["items"]
        return render(request, "lead_people.html", here="people", users=users, invitations=invitations, projects=projects)

    return [Route("/lead/new", page(new, who="lead")), Route("/lead/people", page(people, who="reader"))]


def edited(payload: dict[str, Any]) -> list[tuple[str, str]]:
    """An edit as runs of text: the same, gone from the original, added."""
    before, after = payload["original"], payload["completion"]
    runs, at = [], 0
    for span in payload["spans"]:
        runs += [("same", after[at:span["to"][0]]), ("gone", before[slice(*span["from"])]), ("added", after[slice(*span["to"])])]
        at = span["to"][1]
    return [(what, words) for what, words in (*runs, ("same", after[at:])) if words]


def time_left(progress: dict[str, Any]) -> float | None:
    """Seconds until the last answer at the last hour's pace; None where nobody works."""
    left = max(0, progress["answers_wanted"] - progress["answers"])
    if not left:
        return 0.0
    return 3600 * left / progress["last_hour"] if progress["last_hour"] else None


def gold_of(progress: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Gold questions by labeler: (right, asked)."""
    return {p["name"]: (sum(v[0] for v in p["score"].values()), sum(v[1] for v in p["score"].values()))
            for p in progress["labelers"]}


def _rows(tx: Connection, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    query = (select(items, prompts.c.body.label("asked")).outerjoin(prompts, items.c.prompt_key == prompts.c.key)
             .where(items.c.id.in_(list(ids))))
    return {row.id: item_json(row) for row in tx.execute(query)}


def _listed(tx: Connection, project: int, query: Any, insight: Insight) -> tuple[list[dict[str, Any]], str, int | None]:
    """Rows of a list, its title, and where to go on."""
    what = query.get("list", "")
    after = number_in_path(query["after"]) if query.get("after") else 0
    c = items.c
    where = [c.project_id == project, c.id > after]
    title = LISTS.get(what, "All items")
    if what in ("open", "done", "set_aside"):
        where.append(c.state == what)
    elif what == "flagged":
        where.append(c.flags > 0)
    elif what == "decided":
        where.append(c.id.in_(sorted(readings(tx, project))[:5000]))
    elif what == "answered":
        where.append(c.done > 0)
    elif what == "gold":
        where.append(c.role != "task")
    elif what == "ungraded":
        ungraded = (judgments.c.role == "qualify", judgments.c.kind == "demonstration",
                    judgments.c.seq.not_in(select(grades.c.judgment_seq)))
        where.append(c.id.in_(select(judgments.c.item_id).where(*ungraded)))
    elif what == "repeated":
        where.append(c.id.in_(select(judgments.c.item_id).where(judgments.c.role == "repeat")))
    elif what in insight.split or what in ("disagree", "contradict"):
        where.append(c.id.in_(sorted(insight.split.get(what, ()))[:5000]))
        title = LISTS.get(what) or f"Marked: {what.removeprefix('flag:').replace('_', ' ')}"
    people = query.getlist("labeler")[:9]
    for name in people:
        own = judgments.c.labeler == name, judgments.c.seq.not_in(select(retractions.c.judgment_seq))
        where.append(c.id.in_(select(judgments.c.item_id).where(judgments.c.item_id.is_not(None), *own)))
    if people:
        title = f"{title if what else 'Answered'} by {' and '.join(people)}"
    if start := query.get("from"):
        end = query.get("to") or "9"
        e = events.c
        within = e.project_id == project, e.kind == "submit", e.created_at >= start, e.created_at < end
        where.append(c.id.in_(select(e.item_id).where(*within)))
        title = f"Answered from {start[:16].replace('T', ' ')}"
        title += (f" to {end[:16].replace('T', ' ')}" if len(end) > 1 else "") + " UTC"
    ask = (select(items, prompts.c.body.label("asked")).outerjoin(prompts, c.prompt_key == prompts.c.key)
           .where(*where).order_by(c.id))
    rows = [item_json(row) for row in tx.execute(ask.limit(SHOWN + 1))]
    return rows[:SHOWN], title, rows[SHOWN - 1]["id"] if len(rows) > SHOWN else None
