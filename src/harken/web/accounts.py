"""People and how they prove who they are: passwords, sessions, tokens, invitations.

Passwords are stored as Argon2id with OWASP's parameters (19 MiB, 2 passes, 1 lane). Of sessions, tokens and invitations
the database holds SHA-256 hashes only: they are random, so a hash that is fast to compute cannot be guessed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from harken.store import events
from harken.store.events import stamp
from harken.store.names import legible, looks_like, mixed_scripts, name_key, plain
from harken.store.studio_schema import crowds, devices, invitations, projects, sessions, tokens, users, webhooks
from harken.web.errors import ApiError
from harken.web.passwords import check_password

ROLES = ("lead", "labeler", "viewer")
SCOPES = ("read", "label", "lead")
LOCAL = "me"
CROWD = "crowd:"
"""How the subject of an account begins that came by a crowd platform's link."""
SESSION_DAYS = 14
MOST_DEVICES = 20
"""Browsers by which one account is known; the oldest is forgotten first."""
IDLE_HOURS = 72
"""A session unused for so long ends; `--idle-hours` sets it."""
ALLOWED = {"lead": frozenset(SCOPES), "labeler": frozenset({"label"}), "viewer": frozenset({"read"})}
"""Which scopes a role may give its tokens."""
CONSENT = "My answers are stored with my name and used to train and evaluate language models. I may withdraw at any time: " \
          "my answers then leave all later snapshots."


@dataclass(frozen=True)
class User:
    """Who calls. `local` is the one person of single-user mode."""

    id: int
    name: str
    role: str
    held_out: bool = False
    hidden: tuple[str, ...] = ()
    local: bool = False
    group: Mapping[str, str] = field(default_factory=dict, hash=False)
    confined: bool = False
    """From a crowd platform: sees the projects that they were put into, and no other."""

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "role": self.role, "held_out": self.held_out}


COST = {"iterations": 2, "lanes": 1, "memory_cost": 19 * 1024}
"""What hashing a password takes, of Argon2id (OWASP's second choice of 2024). Stored hashes say their own.
One lane: with more, OpenSSL's thread pool stops for good when several passwords are checked at once (seen at 32)."""


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str, name: str = "") -> str:
    """Argon2id in the PHC string format. Refuses what would be guessed first."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # loaded at the first login, not at the start
    check_password(password, name)
    kdf = Argon2id(salt=os.urandom(16), length=32, iterations=COST["iterations"], lanes=COST["lanes"],
                   memory_cost=COST["memory_cost"])
    return kdf.derive_phc_encoded(password.encode("utf-8", "surrogatepass"))


def right_password(password: str, stored: str) -> bool:
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    try:
        Argon2id.verify_phc_encoded(password.encode("utf-8", "surrogatepass"), stored)
    except InvalidKey:
        return False
    return True


def as_user(row: Any) -> User:
    local = row.name == LOCAL and row.password_hash is None
    return User(row.id, row.name, row.role, row.held_out, tuple(row.hidden), local, row.labeler_group,
                (row.subject or "").startswith(CROWD))


def add_user(tx: Connection, name: str, password_hash: str | None, role: str, now: datetime, *,
             group: dict[str, str] | None = None, held_out: bool = False, consent: str | None = None) -> User:
    name, key = plain(name), name_key(name)
    check_name(tx, name, key)
    row: dict[str, Any] = {"name": name, "name_key": key, "password_hash": password_hash, "role": role,
                           "labeler_group": group or {}, "held_out": held_out, "hidden": [], "state": "active",
                           "consent": consent, "created_at": stamp(now)}
    inserted = tx.execute(insert(users), row).inserted_primary_key
    assert inserted is not None
    number = int(inserted[0])
    events.add(tx, "user", now, user_id=number,
               body={"name": name, "role": role, "held_out": held_out, "labeler_group": group or {}})
    return User(number, name, role, held_out, local=name == LOCAL and password_hash is None, group=group or {})


ERASED = re.compile(r"erased-\d+")  # `store.redaction` names them so


def check_name(tx: Connection, name: str, key: str) -> None:
    """Refuses a name that is taken, or that nobody could tell from one that is."""
    if not key or not legible(name):
        raise ApiError("bad_request", "A name needs at least one character that can be seen, and only such.")
    if scripts := mixed_scripts(name):
        raise ApiError("bad_request", f"The name mixes letters of {' and '.join(s.capitalize() for s in scripts)} in one word.",
                       "Such names are mistaken for others: write it in one script.")
    if tx.execute(select(users.c.id).where(users.c.name_key == key)).first() is not None:
        raise ApiError("conflict", f"The name {name} is taken.", "Choose another.")
    if ERASED.fullmatch(key):
        raise ApiError("conflict", f"The name {name} is kept for accounts whose data were erased.", "Choose another.")
    look = looks_like(name)
    for other in tx.scalars(select(users.c.name)):
        if looks_like(other) == look:
            raise ApiError("conflict", f"The name {name} looks like that of another account.", "Choose another.")


LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


def new_password() -> str:
    """Four groups of four signs, none of which is taken for another: 79 bits."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))


