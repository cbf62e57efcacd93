"""What every page shares: its template, who may see it, and the page of a failure.

Whoever is not logged in is sent to /login; a labeler finds no page under /lead. Scripts are modules from /static,
under a policy that allows no inline script and no other origin.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from harken.studio.languages import NAMES, RIGHT_TO_LEFT, catalogue, chosen
from harken.studio.tasks import TASKS
from harken.web.assets import SHARED, Assets
from harken.web.errors import as_api_error, not_found
from harken.web.icons import icon

STUDIO = Path(__file__).parents[1]
ASSETS = Assets(STUDIO / "static", SHARED)
CATEGORIES = (("violence", "Violence"), ("sexual", "Sexual content"), ("hate", "Hate"), ("self_harm", "Self-harm"),
              ("abuse", "Abuse"), ("other", "Other disturbing content"))

LANGUAGE = "harken_language"
"""The cookie that holds which language somebody chose."""
_words: ContextVar[Mapping[str, str]] = ContextVar("words", default={})  # noqa: B039  never changed in place

Page = Callable[[Request], Awaitable[Response]]


class Loader(FileSystemLoader):
    """Templates whose addresses begin where the studio does: `base` stands before each path."""

    def get_source(self, environment: Environment, template: str) -> Any:
        source, name, fresh = super().get_source(environment, template)
        return PATHS.sub(r'\1="{{ base }}/', source), name, fresh


PATHS = re.compile(r'\b(href|src|action)="/')


@cache
def templates() -> Environment:
    env = Environment(loader=Loader(STUDIO / "templates"), autoescape=select_autoescape(default=True),
                      undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.globals.update(_=lambda words: _words.get().get(words, words), zip=zip, icon=lambda name: Markup(icon(name)),
                       kinds={name: task.title for name, task in TASKS.items()}, tasks=TASKS)
    return env


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template with what every page knows."""
    base = getattr(request.state, "base", "")
    language = chosen(request.cookies.get(LANGUAGE), request.headers.get("accept-language", ""))
    _words.set(catalogue(language))
    values = {
        "base": base,
        "language": language,
        "right_to_left": language in RIGHT_TO_LEFT,
        "languages": NAMES,
        "here_path": request.url.path,
        "static": lambda name: base + ASSETS.address(name),
        "user": request.state.user,
        "csrf": request.state.csrf,
        "single_user": request.state.single_user,
        "here": "",
        **values,
    }
    html = templates().get_template(template).render(**values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})  # nobody reads it by "back" after the log-out


def page(handler: Page, *, who: str = "user") -> Page:
    """Access and errors around a page. `who`: anyone, user, reader (lead or viewer), lead."""
    async def answer(request: Request) -> Response:
        user = request.state.user
        if user is None and who != "anyone":
            return RedirectResponse(f"/login?next={quote(asked_for(request))}", 303)
        allowed = {"reader": ("lead", "viewer"), "lead": ("lead",)}.get(who)
        if allowed and user.role not in allowed:
            return render(request, "problem.html", 404, title="Not found", words="There is no such page.")
        try:
            if any("\x00" in value for value in request.query_params.values()):  # PostgreSQL takes none
                raise not_found("page")
            return await handler(request)
        except Exception as error:  # the server's edge: whatever fails becomes a page
            return failure(request, error)
    return answer


def asked_for(request: Request) -> str:
    """A page's path with its query: a login goes back to the same list."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def failure(request: Request, error: Exception) -> Response:
    """A failure as a page, with what to do next."""
    error = as_api_error(error)
    title = "Not found" if error.status == 404 else "That did not work"
    return render(request, "problem.html", error.status, title=title, words=f"{error.message} {error.hint}".strip())
