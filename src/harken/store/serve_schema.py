"""The tables of `harken serve`: answers that may be judged, what was said of them, and the server's secret.

- A row of `served` is kept until its `expires_at`, longer only if somebody judged it: prompts of people who said nothing go.
- A row of `feedback` says of which answer a judgment is. A changed mind is a new row and judgment; the old judgment is
  retracted, and stays. `slot` is what a new one replaces: an answer has one verdict of a rater, one edit, …
"""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Table, Text

from harken.store.schema import Json, Serial, metadata

served = Table(
    "served", metadata,
    Column("id", Text, primary_key=True),
    Column("rater", Text, nullable=False),
    Column("prompt", Json, nullable=False),
    Column("text", Json, nullable=False),
    Column("source", Json, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False, index=True),
)

feedback = Table(
    "feedback", metadata,
    Column("id", Serial, primary_key=True),
    Column("served_id", Text, nullable=False),
    Column("rater", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("slot", Text, nullable=False),
    Column("said", Text, nullable=False),
    Column("judgment_seq", Serial, ForeignKey("judgments.seq"), nullable=False),
    Column("client_id", Text, unique=True),
    Column("created_at", Text, nullable=False),
    Index("ix_feedback_slot", "served_id", "rater", "slot"),
)

secrets = Table(
    "secrets", metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