def set_password(tx: Connection, name: str, password_hash: str, now: datetime, by: int | None = None) -> None:
    """Another password for somebody who forgot theirs, set by the lead `by` or by whoever runs the studio; ends their
    sessions and tokens."""
    user, _ = stored_password(tx, name)
    if user is None or user.local:
        raise ApiError("not_found", f"There is no active account {name}.", "harken users list shows them.")
    tx.execute(update(users).where(users.c.id == user.id).values(password_hash=password_hash))
    end_sessions(tx, user.id)
    revoke_tokens(tx, user.id, now)
    tx.execute(delete(devices).where(devices.c.user_id == user.id))
    events.add(tx, "password", now, user_id=user.id, body=None if by is None else {"by": by})


def revoke_tokens(tx: Connection, user_id: int, now: datetime, beyond: frozenset[str] = frozenset()) -> None:
    """Ends a user's tokens: all, or those with a scope `beyond` which they may not have any more."""
    for row in tx.execute(select(tokens.c.id, tokens.c.scopes).where(tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None))
                          ).fetchall():
        if not set(row.scopes) <= beyond:
            tx.execute(update(tokens).where(tokens.c.id == row.id).values(revoked_at=stamp(now)))


def end_invitations(tx: Connection, user_id: int, now: datetime) -> None:
    """Ends what a user set up as a lead: invitations, links of crowd platforms, and webhooks, which would go on telling them."""
    for table, more in ((invitations, {}), (crowds, {}), (webhooks, {"secret": ""})):
        tx.execute(update(table).where(table.c.made_by == user_id, table.c.revoked_at.is_(None))
                   .values(revoked_at=stamp(now), **more))


def end_rights(tx: Connection, user_id: int, now: datetime) -> None:
    """Ends all by which somebody gets in, or lets others in: sessions, tokens, invitations, known devices."""
    end_sessions(tx, user_id)
    revoke_tokens(tx, user_id, now)
    end_invitations(tx, user_id, now)
    tx.execute(delete(devices).where(devices.c.user_id == user_id))


def has_accounts(tx: Connection) -> bool:
    """Whether anybody can log in; before that, the studio serves one person on loopback only."""
    return tx.execute(select(users.c.id).where(users.c.password_hash.is_not(None)).limit(1)).first() is not None


def has_lead(tx: Connection) -> bool:
    query = select(users.c.id).where(users.c.password_hash.is_not(None), users.c.role == "lead", users.c.state == "active")
    return tx.execute(query.limit(1)).first() is not None


def local_user(tx: Connection, now: datetime) -> User:
    """The one person of single-user mode."""
    row = tx.execute(select(users).where(users.c.name == LOCAL)).first()
    return as_user(row) if row is not None else add_user(tx, LOCAL, None, "lead", now)


def stored_password(tx: Connection, name: str) -> tuple[User | None, str | None]:
    row = tx.execute(select(users).where(users.c.name_key == name_key(name), users.c.state == "active")).first()
    return (as_user(row), row.password_hash) if row is not None else (None, None)


def start_session(tx: Connection, user: User, now: datetime, idle_hours: float = IDLE_HOURS) -> tuple[str, str]:
    """A new session's secret and CSRF token. Old ones of anybody that ran out are swept away."""
    secret, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    idle = stamp(now - timedelta(hours=idle_hours))
    tx.execute(delete(sessions).where((sessions.c.expires_at < stamp(now)) | (sessions.c.seen_at < idle)))
    tx.execute(insert(sessions), {"hash": digest(secret), "user_id": user.id, "csrf": csrf, "created_at": stamp(now),
                                  "expires_at": stamp(now + timedelta(days=SESSION_DAYS)), "seen_at": stamp(now)})
    events.add(tx, "login", now, user_id=user.id)
    return secret, csrf


def end_sessions(tx: Connection, user_id: int, secret: str | None = None) -> None:
    """One session, or all of a user's."""
    query = delete(sessions).where(sessions.c.user_id == user_id)
    tx.execute(query if secret is None else query.where(sessions.c.hash == digest(secret)))


def by_session(tx: Connection, secret: str, now: datetime, idle_hours: float = IDLE_HOURS) -> tuple[User, str, str] | None:
    """Who a session belongs to, its CSRF token, and when it was last seen to be used."""
    query = select(users, sessions.c.csrf, sessions.c.seen_at).join(users, sessions.c.user_id == users.c.id).where(
        sessions.c.hash == digest(secret), sessions.c.expires_at > stamp(now), users.c.state == "active",
        sessions.c.seen_at > stamp(now - timedelta(hours=idle_hours)))
    row = tx.execute(query).first()
    return (as_user(row), row.csrf, row.seen_at) if row is not None else None


def mark_seen(tx: Connection, secret: str, now: datetime) -> None:
    """A session is in use."""
    tx.execute(update(sessions).where(sessions.c.hash == digest(secret)).values(seen_at=stamp(now)))


