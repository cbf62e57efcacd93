"""The API's operations on oneself: health, login, joining, passwords, tokens."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from harken.core.version import __version__
from harken.store import events
from harken.store.events import stamp
from harken.store.studio_schema import assignments, projects, sessions, tokens, users
from harken.studio.api.declare import API, operation
from harken.studio.work import answers, withdrawal
from harken.studio.work.leases import let_go_unbegun
from harken.studio.work.members import add_member
from harken.studio.work.settings import CATEGORIES, Settings
from harken.web import accounts
from harken.web.accounts import CONSENT, ROLES, SCOPES, User
from harken.web.errors import ApiError, not_found
from harken.web.json_schema import ANY, BOOLEAN, ID, TIME, Schema, array, enum, integer, mapping, nullable, obj, text
from harken.web.operations import Call, Json, SignedIn

USER: Schema = obj({"id": ID, "name": text(200), "role": enum(*ROLES), "held_out": BOOLEAN})
ME: Schema = obj({"user": USER, "csrf": text(100), "single_user": BOOLEAN, "hidden": array(enum(*CATEGORIES))})
SIGNED: Schema = obj({"user": USER, "csrf": text(100)})
NAME, PASSWORD = text(60, 1), text(200, 1)
GROUP = mapping(text(100), 20)
TOKEN: Schema = obj({"id": ID, "name": text(100), "scopes": array(enum(*SCOPES)), "created_at": TIME,
                     "expires_at": nullable(TIME), "revoked": BOOLEAN})
DONE: Schema = obj({"done": BOOLEAN})


@operation("GET", "/api/health", "anyone", summary="Whether the studio and its database answer",
           answer=obj({"status": enum("ok"), "version": text(40)}))
def health(call: Call) -> Json:
    call.tx.execute(select(1))
    return {"status": "ok", "version": __version__}


@operation("GET", "/api/openapi.json", "anyone", summary="This description", answer=mapping(ANY, 20))
def openapi_(call: Call) -> Json:
    return API.openapi()


@operation("GET", "/api/me", "user", summary="Who you are, and the CSRF token", answer=ME)
def me(call: Call) -> Json:
    return {"user": call.user.to_json(), "csrf": call.csrf, "single_user": call.user.local, "hidden": list(call.user.hidden)}


@operation("POST", "/api/login", "anyone", summary="Log in: sets the session cookie",
           body=obj({"name": NAME, "password": PASSWORD}),
           answer=SIGNED, errors=(401,), writes=True)
async def login(call: Call) -> SignedIn:
    site, name = call.site, call.body["name"]
    await _throttle(call, name)
    user, stored = await site.read(lambda tx: accounts.stored_password(tx, name))
    right = await site.hash(accounts.right_password, call.body["password"], stored or accounts.nobody())
    if user is None or stored is None or not right:
        raise ApiError("bad_login", "Name and password do not fit.",
                       "Whoever runs the studio can set another: harken users password NAME.")
    return await _sign_in(call, user)


async def _throttle(call: Call, name: str) -> None:
    """Takes one try of a password; a browser that is known for this account has tries of its own."""
    known = call.device is not None and await call.site.read(lambda tx: accounts.known_device(tx, name, call.device or ""))
    call.site.limits.login(call.address, name, call.device if known else None)


async def _sign_in(call: Call, user: User) -> SignedIn:
    def begin(tx: Any) -> tuple[tuple[str, str], str]:
        return accounts.start_session(tx, user, call.now, call.site.idle_hours), \
            accounts.remember_device(tx, user, call.device, call.now)

    (secret, csrf), device = await call.site.write(begin)
    return SignedIn({"user": user.to_json(), "csrf": csrf}, secret, device)


@operation("POST", "/api/logout", "user", summary="End this session", body=obj({}), answer=DONE, writes=True)
def logout(call: Call) -> Json:
    if call.secret is not None:
        accounts.end_sessions(call.tx, call.user.id, call.secret)
        if call.tx.execute(select(sessions.c.hash).where(sessions.c.user_id == call.user.id).limit(1)).first() is None:
            let_go_unbegun(call.tx, call.now, assignments.c.user_id == call.user.id)  # no other browser of theirs works on it
        call.site.forget()
    return {"done": True}


@operation("POST", "/api/setup", "anyone", summary="Make the first lead's account; ends single-user mode",
           body=obj({"name": NAME, "password": PASSWORD}), answer=SIGNED, errors=(409,), writes=True)
async def setup(call: Call) -> SignedIn:
    if not call.site.single_user:
        raise ApiError("accounts_exist", "The first account was made already.", "Log in, or ask a lead for an invitation.")
    hashed = await call.site.hash(accounts.hash_password, call.body["password"], call.body["name"])

    def make(tx: Any) -> User:
        if accounts.has_accounts(tx):
            raise ApiError("accounts_exist", "The first account was made already.", "Log in.")
        return accounts.add_user(tx, call.body["name"], hashed, "lead", call.now)

    user = await call.site.write(make)
    call.site.end_single_user()
    return await _sign_in(call, user)


@operation("POST", "/api/invitations/look", "anyone", summary="What an invitation offers", body=obj({"invitation": text(200, 1)}),
           answer=obj({"role": enum(*ROLES), "projects": array(text(200)), "consent_text": text(40_000)}), errors=(404,))
def look_at_invitation(call: Call) -> Json:
    call.site.limits.login(call.address, "")
    invitation = accounts.open_invitation(call.tx, call.body["invitation"], call.now)
    rows = call.tx.execute(select(projects.c.name, projects.c.settings).where(projects.c.id.in_(invitation.projects))).fetchall()
    own = [r.settings.get("consent_text", "") for r in rows]
    return {"role": invitation.role, "projects": [r.name for r in rows],
            "consent_text": "\n\n".join([CONSENT, *[words for words in own if words]])}


@operation("POST", "/api/join", "anyone", summary="Make an account with an invitation: sets the session cookie",
           body=obj({"invitation": text(200, 1), "name": NAME, "password": PASSWORD, "group": GROUP, "consent": enum(True)},
                    optional=("group",)), answer=SIGNED, errors=(404, 409), writes=True)
async def join(call: Call) -> SignedIn:
    body = call.body
    call.site.limits.login(call.address, "")
    await call.site.read(lambda tx: accounts.open_invitation(tx, body["invitation"], call.now))
    hashed = await call.site.hash(accounts.hash_password, body["password"], body["name"])

    def make(tx: Any) -> User:
        user, offered = accounts.join(tx, body["invitation"], body["name"], hashed, body.get("group", {}), call.now)
        for project in offered:
            settings = tx.execute(select(projects.c.settings).where(projects.c.id == project)).scalar()
            add_member(tx, project, user, Settings.from_json(settings or {}), call.now)
        return user

    return await _sign_in(call, await call.site.write(make))


@operation("POST", "/api/me/password", "user", summary="Change your password; ends your other sessions",
           body=obj({"old": PASSWORD, "new": PASSWORD, "revoke_tokens": BOOLEAN}, optional=("revoke_tokens",)),
           answer=SIGNED, errors=(401, 409), writes=True)
async def change_password(call: Call) -> SignedIn:
    if call.user.local:
        raise ApiError("set_password_first", "Single-user mode has no password.", "POST /api/setup makes the first account.")
    await _throttle(call, call.user.name)
    _, stored = await call.site.read(lambda tx: accounts.stored_password(tx, call.user.name))
    if not await call.site.hash(accounts.right_password, call.body["old"], stored or accounts.nobody()):
        raise ApiError("bad_login", "The old password does not fit.")
    hashed = await call.site.hash(accounts.hash_password, call.body["new"], call.user.name)

    def change(tx: Any) -> None:
        tx.execute(update(users).where(users.c.id == call.user.id).values(password_hash=hashed))
        accounts.end_sessions(tx, call.user.id)
        if call.body.get("revoke_tokens"):
            accounts.revoke_tokens(tx, call.user.id, call.now)
        events.add(tx, "password", call.now, user_id=call.user.id)

    await call.site.write(change)
    call.site.forget()
    return await _sign_in(call, call.user)


@operation("POST", "/api/me/withdraw", "user", summary="Withdraw: your answers leave later data sets, your account is closed",
           body=obj({"password": PASSWORD, "erase": BOOLEAN}, optional=("password", "erase")),
           answer=obj({"judgments": integer(), "erasure_asked": BOOLEAN}), errors=(401, 409), writes=True)
async def withdraw_me(call: Call) -> Json:
    if call.user.role != "labeler":
        raise ApiError("conflict", "Only labelers withdraw here.", "Another lead can: POST /api/users/{user}/withdraw.")
    _, stored = await call.site.read(lambda tx: accounts.stored_password(tx, call.user.name))
    if stored is not None:
        await _throttle(call, call.user.name)
        if not await call.site.hash(accounts.right_password, call.body.get("password", ""), stored):
            raise ApiError("bad_login", "The password does not fit.")
    erase = call.body.get("erase", False)

    def leave(tx: Any) -> int:
        if erase:
            events.add(tx, "erasure_request", call.now, user_id=call.user.id)
        return withdrawal.withdraw(tx, call.user.name, call.now, call.user.id)[0]

    gone = await call.site.write(leave)
    call.site.forget()
    return {"judgments": gone, "erasure_asked": erase}


@operation("PUT", "/api/me/hidden", "labeler", summary="Which kinds of content you are not shown",
           body=obj({"categories": array(enum(*CATEGORIES), 0, len(CATEGORIES))}),
           answer=obj({"hidden": array(enum(*CATEGORIES))}), writes=True)
def set_hidden(call: Call) -> Json:
    hidden = sorted(set(call.body["categories"]))
    answers.hide(call.tx, call.user, hidden)
    call.site.forget()
    return {"hidden": hidden}


@operation("POST", "/api/tokens", "user", summary="A token for programs; its secret is shown once",
           body=obj({"name": text(100, 1), "scopes": array(enum(*SCOPES), 1, 3), "days": nullable(integer(1, 3650))},
                    optional=("days",)),
           answer=obj({"id": ID, "token": text(100), "name": text(100), "scopes": array(enum(*SCOPES)),
                       "expires_at": nullable(TIME)}),
           errors=(409,), writes=True)
def create_token(call: Call) -> Json:
    if call.user.local:
        raise ApiError("set_password_first", "Single-user mode has no tokens.", "POST /api/setup makes the first account.")
    return accounts.create_token(call.tx, call.user, call.body["name"], call.body["scopes"], call.body.get("days"), call.now)


@operation("GET", "/api/tokens", "user", summary="Your tokens, without their secrets", answer=obj({"items": array(TOKEN)}))
def list_tokens(call: Call) -> Json:
    rows = call.tx.execute(select(tokens).where(tokens.c.user_id == call.user.id).order_by(tokens.c.id).limit(500))
    return {"items": [{"id": t.id, "name": t.name, "scopes": t.scopes, "created_at": t.created_at, "expires_at": t.expires_at,
                       "revoked": t.revoked_at is not None} for t in rows]}


@operation("DELETE", "/api/tokens/{token}", "user", summary="Revoke one of your tokens", answer=DONE, writes=True)
def revoke_token(call: Call) -> Json:
    mine = (tokens.c.id == call.path["token"]) & (tokens.c.user_id == call.user.id)
    if call.tx.execute(update(tokens).where(mine).values(revoked_at=stamp(call.now))).rowcount == 0:
        raise not_found("token")
    events.add(call.tx, "revoke_token", call.now, user_id=call.user.id, body={"token": call.path["token"]})
    call.site.forget()
    return {"done": True}
