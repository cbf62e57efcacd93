"""The lead's pages: a project's figures, the items behind them, one item with all that was said, settings, people."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from harken.store.events import end as audit_end
from harken.store.events import stamp
from harken.store.schema import prompts
from harken.store.studio_schema import assignments, items
from harken.studio.api.project import item_json
from harken.studio.api.review import READINGS, readings
from harken.studio.lead import charts
from harken.studio.pages.frame import CATEGORIES, page, render
from harken.studio.pages.table import routes as table_pages
from harken.studio.tasks import TASKS
from harken.studio.work.hooks import KINDS
from harken.studio.work.settings import PRESETS, QUALIFY
from harken.studio.work.stored import load
from harken.web.errors import ApiError
from harken.web.operations import number_in_path
from harken.web.site import Site

if TYPE_CHECKING:
    from harken.studio.lead.insight import Insight

FRESH_SECONDS, SHARE = 10.0, 20  # figures are kept so long, or 20 times as long as they took: a twentieth of one core
AT_ONCE, LATER = 1000, 0.5  # figures of more answers are not waited for, and begun when the page is likely out
PATIENCE = 0.5  # seconds that a page waits for figures of fewer: 200 rankings with their intervals take longer
QUEUE = 10

class Figures:
    """Insights of projects, kept while nothing new was said. Where there is much to work out, a page does not wait for it."""

    def __init__(self) -> None:
        self._computed: dict[int, tuple[float, tuple[int, int], Insight, list[str]]] = {}  # good until, of which state
        self._running: dict[int, asyncio.Future[None]] = {}

    async def of(self, site: Site, project: int, form: dict[str, Any], answers: int) -> tuple[Insight, list[str]] | None:
        """The figures, and when the answers came; those of a moment ago, or None, where new ones take too long."""
        earlier = self._computed.get(project)
        if earlier is None or time.monotonic() >= earlier[0]:
            running = self._running.get(project)
            if running is None:
                running = asyncio.ensure_future(self._begin(site, project, form, LATER if answers > AT_ONCE else 0.0))
                self._running[project] = running
                running.add_done_callback(lambda _: self._running.pop(project, None))
            if answers <= AT_ONCE:
                await asyncio.wait([running], timeout=PATIENCE)
            if running.done():
                running.result()  # raises what it raised
        latest = self._computed.get(project)
        return None if latest is None else (latest[2], latest[3])

    async def _begin(self, site: Site, project: int, form: dict[str, Any], after: float) -> None:
        await asyncio.sleep(after)
        await site.slow(self._work_out, site, project, form)

    def _work_out(self, site: Site, project: int, form: dict[str, Any]) -> None:
        from harken.studio.lead.insight import insight  # SciPy: loaded when a lead looks, not when the studio starts
        earlier, start = self._computed.get(project), time.monotonic()
        with site.db.link.reading() as tx:
            stored = load(tx, project)
        state = len(stored), stored[-1].seq if stored else 0
        if earlier is None or earlier[1] != state:
            earlier = start, state, insight(stored, form), [answer.at for answer in stored]
        now = time.monotonic()
        self._computed[project] = (now + max(FRESH_SECONDS, SHARE * (now - start)), *earlier[1:])


def routes(site: Site) -> list[BaseRoute]:
    """Every page under /lead."""
    return [*_making(site), *_figures(site), *_managing(site)]


def _figures(site: Site) -> list[BaseRoute]:
    """What was said in a project: the overview, and the items behind its numbers."""
    figures = Figures()

    async def view(request: Request) -> Response:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        progress = await site.call(request, "get_progress", path={"project": project["id"]})
        worked_out = await figures.of(site, project["id"], project["form"], progress["answers"])
        insight, times = worked_out or (None, [])
        decided = await site.read(lambda tx: readings(tx, project["id"]))
        open_ = [o for o in insight.queue if o.item not in decided][:QUEUE] if insight else []
        queue = await site.read(lambda tx: _rows(tx, [o.item for o in open_]))
        held = (await site.call(request, "list_held", path={"project": project["id"]}))["items"]
        anchored = await site.slow(_anchored, site, project["id"]) if insight else None
        now = datetime.now(UTC)
        counts, title = charts.by_hour(times, now)
        return render(request, "lead_project.html", tab="view", project=project, task=TASKS[project["kind"]],
                      insight=insight, progress=progress, counts=counts, anchored=anchored,
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
                      query=request.query_params, charts=charts, quoted=quote)

    return [Route("/lead/projects/{project}", page(view, who="reader")),
            Route("/lead/projects/{project}/models", page(models, who="reader")),
            *table_pages(site, figures)]


def _anchored(site: Site, project: int) -> Any:
    from harken.studio.lead.anchoring import anchoring, first_answers
    with site.db.link.reading() as tx:
        return anchoring(first_answers(tx, project))


def _managing(site: Site) -> list[BaseRoute]:
    """One item, and a project's settings."""
    async def item(request: Request) -> Response:
        shown = await site.call(request, "get_item", path={"item": number_in_path(request.path_params["item"])})
        project = await site.call(request, "get_project", path={"project": shown["project"]})
        people = await names(request)
        comments = (await site.call(request, "list_comments", path={"item": shown["id"]}))["items"]
        looked = await site.read(lambda tx: {row.user_id: people.get(row.user_id, "") for row in tx.execute(
            select(assignments.c.user_id).where(assignments.c.item_id == shown["id"]).distinct())})
        return render(
            request,
            "lead_item.html",
            comments=comments,
            looked=looked,
            tab="items",
            project=project,
            item=shown,
            people=people,
            readings=READINGS,
            categories=CATEGORIES,
            edited=edited,
        )

    async def names(request: Request) -> dict[int, str]:
        listed = await site.call(request, "list_users", query={"limit": 500})
        return {u["id"]: u["name"] for u in listed["items"]}

    async def settings(request: Request) -> Response:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        snapshots = await site.call(request, "list_snapshots", query={"project": project["id"], "limit": 500})
        progress = await site.call(request, "get_progress", path={"project": project["id"]})
        wordings = await site.call(request, "list_instructions", path={"project": project["id"]})
        users = (await site.call(request, "list_users", query={"limit": 500}))["items"]
        crowds = (await site.call(request, "list_crowds", path={"project": project["id"]}))["items"]
        end = await site.read(audit_end)
        return render(
            request,
            "lead_settings.html",
            audit_end=end,
            crowds=crowds,
            tab="settings",
            project=project,
            task=TASKS[project["kind"]],
            presets=PRESETS,
            users=users,
            members={m["user"]: m["state"] for m in progress["labelers"]},
            snapshots=snapshots["items"],
            wordings=wordings["items"],
        )

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
        hooks = (await site.call(request, "list_webhooks"))["items"] if lead else []
        erasures = (await site.call(request, "list_erasures"))["items"] if lead else []
        return render(
            request,
            "lead_people.html",
            here="people",
            users=users,
            erasures=erasures,
            hooks=hooks,
            hook_kinds=KINDS,
            invitations=invitations,
            projects=projects,
        )

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
