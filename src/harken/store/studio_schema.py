"""The studio's tables: who answers, what is asked, who holds what, and the audit. See `schema.py`.

Rules that the code keeps, always inside one write transaction:

- `items.free` is `wanted - done - held`, never below zero, and zero unless the state is "open": what can be claimed.
- Items stand in line by `position`. One that becomes free again gets `reopened`, the number of the event that freed it, and
  is offered first (`projects.reopened` is the last such number). A member's `cursor` and `reopened_cursor` say how far both
  have been looked through: a claim never looks back, so its cost does not grow with the project or with what the labeler has
  done. In the database these columns are called `again` and `again_cursor`.
- An `assignments` row is one labeler's one look at one item (`turn` 1 is a repeat that measures self-consistency).
- `events` is the audit: only ever added to, each row's hash covers the one before it.
- `retractions` says which judgments no longer count (undone, withdrawn). The judgments themselves stay.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, text

from harken.store.schema import Json, Serial, metadata

users = Table(
    "users", metadata,
    Column("id", Serial, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("password_hash", Text),
    Column("role", Text, nullable=False),
    Column("labeler_group", Json, nullable=False),
    Column("held_out", Boolean, nullable=False),
    Column("hidden", Json, nullable=False),
    Column("state", Text, nullable=False),
    Column("consent", Text),
    Column("created_at", Text, nullable=False),
    Column("name_key", Text, nullable=False, unique=True),  # `names.name_key`, by which names are compared
    Column("subject", Text),  # who they are to a provider of single sign-on: "ISSUER SUBJECT"
    Index("ix_users_subject", "subject", unique=True),
)

sessions = Table(
    "sessions", metadata,
    Column("hash", Text, primary_key=True),
    Column("user_id", Serial, ForeignKey("users.id"), nullable=False, index=True),
    Column("csrf", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
)

# Browsers that somebody logged in from before: a flood of guesses elsewhere does not shut them out.
devices = Table(
    "devices", metadata,
    Column("hash", Text, primary_key=True),
    Column("user_id", Serial, ForeignKey("users.id"), nullable=False, index=True),
    Column("created_at", Text, nullable=False),
)

tokens = Table(
    "tokens", metadata,
    Column("id", Serial, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("user_id", Serial, ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("revoked_at", Text),
)

invitations = Table(
    "invitations", metadata,
    Column("id", Serial, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("projects", Json, nullable=False),
    Column("held_out", Boolean, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("revoked_at", Text),
    Column("made_by", Serial),
)

instructions = Table(
    "instructions", metadata,
    Column("hash", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("preset", Text),
    Column("created_at", Text, nullable=False),
)

forms = Table(
    "forms", metadata,
    Column("version", Text, primary_key=True),
    Column("body", Json, nullable=False),
    Column("created_at", Text, nullable=False),
)

projects = Table(
    "projects", metadata,
    Column("id", Serial, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("settings", Json, nullable=False),
    Column("form_version", Text, ForeignKey("forms.version"), nullable=False),
    Column("instruction_hash", Text, ForeignKey("instructions.hash"), nullable=False),
    Column("instruction_version", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("items_total", BigInteger, nullable=False),
    Column("items_done", BigInteger, nullable=False),
    Column("again", BigInteger, key="reopened", nullable=False),
    Column("created_at", Text, nullable=False),
)

members = Table(
    "members", metadata,
    Column("project_id", Serial, ForeignKey("projects.id"), primary_key=True, autoincrement=False),
    Column("user_id", Serial, ForeignKey("users.id"), primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("again_cursor", BigInteger, key="reopened_cursor", nullable=False),
    Column("repeat_cursor", BigInteger, nullable=False),
    Column("limited", Boolean, nullable=False),
    Column("served", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("day", Text, nullable=False),
    Column("today", Integer, nullable=False),
    Column("score", Json, nullable=False),
    Column("joined_at", Text, nullable=False),
)

items = Table(
    "items", metadata,
    Column("id", Serial, primary_key=True),
    Column("project_id", Serial, ForeignKey("projects.id"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("role", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("prompt_key", Text, ForeignKey("prompts.key")),
    Column("body", Json, nullable=False),
    Column("warnings", Text),
    Column("content", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("wanted", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("held", Integer, nullable=False),
    Column("free", Integer, nullable=False),
    Column("again", BigInteger, key="reopened", nullable=False),
    Column("skips", Integer, nullable=False),
    Column("flags", Integer, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("assigned", Text),  # ",3,7,": the users for whom alone it is; NULL for everybody
    UniqueConstraint("project_id", "content"),
    Index("ix_items_place", "project_id", "role", "position"),
    Index("ix_items_line", "project_id", "role", "position", sqlite_where=text("free > 0"),
          postgresql_where=text("free > 0")),
    Index("ix_items_again", "project_id", "role", "reopened", sqlite_where=text("free > 0 AND again > 0"),
          postgresql_where=text("free > 0 AND again > 0")),
    Index("ix_items_state", "project_id", "state", "id"),
)

assignments = Table(
    "assignments", metadata,
    Column("id", Serial, primary_key=True),
    Column("item_id", Serial, ForeignKey("items.id"), nullable=False),
    Column("user_id", Serial, ForeignKey("users.id"), nullable=False),
    Column("project_id", Serial, ForeignKey("projects.id"), nullable=False),
    Column("turn", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("counted", Boolean, nullable=False),
    Column("order_seed", BigInteger, nullable=False),
    Column("shown_order", Json, nullable=False),
    Column("claimed_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("draft", Json),
    Column("draft_version", Integer, nullable=False),
    Column("judgment_seq", Serial, ForeignKey("judgments.seq")),
    UniqueConstraint("item_id", "user_id", "turn"),
    Index("ix_assignments_mine", "user_id", "project_id", "state", "id"),
    Index("ix_assignments_leases", "project_id", "expires_at", sqlite_where=text("state = 'leased'"),
          postgresql_where=text("state = 'leased'")),
)

events = Table(
    "events", metadata,
    Column("seq", Serial, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("user_id", Serial),
    Column("project_id", Serial),
    Column("item_id", Serial),
    Column("assignment_id", Serial),
    Column("judgment_seq", Serial),
    Column("client_id", Text, unique=True),
    Column("undoes", Serial),
    Column("body", Json, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("ix_events_mine", "user_id", "project_id", "seq"),
    Index("ix_events_item", "item_id", "seq"),
    Index("ix_events_when", "project_id", "created_at"),
    Index("ix_events_undoes", "undoes", unique=True),
)

retractions = Table(
    "retractions", metadata,
    Column("judgment_seq", Serial, ForeignKey("judgments.seq"), primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)

exposures = Table(
    "exposures", metadata,
    Column("user_id", Serial, ForeignKey("users.id"), primary_key=True, autoincrement=False),
    Column("day", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    Column("count", Integer, nullable=False),
)

grades = Table(
    "grades", metadata,
    Column("judgment_seq", Serial, ForeignKey("judgments.seq"), primary_key=True, autoincrement=False),
    Column("score", Integer, nullable=False),
    Column("user_id", Serial, ForeignKey("users.id"), nullable=False),
    Column("created_at", Text, nullable=False),
)

snapshots = Table(
    "snapshots", metadata,
    Column("id", Serial, primary_key=True),
    Column("sha256", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("labelers", Json, nullable=False),
    Column("project_id", Serial, ForeignKey("projects.id")),
    Column("created_at", Text, nullable=False),
)

# Between leads and one labeler, about one item: other labelers never see them.
comments = Table(
    "comments", metadata,
    Column("id", Serial, primary_key=True),
    Column("item_id", Serial, ForeignKey("items.id"), nullable=False, index=True),
    Column("labeler_id", Serial, ForeignKey("users.id"), nullable=False, index=True),
    Column("author_id", Serial, ForeignKey("users.id"), nullable=False),
    Column("text", Json),  # NULL once it was erased
    Column("created_at", Text, nullable=False),
)

reviews = Table(  # answers that a lead accepted
    "reviews", metadata,
    Column("judgment_seq", Serial, ForeignKey("judgments.seq"), primary_key=True, autoincrement=False),
    Column("user_id", Serial, ForeignKey("users.id"), nullable=False),
    Column("created_at", Text, nullable=False),
)

# What items are found by; in SQLite the virtual table item_search has the trigrams of `words`.
item_texts = Table(
    "item_texts", metadata,
    Column("item_id", Serial, ForeignKey("items.id"), primary_key=True, autoincrement=False),
    Column("project_id", Serial, ForeignKey("projects.id"), nullable=False),
    Column("tags", Text, nullable=False),
    Column("sources", Text, nullable=False),
    Column("words", Text, nullable=False),
    Index("ix_item_texts_tags", "project_id", "tags"),
    Index("ix_item_texts_sources", "project_id", "sources"),
)

# Told of what happens, in the order of the audit; `after` is the last event that was taken.
webhooks = Table(
    "webhooks", metadata,
    Column("id", Serial, primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("kinds", Json, nullable=False),
    Column("project_id", Serial, ForeignKey("projects.id")),
    Column("after", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_at", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("made_by", Serial, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("revoked_at", Text),
)

# Links for people of a crowd platform, and who came by one.
crowds = Table(
    "crowds", metadata,
    Column("id", Serial, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("project_id", Serial, ForeignKey("projects.id"), nullable=False),
    Column("parameter", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("answers", Integer, nullable=False),
    Column("made_by", Serial, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("revoked_at", Text),
)

participants = Table(
    "participants", metadata,
    Column("user_id", Serial, ForeignKey("users.id"), primary_key=True, autoincrement=False),
    Column("crowd_id", Serial, ForeignKey("crowds.id"), nullable=False),
    Column("participant", Text, nullable=False),
    Column("extra", Json, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("completed_at", Text),
    Index("ix_participants_once", "crowd_id", "participant", unique=True),
)
