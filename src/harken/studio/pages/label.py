"""The labelers' pages: the projects, the labeling page, one's account, and the ways in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from harken.studio.languages import catalogue
from harken.studio.pages.frame import ASSETS, CATEGORIES, page, render
from harken.studio.tasks import TASKS
from harken.studio.work.crowd import EXTRA, open_crowd, wanted_of
from harken.studio.work.mine import QUEUES
from harken.web import accounts
from harken.web.operations import number_in_path
from harken.web.site import Site

REASONS = (("unclear", "I cannot tell what is asked"), ("too_hard", "Too hard or too long"), ("language", "Not my language"),
           ("knowledge", "I know too little about it"), ("conflict", "I have a stake in it"), ("broken", "It is broken"),
           ("other", "Another reason"))
SCOPES = (("read", "Read projects, items and exports"), ("label", "Answer tasks"), ("lead", "Make and change projects"))
MAY = {"lead": ("read", "label", "lead"), "labeler": ("label",), "viewer": ("read",)}


ORDERS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "": ("as they were made", lambda p: p["id"]), "name": ("by name", lambda p: p["name"].casefold()),
    "open": ("most to do first", lambda p: p["items_done"] - p["items_total"]),
    "new": ("newest first", lambda p: -p["id"])}


def local(path: str) -> str:
    """A path on this server to go on to after the login; anything else becomes /."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and all(" " < c < "\x7f" for c in path)
    return path if plain else "/"


def routes(site: Site) -> list[BaseRoute]:
    """Every page but the lead's."""
    return [*_working(site), *_entering(site), *_own(site)]


def _working(site: Site) -> list[BaseRoute]:
    """The projects, the labeling page, one's answers."""
    async def home(request: Request) -> Response:
        listed = (await site.call(request, "list_projects", query={"limit": 500}))["items"]
        everything = request.query_params.get("show") == "all"
        shown = [p for p in listed if everything or not (p["hidden"] or p["status"] == "archived")]
        order = request.query_params.get("sort", "")
        shown.sort(key=ORDERS.get(order, ORDERS[""])[1])
        return render(request, "home.html", here="home", projects=shown, left_out=len(listed) - len(shown), everything=everything,
                      orders={name: words for name, (words, _) in ORDERS.items()}, order=order)

    async def label(request: Request) -> Response:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        shown = ("id", "name", "kind", "purpose", "form", "instructions", "my")
        data: dict[str, Any] = {"project": {k: project[k] for k in shown}, "kinds": list(TASKS),
                                "user": {"id": request.state.user.id, "name": request.state.user.name}}
        wanted = await site.read(lambda tx: wanted_of(tx, request.state.user.id, project["id"]))
        data["empty"] = project["items_total"] == 0
        data["crowd"] = {"wanted": wanted} if wanted else None
        modules = [site.base + ASSETS.address(name) for name in label_modules()]
        return render(
            request,
            "label.html",
            words_of=catalogue,
            project=project,
            kind=TASKS[project["kind"]].title,
            data=data,
            modules=modules,
            reasons=REASONS,
            categories=CATEGORIES,
        )

    async def answers(request: Request) -> Response:
        project = await site.call(request, "get_project", path={"project": number_in_path(request.path_params["project"])})
        asked = request.query_params
        query: dict[str, Any] = {k: v for k in ("queue", "q") if (v := asked.get(k, "")[:200])}
        query = {k: v for k, v in query.items() if k != "queue" or v in QUEUES}
        if before := asked.get("before"):
            query["before"] = number_in_path(before)
        mine = await site.call(request, "list_mine", path={"project": project["id"]}, query=query)
        return render(request, "label_answers.html", project=project, mine=mine, queues=QUEUES, queue=query.get("queue", ""),
                      words=query.get("q", ""), in_words=in_words)

    async def worker(request: Request) -> Response:
        return FileResponse(ASSETS.files["worker.js"], media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    return [
        Route("/", page(home)),
        Route("/label/worker.js", page(worker, who="anyone")),  # here, as it may serve only what lies beside and below it
        Route("/label/{project}", page(label)), Route("/label/{project}/answers", page(answers))]


def _entering(site: Site) -> list[BaseRoute]:
    """The ways in: a login, an invitation, a crowd platform's link, the first account."""
    async def login(request: Request) -> Response:
        onward = local(request.query_params.get("next", "/"))
        return RedirectResponse(onward, 303) if request.state.user else render(
            request, "login.html", next=onward, sso=getattr(site, "provider", None) is not None)

    async def join(request: Request) -> Response:
        return render(request, "join.html")

    async def crowd(request: Request) -> Response:
        def look(tx: Any) -> Any:
            row = open_crowd(tx, request.path_params["link"])
            return row.name, row.parameter, row.settings.get("consent_text", ""), row.project_id

        name, parameter, own, project = await site.read(look)
        participant = request.query_params.get(parameter, "")[:200]
        extra = {k: request.query_params.get(k, "")[:200] for k in EXTRA}
        return render(request, "crowd.html", name=name, participant=participant, parameter=parameter, extra=extra,
                      link=request.path_params["link"], consent="\n\n".join([accounts.CONSENT, *([own] if own else [])]),
                      project_id=project)

    async def setup(request: Request) -> Response:
        return render(request, "setup.html") if request.state.single_user else RedirectResponse("/", 303)

    return [Route("/login", page(login, who="anyone")), Route("/join", page(join, who="anyone")),
            Route("/crowd/{link}", page(crowd, who="anyone")), Route("/setup", page(setup, who="anyone"))]


def _own(site: Site) -> list[BaseRoute]:
    """One's account."""
    async def account(request: Request) -> Response:
        me = await site.call(request, "me")
        tokens = (await site.call(request, "list_tokens"))["items"]
        scopes = [s for s in SCOPES if s[0] in MAY[request.state.user.role]]
        has_password = await site.read(lambda tx: accounts.stored_password(tx, request.state.user.name)[1] is not None)
        return render(
            request,
            "account.html",
            has_password=has_password,
            hidden=me["hidden"],
            categories=CATEGORIES,
            tokens=tokens,
            scopes=scopes,
        )

    return [Route("/account", page(account))]


def in_words(answer: dict[str, Any] | None) -> str:
    """An answer in a few words, as its labeler gave it; empty where there is none."""
    if not answer:
        return ""
    if answer.get("ranks"):
        rows = {rank: [letter for letter, r in zip("ABCDEFGHI", answer["ranks"]) if r == rank] for rank in answer["ranks"]}
        return " > ".join(" = ".join(rows[rank]) for rank in sorted(rows))
    if "preference" in answer:
        return "a tie" if answer["preference"] == 0 else f"{'A' if answer['preference'] < 0 else 'B'} is better"
    if answer.get("text"):
        n = len(answer["text"].split())
        return f"{n:,} word{'s' * (n != 1)}"
    return ", ".join(f"{k} {v}" for k, v in answer.items() if isinstance(v, int | float | str) and v != "")[:80]


@cache
def label_modules() -> tuple[str, ...]:
    """The labeling page's modules, to be fetched at once instead of one after the other."""
    other = ("page.js", "join.js", "theme.js", "lead.js", "worker.js")
    later = ("math.js", "vendor/temml.js")  # where a formula is shown
    return tuple(name for name in ASSETS.files if name.endswith(".js") and name not in (*other, *later))
