"""The studio as an ASGI application: its API and its pages over one site.

    studio = Studio(open_database("feedback.db"), single_user=True)
    app = create_app(studio)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from harken.store.database import Database
from harken.studio.api import account, hooks, label, lead, mine, models, project, review, table  # noqa: F401  they declare the operations, in this order
from harken.studio.api.declare import API
from harken.studio.pages import frame, sso
from harken.studio.pages import label as label_pages
from harken.studio.pages import lead as lead_pages
from harken.studio.work.hooks import Hooks
from harken.web.errors import ApiError
from harken.web.guard import Guard, is_api
from harken.web.http import problem, routes
from harken.web.site import LOOPBACK, Site
from harken.web.sso import Provider

__all__ = ["LOOPBACK", "Studio", "create_app"]


class Studio(Site):
    """A site with the studio's operations; `provider` signs people on, where there is one."""

    def __init__(self, db: Database, *, provider: Provider | None = None, **options: Any) -> None:
        super().__init__(db, API.operations, **options)
        self.provider = provider


def create_app(studio: Studio) -> Starlette:
    """The application: the API, and the pages."""
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        telling = asyncio.create_task(Hooks(studio).run())
        try:
            yield
        finally:
            telling.cancel()
            studio.close()

    async def failed(request: Request, error: Exception) -> Response:
        return problem(error) if is_api(request.url.path) else frame.failure(request, error)

    everything = [
        *routes(studio),
        *label_pages.routes(studio),
        *lead_pages.routes(studio),
        *sso.routes(studio, studio.provider),
        frame.ASSETS.mount(),
    ]
    return Starlette(routes=everything, middleware=[Middleware(Guard, site=studio, failure=frame.failure)], lifespan=lifespan,
                     exception_handlers={HTTPException: failed, ApiError: failed, Exception: failed})
