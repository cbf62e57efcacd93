"""The pages of single sign-on: away to the provider, and back with a session."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from harken.store import events
from harken.store.names import mixed_scripts, name_key, plain
from harken.store.studio_schema import users
from harken.studio.pages.frame import page
from harken.studio.pages.label import local
from harken.web import accounts
from harken.web.accounts import SESSION_DAYS, User
from harken.web.errors import ApiError, not_found
from harken.web.site import COOKIE, Site, address_of
from harken.web.sso import MINUTES, Identity, Provider

TICKET = "harken_sso"
BACK = "/login/sso/back"


def routes(site: Site, provider: Provider | None) -> list[BaseRoute]:
    """Nothing where no provider is named."""
    if provider is None:
        return []

    def back(request: Request) -> str:
        return f"{site.address or str(request.base_url).rstrip('/') + site.base}{BACK}"

    async def away(request: Request) -> Response:
        site.limits.login(address_of(request), "")
        address, ticket = await site.slow(provider.begin, back(request), local(request.query_params.get("next", "/")))
        response = RedirectResponse(address, 303)
        response.set_cookie(TICKET, ticket, max_age=60 * MINUTES, httponly=True, samesite="lax",
                            secure=request.url.scheme == "https", path=site.base or "/")
        return response

    async def returned(request: Request) -> Response:
        site.limits.login(address_of(request), "")
        asked = request.query_params
        if asked.get("error"):
            raise ApiError("bad_login", f"The provider refused the sign-on ({asked['error'][:60]}).", "Begin again.")
        identity, onward = await site.slow(provider.finish, request.cookies.get(TICKET, ""), asked.get("state", ""),
                                           asked.get("code", ""), back(request))
        secret = await site.write(lambda tx: _session(tx, site, provider, identity))
        response = RedirectResponse(onward, 303)
        response.delete_cookie(TICKET, path=site.base or "/")
        response.set_cookie(COOKIE, secret, max_age=SESSION_DAYS * 86400, httponly=True, samesite="lax",
                            secure=request.url.scheme == "https", path=site.base or "/")
        return response

    return [Route("/login/sso", page(away, who="anyone")), Route(BACK, page(returned, who="anyone"))]


def _session(tx: Connection, site: Site, provider: Provider, identity: Identity) -> str:
    """A session for whoever came back: their account, or a new one."""
    now = site.clock()
    row: Any = tx.execute(select(users).where(users.c.subject == identity.subject)).first()
    if row is not None and row.state != "active":
        raise not_found("active account")
    if row is None and not provider.allows(identity):
        raise ApiError("forbidden", "Your address is none of those that may come in.", "Ask a lead.")
    user = accounts.as_user(row) if row is not None else _new(tx, provider, identity, now)
    return accounts.start_session(tx, user, now, site.idle_hours)[0]


def _new(tx: Connection, provider: Provider, identity: Identity, now: datetime) -> User:
    user = accounts.add_user(tx, _free_name(tx, identity.name), None, provider.role_of(identity), now, consent=None)
    tx.execute(update(users).where(users.c.id == user.id).values(subject=identity.subject))
    events.add(tx, "sso", now, user_id=user.id)
    return user


def _free_name(tx: Connection, wanted: str) -> str:
    """A name that nobody has and that looks like nobody's; the provider's names are not checked by us."""
    base = "".join(c for c in plain(wanted) if c.isprintable())[:50]
    base = base if name_key(base) and not mixed_scripts(base) else "labeler"
    for n in range(1, 1000):
        name = base if n == 1 else f"{base} {n}"
        with suppress(ApiError):
            accounts.check_name(tx, name, name_key(name))
            return name
    raise ApiError("conflict", f"There are too many accounts called {base}.", "Ask a lead for an invitation.")
