"""Webhooks: other programs are told of what happens, each event at least once and in the order of the audit.

    Hooks(site).deliver()          # sends what is due; returns how many were taken

A webhook remembers the last event that its receiver took (answered 2xx), so nothing is lost when the studio stops; one that
fails is tried again later and later. Messages follow Standard Webhooks (standardwebhooks.com): the signature is HMAC-SHA256 over
"id.timestamp.body". They hold numbers, never what people wrote: the receiver asks the API for that.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, insert, select, update

from harken.core.errors import UserError
from harken.store import events as log
from harken.store.events import stamp
from harken.store.studio_schema import events, webhooks
from harken.web.errors import ApiError
from harken.web.site import Site

KINDS = (
    "submit",
    "skip",
    "unsafe",
    "undo",
    "set_aside",
    "accept",
    "adjudicate",
    "comment",
    "items",
    "item",
    "project",
    "change",
    "user",
    "withdraw",
    "redact",
)
"""Kinds of events that a webhook may ask for."""
AT_ONCE = 50
"""Events that one webhook is sent in a row."""
SECONDS = 10
EVERY = 2.0
WAITS = (5, 30, 120, 600, 1800, 3600, 6 * 3600)
"""Seconds until the next try after the first, second, … failure; the last one for all further ones."""
LOCAL = ("localhost", "127.0.0.1", "::1")


def add_webhook(tx: Connection, url: str, kinds: Sequence[str], project: int | None, user: int, now: datetime) -> tuple[int, str]:
    """Its number, and the secret that signs its messages, which is told once. It begins with what happens from now on."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ApiError("bad_request", f"{url[:80]} is no address of a web server.", "Like https://example.org/hook.")
    if parts.scheme == "http" and parts.hostname not in LOCAL:
        raise ApiError("bad_request", "Messages leave this machine by https only.", "Give an address with https.")
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    row = {"url": url, "secret": secret, "kinds": sorted(set(kinds)), "project_id": project, "after": log.end(tx)[0], "tries": 0,
           "next_at": stamp(now), "problem": "", "made_by": user, "created_at": stamp(now), "revoked_at": None}
    key = tx.execute(insert(webhooks), row).inserted_primary_key
    assert key is not None
    log.add(tx, "webhook", now, user_id=user, project_id=project, body={"webhook": key[0], "host": parts.hostname})
    return int(key[0]), secret


def signature(secret: str, message: str, at: int, body: bytes) -> str:
    """The header webhook-signature of Standard Webhooks 1.0: "v1," and the base64 of the HMAC."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{message}.{at}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A receiver that has moved must be told to us: a message is for the address that a lead gave."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def send(hook: Any, event: Any) -> str:
    """Sends one event; returns what went wrong, or nothing."""
    body = json.dumps({"type": event["kind"], "timestamp": event["created_at"], "data": {
        "event": event["seq"], "project": event["project_id"], "item": event["item_id"], "assignment": event["assignment_id"],
        "judgment": event["judgment_seq"], "user": event["user_id"]}}, separators=(",", ":")).encode()
    message, at = f"msg_{hook['id']}_{event['seq']}", int(time.time())
    request = urllib.request.Request(hook["url"], body, method="POST", headers={  # http and https only: `add_webhook`
        "Content-Type": "application/json", "User-Agent": "harken", "webhook-id": message, "webhook-timestamp": str(at),
        "webhook-signature": signature(hook["secret"], message, at, body)})
    try:
        with _opener.open(request, timeout=SECONDS) as answer:
            return "" if 200 <= answer.status < 300 else f"answered {answer.status}"
    except urllib.error.HTTPError as error:
        return f"answered {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:  # the last: what answers speaks no HTTP
        return f"not reached ({type(error).__name__})"


class Hooks:
    """The deliveries of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._busy: set[int] = set()

    async def run(self) -> None:
        """Delivers what is due, again and again, until it is cancelled. Who hangs or is slow keeps no other receiver waiting."""
        while True:
            with contextlib.suppress(ApiError, UserError):  # the database is busy or gone: a later round does it
                for hook in await self.site.slow(self._due):
                    if hook["id"] not in self._busy:
                        self._busy.add(hook["id"])
                        threading.Thread(target=self._go_on, args=(hook["id"],), daemon=True).start()
            await asyncio.sleep(EVERY)

    def deliver(self) -> int:
        """Sends each webhook that is due its next events; returns how many were taken."""
        now = self.site.clock()
        return sum(self._deliver(hook, now) for hook in self._due())

    def _due(self) -> list[dict[str, Any]]:
        query = select(webhooks).where(webhooks.c.revoked_at.is_(None), webhooks.c.next_at <= stamp(self.site.clock()))
        with self.site.db.link.reading() as tx:
            return [dict(row) for row in tx.execute(query).mappings()]

    def _go_on(self, number: int) -> None:
        """Sends one webhook its events, as long as some are due."""
        try:
            with contextlib.suppress(ApiError, UserError, RuntimeError):  # the database is gone, or the studio ends
                while (hook := next((h for h in self._due() if h["id"] == number), None)) and self._deliver(
                        hook, self.site.clock()):
                    pass
        finally:
            self._busy.discard(number)

    def _deliver(self, hook: Any, now: datetime) -> int:
        query = select(events).where(events.c.seq > hook["after"], events.c.kind.in_(hook["kinds"]))
        if hook["project_id"] is not None:
            query = query.where(events.c.project_id == hook["project_id"])
        with self.site.db.link.reading() as tx:
            waiting = tx.execute(query.order_by(events.c.seq).limit(AT_ONCE)).mappings().all()
        taken, problem = 0, ""
        after = hook["after"]
        for event in waiting:
            problem = send(hook, dict(event))
            if problem:
                break
            taken, after = taken + 1, event["seq"]
        if not waiting:
            return 0
        values: dict[str, Any] = {"after": after, "tries": 0, "problem": "", "next_at": stamp(now)}
        if problem:
            tries = (0 if taken else hook["tries"]) + 1
            wait = WAITS[min(tries, len(WAITS)) - 1]
            values |= {"tries": tries, "problem": problem, "next_at": stamp(now + timedelta(seconds=wait))}
        self.site.writer.submit(
            lambda tx: tx.execute(update(webhooks).where(webhooks.c.id == hook["id"]).values(values))
        ).result()
        return taken
