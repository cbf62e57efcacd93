"""`harken watch RUN…`: a local page with the curves of running runs, drawn anew every two seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from harken.core.errors import UserError
from harken.draw.html import text
from harken.draw.page import page
from harken.report import curves
from harken.report.load import RunData, load_runs, series

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; "
                                      "base-uri 'none'; frame-ancestors 'none'",
           "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def create_app(paths: Sequence[Path]) -> Starlette:
    """The application. It only reads; a run that has not begun yet is waited for."""
    def index(request: Request) -> Response:
        count = f"{len(paths)} run{'s' * (len(paths) != 1)}"
        return HTMLResponse(page("live.html", title="Harken: watching", count=count), headers=HEADERS)

    def shown(request: Request) -> Response:
        runs, waiting = read(paths)
        body = curves.training(runs) + "".join(f'<p class="small">{text(words)}</p>' for words in waiting)
        return HTMLResponse(body or '<p class="small">No row yet.</p>', headers={**HEADERS, "X-Status": status(runs)})

    def script(request: Request) -> Response:
        return FileResponse(Path(__file__).parent / "static" / "live.js", headers=HEADERS)

    routes = [Route("/", index), Route("/curves", shown), Route("/live.js", script)]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))])


def read(paths: Sequence[Path]) -> tuple[list[RunData], list[str]]:
    """The runs that can be read, and a sentence for each that cannot yet."""
    runs: list[RunData] = []
    waiting = []
    for path in paths:
        try:
            runs += load_runs([path])
        except UserError as error:
            waiting.append(f"Waiting for {path}: {error.fact}")
    return runs, waiting


def status(runs: Sequence[RunData]) -> str:
    """One line, in Latin-1 as a header must be: how many run, and when the last row came."""
    going = [run for run in runs if not run.done]
    if not runs:
        return "No run yet."
    if not going:
        return f"All {len(runs)} finished." if len(runs) > 1 else "Finished."
    steps = max((points[-1][0] for run in going for key in ("reward", "loss", "nll") if (points := series(run.metrics, key)[0])),
                default=0.0)
    newest = max(((run.path / "metrics.jsonl").stat().st_mtime for run in going if (run.path / "metrics.jsonl").exists()),
                 default=0.0)
    ago = f", last row {max(0, round(time.time() - newest))} s ago" if newest else ""
    return f"{len(going)} of {len(runs)} running, step {steps:,.0f}{ago}"


def serve(paths: Sequence[Path], port: int, say: Any = print) -> None:
    """Serves on loopback until it is interrupted. Raises `UserError` where the port is taken."""
    import socket

    import uvicorn
    config = uvicorn.Config(create_app(paths), log_level="warning", access_log=False, server_header=False, ws="none")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError as error:
        raise UserError(f"Port {port} cannot be used: {error.strerror}.", "Choose another: --port 0 takes a free one.") from None
    say(f"Watching: http://localhost:{sock.getsockname()[1]} (Ctrl-C ends it; the runs go on)", flush=True)
    uvicorn.Server(config).run(sockets=[sock])
