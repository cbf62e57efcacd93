"""The loop's page of a server that follows one: where it stands, and the buttons of whoever may decide.

Who may is who the recipe's `approve.by` names, by the name of their API key; alone on this machine, without keys, it is "me".
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from harken.launch.loop import approval
from harken.launch.loop.drive import rollback, waiting
from harken.launch.loop.status import status
from harken.serve.errors import Refused, bad
from harken.serve.page import templates
from harken.serve.server import Server

DECISIONS = ("approve", "reject", "rollback")
NO_STORE = {"Cache-Control": "no-store"}


async def show(server: Server, request: Request) -> Response:
    """GET /loop: holds no data; the page asks for it with the reader's key."""
    return HTMLResponse(templates().get_template("loop.html").render(keys=bool(server.keys)), headers=NO_STORE)


async def state(server: Server, request: Request) -> Response:
    """GET /loop/state"""
    who = _decider(server, request)
    return JSONResponse({"you": who, **await asyncio.to_thread(status, server.followed.recipe)}, headers=NO_STORE)


async def decide(server: Server, request: Request, said: Any) -> Response:
    """POST /loop/decide: {"decision": "approve" | "reject" | "rollback", "turn": 3, "comment": ""}. With a rollback, `turn`
    is the one that is to go."""
    who = _decider(server, request)
    if not isinstance(said, dict) or said.get("decision") not in DECISIONS:
        raise bad(f"decision must be one of {', '.join(DECISIONS)}.", "decision")
    if extra := sorted(said.keys() - {"decision", "turn", "comment"}):
        raise bad(f"Unrecognized field: {extra[0][:80]}.", extra[0][:80], "unknown_parameter")
    turn, comment = said.get("turn"), said.get("comment", "")
    if turn is not None and type(turn) is not int:
        raise bad("turn must be a whole number.", "turn", "invalid_type")
    if not isinstance(comment, str) or len(comment) > approval.MOST_COMMENT:
        raise bad(f"comment must be a text of at most {approval.MOST_COMMENT} characters.", "comment")
    words = await asyncio.to_thread(_decided, server, who, said["decision"], turn, comment)
    return JSONResponse({"done": words}, headers=NO_STORE)


def _decided(server: Server, who: str, decision: str, turn: int | None, comment: str) -> str:
    recipe = server.followed.recipe
    if decision == "rollback":
        return rollback(recipe, who, seen=turn)
    loop, current, its = waiting(recipe)
    if turn != current.number:  # the page was old: nobody signs for what they did not see
        raise Refused(409, f"Turn {current.number} waits for a decision, not turn {turn}. Look at the page again.", param="turn")
    how = "page, by API key" if server.keys else "page, on this machine"
    facts = approval.decide(its, loop, current, by=who, how=how, yes=decision == "approve", comment=comment)
    return f"Turn {current.number}: {facts['decision']}, {who}. The next harken loop goes on from here."


def _decider(server: Server, request: Request) -> str:
    who = server.who(request.headers.get("authorization", ""))
    if not approval.may(server.followed.recipe, who):
        raise Refused(403, f"{who} may not decide on this loop.", code="not_an_approver")
    return who
