"""The API's operations for webhooks and for links of crowd platforms."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from harken.store import events
from harken.store.events import stamp
from harken.store.studio_schema import crowds, webhooks
from harken.studio.api.account import DONE, GROUP, SIGNED
from harken.studio.api.declare import operation
from harken.studio.work import crowd
from harken.studio.work.hooks import KINDS, add_webhook
from harken.studio.work.leases import find_project
from harken.web import accounts
from harken.web.errors import ApiError, not_found
from harken.web.json_schema import BOOLEAN, ID, TIME, array, enum, integer, mapping, nullable, obj, text
from harken.web.operations import Call, Json, SignedIn

HOOK = obj({"id": ID, "url": text(2000), "kinds": array(enum(*KINDS)), "project": nullable(ID), "tries": integer(),
            "problem": text(200), "next_at": TIME, "created_at": TIME})
CROWD = obj(
    {
        "id": ID,
        "project": ID,
        "parameter": text(60),
        "answers": integer(),
        "participants": integer(),
        "completed": integer(),
        "created_at": TIME,
    }
)


@operation("POST", "/api/webhooks", "lead", summary="Tell an address of what happens; the secret that signs is shown once",
           body=obj({"url": text(2000, 1), "kinds": array(enum(*KINDS), 1, len(KINDS)), "project": nullable(ID)},
                    optional=("project",)),
           answer=obj({"id": ID, "secret": text(100)}), errors=(404,), writes=True)
def create_webhook(call: Call) -> Json:
    project = call.body.get("project")
    if project is not None:
        find_project(call.tx, project)
    number, secret = add_webhook(call.tx, call.body["url"], call.body["kinds"], project, call.user.id, call.now)
    return {"id": number, "secret": secret}


@operation("GET", "/api/webhooks", "lead", summary="Webhooks, without their secrets, and how the last delivery went",
           answer=obj({"items": array(HOOK, 0, 1000)}))
def list_webhooks(call: Call) -> Json:
    rows = call.tx.execute(select(webhooks).where(webhooks.c.revoked_at.is_(None)).order_by(webhooks.c.id).limit(1000))
    return {
        "items": [
            {
                "id": w.id,
                "url": w.url,
                "kinds": w.kinds,
                "project": w.project_id,
                "tries": w.tries,
                "problem": w.problem,
                "next_at": w.next_at,
                "created_at": w.created_at,
            }
            for w in rows
        ]
    }


@operation("DELETE", "/api/webhooks/{webhook}", "lead", summary="End a webhook", answer=DONE, writes=True)
def revoke_webhook(call: Call) -> Json:
    where = (webhooks.c.id == call.path["webhook"]) & webhooks.c.revoked_at.is_(None)
    if call.tx.execute(update(webhooks).where(where).values(revoked_at=stamp(call.now), secret="")).rowcount == 0:
        raise not_found("webhook")
    events.add(call.tx, "revoke_webhook", call.now, user_id=call.user.id, body={"webhook": call.path["webhook"]})
    return {"done": True}


@operation("POST", "/api/projects/{project}/crowds", "lead", summary="A link for people of a crowd platform, shown once",
           body=obj({"parameter": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,60}$"}, "code": text(200, 1),
                     "answers": integer(1, 100_000)}, optional=("parameter",)),
           answer=obj({"id": ID, "url": text(500)}), errors=(409,), writes=True)
def create_crowd(call: Call) -> Json:
    if call.user.local:
        raise ApiError(
            "set_password_first", "People from outside need a studio with accounts.", "POST /api/setup makes the first."
        )
    offer = {"parameter": "PROLIFIC_PID", **call.body}
    number, secret = crowd.add_crowd(call.tx, find_project(call.tx, call.path["project"]).id, offer, call.user.id, call.now)
    query = "&".join(f"{name}={{{{%{name}%}}}}" for name in (offer["parameter"], *crowd.EXTRA)
                     ) if offer["parameter"] == "PROLIFIC_PID" else f"{offer['parameter']}=…"
    return {"id": number, "url": f"{call.site.address or call.site.base}/crowd/{secret}?{query}"}


@operation("GET", "/api/projects/{project}/crowds", "reader", summary="Links of crowd platforms, and how many came and finished",
           answer=obj({"items": array(CROWD, 0, 1000)}))
def list_crowds(call: Call) -> Json:
    return {"items": crowd.crowds_of(call.tx, find_project(call.tx, call.path["project"]).id)}


@operation("DELETE", "/api/crowds/{crowd}", "lead", summary="End a link of a crowd platform", answer=DONE, writes=True)
def revoke_crowd(call: Call) -> Json:
    where = (crowds.c.id == call.path["crowd"]) & crowds.c.revoked_at.is_(None)
    if call.tx.execute(update(crowds).where(where).values(revoked_at=stamp(call.now))).rowcount == 0:
        raise not_found("link")
    events.add(call.tx, "revoke_crowd", call.now, user_id=call.user.id, body={"crowd": call.path["crowd"]})
    return {"done": True}


@operation("POST", "/api/crowd/join", "anyone", summary="Begin, or go on, by a crowd platform's link: sets the session cookie",
           body=obj({"link": text(200, 1), "participant": text(200, 1), "extra": mapping(text(200), 10), "group": GROUP,
                     "consent": enum(True)}, optional=("extra", "group")),
           answer=SIGNED, errors=(404, 409), writes=True)
async def join_crowd(call: Call) -> SignedIn:
    call.site.limits.login(call.address, "")

    def begin(tx: Any) -> tuple[Any, tuple[str, str]]:
        user = crowd.join(tx, call.body, call.now)
        return user, accounts.start_session(tx, user, call.now, call.site.idle_hours)

    user, (secret, csrf) = await call.site.write(begin)
    return SignedIn({"user": user.to_json(), "csrf": csrf}, secret)


@operation("POST", "/api/projects/{project}/completion", "labeler", summary="The completion code, once you have answered enough",
           body=obj({}), writes=True,
           answer=obj({"crowd": BOOLEAN, "answered": integer(), "wanted": integer(), "code": nullable(text(200)),
                       "url": nullable(text(500))}))
def completion(call: Call) -> Json:
    return crowd.completion(call.tx, call.user, call.path["project"], call.now)


@operation(
    "GET",
    "/api/projects/{project}/participants",
    "lead",
    summary="Who came by a crowd platform's link, and who finished",
    answer=obj(
        {
            "items": array(
                obj(
                    {
                        "user": ID,
                        "name": text(200),
                        "participant": text(200),
                        "extra": mapping(text(200), 10),
                        "answers": integer(),
                        "created_at": TIME,
                        "completed_at": nullable(TIME),
                    }
                ),
                0,
                100_000,
            )
        }
    ),
)
def list_participants(call: Call) -> Json:
    return {"items": crowd.participants_of(call.tx, find_project(call.tx, call.path["project"]).id)}
