"""What stands before a site: known host names, no requests of other sites, and headers that bind the browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from harken.web.errors import ApiError
from harken.web.site import Site

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
                               "connect-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'self'; "
                               "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY", "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
RAW_HEADERS = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
Failure = Callable[[Request, Exception], Response]


def guard_host(site: Site, request: Request) -> None:
    """A page elsewhere can make a browser reach loopback under its own name (DNS rebinding): only known names are served."""
    if site.hosts is None:
        return
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name not in site.hosts:
        raise ApiError("host", "This studio does not serve that host name.", "Open the address that harken studio printed.")
    if site.single_user and any(h in request.headers for h in ("x-forwarded-for", "forwarded", "x-real-ip")):
        raise ApiError("proxy_needs_accounts", "Behind a proxy the studio needs accounts.",
                       "harken users add NAME --role lead, then start it again.")


def guard_origin(site: Site, request: Request) -> None:
    """What changes something must come from our own pages, or from a program (which sends no Origin). A proxy may have changed
    the Host header: pages under a public name are our own whatever it is."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    foreign = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    own = origin is None or urlsplit(origin).netloc == host or urlsplit(origin).hostname in site.public_names
    if foreign or not own:
        raise ApiError(
            "origin",
            "The request comes from another site.",
            "Use the studio's own pages, or a token. Behind a proxy: start it with --public-name NAME, or let the proxy "
            "pass the Host header on (proxy_set_header Host $http_host).",
        )


class Guard:
    """Adds the security headers to every answer, and for pages says who is looking (`request.state`).

    `failure` makes the page of a request that is refused here.
    """

    def __init__(self, app: Any, site: Site, failure: Failure) -> None:
        self.app, self.site, self.failure = app, site, failure

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*map(self._based, message["headers"]), *RAW_HEADERS]
            await send(message)

        base = self.site.base
        if base and (scope["path"] == base or scope["path"].startswith(base + "/")):  # a proxy that hands the whole path on
            scope = {
                **scope,
                "path": scope["path"][len(base) :] or "/",
                "raw_path": scope.get("raw_path", b"")[len(base) :] or b"/",
            }
        scope.setdefault("state", {})["base"] = base
        if not is_api(scope["path"]):
            request = Request(scope)
            scope["state"].update(user=None, csrf="", single_user=self.site.single_user)
            try:
                guard_host(self.site, request)
                user, csrf, _, _ = await self.site.who(request)
            except Exception as error:  # the server's edge
                await self.failure(request, error)(scope, receive, guarded)
                return
            scope["state"].update(user=user, csrf=csrf)
        await self.app(scope, receive, guarded)


    def _based(self, header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """A redirect within the site leads below its base."""
        name, value = header
        inside = name == b"location" and value.startswith(b"/") and not value.startswith(b"//")
        return (name, self.site.base.encode() + value) if inside else header


def is_api(path: str) -> bool:
    """Whether a program asks, not a person: failures are JSON there, and nobody need be known for a page's sake."""
    return path.startswith(("/api/", "/static/"))
