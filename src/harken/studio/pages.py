"""The pages: server-rendered, filled by the same API operations that programs call.

    routes(studio)      # for app.create_app

Whoever is not logged in is sent to /login; a labeler finds no page under /lead. Scripts are modules from /static,
under a policy that allows no inline script and no other origin (F19, F20).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from harken.studio.errors import told
from harken.studio.icons import icon

if TYPE_CHECKING:
    from harken.studio.app import Studio

HERE = Path(__file__).parent
KINDS = {"demonstrate": "Write the ideal answer", "rate_and_rank": "Rate and rank answers", "compare": "Compare two answers",
         "edit": "Improve an answer", "write_prompt": "Write a prompt"}
REASONS = (("unclear", "I cannot tell what is asked"), ("too_hard", "Too hard or too long"), ("language", "Not my language"),
           ("knowledge", "I know too little about it"), ("conflict", "I have a stake in it"), ("broken", "It is broken"),
           ("other", "Another reason"))
CATEGORIES = (("violence", "Violence"), ("sexual", "Sexual content"), ("hate", "Hate"), ("self_harm", "Self-harm"),
              ("abuse", "Abuse"), ("other", "Other disturbing content"))

SCOPES = (("read", "Read projects, items and exports"), ("label", "Answer tasks"), ("lead", "Make and change projects"))
MAY = {"lead": ("read", "label", "lead"), "labeler": ("label",), "viewer": ("read",)}

Page = Callable[[Request], Awaitable[Response]]


@cache
def version() -> str:
    """A hash over the static files: it stands in their address, so that they may be cached for good."""
    digest = hashlib.sha256()
    for path in sorted((HERE / "static").rglob("*.*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def static(name: str) -> str:
    """A static file's address. The version is a folder, so that modules import each other under the same one."""
    return f"/static/{version()}/{name}"


class Versioned(StaticFiles):
    """Static files under /static/VERSION/…, cached for a year; under another version they are gone (404)."""

    def get_path(self, scope: Any) -> str:
        first, _, rest = super().get_path(scope).partition("/")
        return rest if first == version() else "-"

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


@cache
def templates() -> Environment:
    env = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=select_autoescape(default=True),
                      undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.globals.update(static=static, icon=lambda name: Markup(icon(name)), kinds=KINDS)
    return env


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template with what every page knows."""
    values = {"user": request.state.user, "csrf": request.state.csrf, "single_user": request.state.single_user,
              "here": "", **values}
    html = templates().get_template(template).render(**values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})  # nobody reads it by "back" after the log-out


def page(handler: Page, *, who: str = "user") -> Page:
    """Access and errors around a page. `who`: anyone, user, reader (lead or viewer), lead."""
    async def answer(request: Request) -> Response:
        user = request.state.user
        if user is None and who != "anyone":
            return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)
        allowed = {"reader": ("lead", "viewer"), "lead": ("lead",)}.get(who)
        if allowed and user.role not in allowed:
            return render(request, "problem.html", 404, title="Not found", words="There is no such page.")
        try:
            return await handler(request)
        except Exception as error:  # the server's edge: whatever fails becomes a page
            return failure(request, error)
    return answer


def failure(request: Request, error: Exception) -> Response:
    """A failure as a page, with what to do next."""
    error = told(error)
    title = "Not found" if error.status == 404 else "That did not work"
    return render(request, "problem.html", error.status, title=title, words=f"{error.message} {error.hint}".strip())


def local(path: str) -> str:
    """A path on this server to go on to after the login; anything else becomes /."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and all(" " < c < "\x7f" for c in path)
    return path if plain else "/"


def routes(studio: Studio) -> list[BaseRoute]:
    """Every page, and the static files."""
    from harken.studio import pages_lead

    async def home(request: Request) -> Response:
        listed = await studio.call(request, "list_projects")
        return render(request, "home.html", here="home", projects=listed["items"])

    async def label(request: Request) -> Response:
        project = await studio.call(request, "get_project", path={"project": request.path_params["project"]})
        data = {"project": {k: project[k] for k in ("id", "name", "kind", "purpose", "form", "instructions", "my")},
                "user": {"id": request.state.user.id, "name": request.state.user.name}}
        modules = [static(str(p.relative_to(HERE / "static"))) for p in label_modules()]
        return render(request, "label.html", project=project, kind=KINDS[project["kind"]], data=data, modules=modules,
                      reasons=REASONS, categories=CATEGORIES)

    async def worker(request: Request) -> Response:
        return FileResponse(HERE / "static" / "worker.js", media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    async def login(request: Request) -> Response:
        onward = local(request.query_params.get("next", "/"))
        return RedirectResponse(onward, 303) if request.state.user else render(request, "login.html", next=onward)

    async def join(request: Request) -> Response:
        return render(request, "join.html")

    async def setup(request: Request) -> Response:
        return render(request, "setup.html") if request.state.single_user else RedirectResponse("/", 303)

    async def account(request: Request) -> Response:
        me = await studio.call(request, "me")
        tokens = (await studio.call(request, "list_tokens"))["items"]
        scopes = [s for s in SCOPES if s[0] in MAY[request.state.user.role]]
        return render(request, "account.html", hidden=me["hidden"], categories=CATEGORIES, tokens=tokens, scopes=scopes)

    return [
        Route("/", page(home)), Route("/label/{project:int}", page(label)),
        Route("/label/worker.js", page(worker, who="anyone")),  # here, as it may serve only what lies beside and below it
        Route("/login", page(login, who="anyone")),
        Route("/join", page(join, who="anyone")), Route("/setup", page(setup, who="anyone")), Route("/account", page(account)),
        *pages_lead.routes(studio), Mount("/static", Versioned(directory=HERE / "static")),
    ]


@cache
def label_modules() -> tuple[Path, ...]:
    """The labeling page's modules, to be fetched at once instead of one after the other."""
    own = ("page.js", "join.js", "theme.js", "lead.js", "worker.js")
    return tuple(p for p in sorted((HERE / "static").rglob("*.js")) if p.name not in own)
