"""The chat page: one file of HTML, scripts and styles from /static under the studio's policy (no inline script)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from harken.serve.feedback import CONSENT
from harken.serve.server import Server
from harken.web.assets import SHARED, Assets

HERE = Path(__file__).parent
ASSETS = Assets(HERE / "static", SHARED)


@cache
def templates() -> Environment:
    env = Environment(loader=FileSystemLoader(HERE), autoescape=select_autoescape(default=True), undefined=StrictUndefined,
                      trim_blocks=True, lstrip_blocks=True)
    env.globals.update(static=ASSETS.address)
    return env


def routes(server: Server) -> list[BaseRoute]:
    async def home(request: Request) -> Response:
        return RedirectResponse("/chat", 303)

    async def chat(request: Request) -> Response:
        data: dict[str, Any] = {"models": server.arms.names, "feedback": server.db is not None, "keys": bool(server.keys),
                                "consent": CONSENT}
        html = templates().get_template("chat.html").render(data=json.dumps(data).replace("<", "\\u003c"))
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})

    return [Route("/", home), Route("/chat", chat), ASSETS.mount()]