def known_device(tx: Connection, name: str, secret: str) -> bool:
    """Whether the account of that name was logged into from the browser that holds this secret."""
    query = select(devices.c.hash).join(users, users.c.id == devices.c.user_id).where(
        devices.c.hash == digest(secret), users.c.name_key == name_key(name))
    return tx.execute(query).first() is not None


def remember_device(tx: Connection, user: User, secret: str | None, now: datetime) -> str:
    """The secret by which a browser is known again; the one it has, where that is this user's already."""
    if secret and known_device(tx, user.name, secret):
        return secret
    secret = secrets.token_urlsafe(32)
    tx.execute(insert(devices), {"hash": digest(secret), "user_id": user.id, "created_at": stamp(now)})
    known = select(devices.c.hash).where(devices.c.user_id == user.id).order_by(devices.c.created_at.desc(), devices.c.hash)
    forgotten = list(tx.scalars(known.offset(MOST_DEVICES)))  # a program that logs in anew each time must not fill the table
    if forgotten:
        tx.execute(delete(devices).where(devices.c.hash.in_(forgotten)))
    return secret


def by_token(tx: Connection, secret: str, now: datetime) -> tuple[User, frozenset[str]] | None:
    """Who a token speaks for, and its scopes."""
    query = select(users, tokens.c.scopes, tokens.c.expires_at).join(users, tokens.c.user_id == users.c.id).where(
        tokens.c.hash == digest(secret), tokens.c.revoked_at.is_(None), users.c.state == "active")
    row = tx.execute(query).first()
    if row is None or (row.expires_at is not None and row.expires_at <= stamp(now)):
        return None
    return as_user(row), frozenset(row.scopes)


def create_token(tx: Connection, user: User, name: str, scopes: Sequence[str], days: int | None, now: datetime) -> dict[str, Any]:
    """A token for programs; its secret is told once. A scope that the user's role lacks is refused."""
    allowed = ALLOWED[user.role]
    if not set(scopes) <= allowed:
        raise ApiError("forbidden", f"Your role allows {', '.join(sorted(allowed))}.", "Ask for these scopes only.")
    secret = "hk_" + secrets.token_urlsafe(32)
    row = {"hash": digest(secret), "user_id": user.id, "name": name, "scopes": sorted(set(scopes)), "created_at": stamp(now),
           "expires_at": stamp(now + timedelta(days=days)) if days else None, "revoked_at": None}
    key = tx.execute(insert(tokens), row).inserted_primary_key
    assert key is not None
    events.add(tx, "token", now, user_id=user.id, body={"token": key[0], "name": name, "scopes": row["scopes"]})
    return {"id": key[0], "token": secret, "name": name, "scopes": row["scopes"], "expires_at": row["expires_at"]}


def create_invitation(tx: Connection, user: User, offer: dict[str, Any], now: datetime) -> dict[str, Any]:
    """An invitation; its secret is told once. `offer`: role, projects, held_out, uses, days."""
    secret = secrets.token_urlsafe(24)
    for project in offer["projects"]:
        if tx.execute(select(projects.c.id).where(projects.c.id == project)).first() is None:
            raise ApiError("bad_request", f"There is no project {project}.")
    row = {"hash": digest(secret), "role": offer["role"], "projects": offer["projects"], "held_out": offer["held_out"],
           "uses_left": offer["uses"], "created_at": stamp(now), "expires_at": stamp(now + timedelta(days=offer["days"])),
           "revoked_at": None, "made_by": user.id}
    key = tx.execute(insert(invitations), row).inserted_primary_key
    assert key is not None
    events.add(tx, "invite", now, user_id=user.id, body={"invitation": key[0], "role": offer["role"]})
    return {"id": key[0], "token": secret, "role": offer["role"], "expires_at": row["expires_at"], "uses_left": offer["uses"]}


def open_invitation(tx: Connection, secret: str, now: datetime) -> Any:
    query = select(invitations).join(users, users.c.id == invitations.c.made_by).where(
        invitations.c.hash == digest(secret), users.c.state == "active", users.c.role == "lead")  # its maker may still invite
    row = tx.execute(query).first()
    if row is None or row.revoked_at is not None or row.uses_left < 1 or row.expires_at <= stamp(now):
        raise ApiError("not_found", "This invitation is used up, withdrawn or too old.", "Ask the lead for a new one.")
    return row


def join(tx: Connection, secret: str, name: str, password_hash: str, group: dict[str, str],
         now: datetime) -> tuple[User, list[int]]:
    """Makes the account an invitation offers; returns it, and the projects that it is to be a member of."""
    row = open_invitation(tx, secret, now)
    tx.execute(update(invitations).where(invitations.c.id == row.id).values(uses_left=row.uses_left - 1))
    user = add_user(tx, name, password_hash, row.role, now, group=group, held_out=row.held_out, consent=digest(CONSENT)[:16])
    return user, list(row.projects)


def nobody() -> str:
    """Compared with where a name is unknown, so that the answer takes as long as for a known one."""
    return f"$argon2id$v=19$m={COST['memory_cost']},t={COST['iterations']},p={COST['lanes']}${'A' * 22}${'A' * 43}"
