"""The feedback database's tables, as the newest migration leaves them (`migrations.py`); the studio's own are in
`studio_schema.py`."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Integer, MetaData, Table, Text

metadata = MetaData()
Serial = BigInteger().with_variant(Integer, "sqlite")
Json = JSON(none_as_null=True)

# Two prompts with the same messages and different tags are two rows with one `id` and two `key`s.
prompts = Table(
    "prompts", metadata,
    Column("seq", Serial, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("id", Text, nullable=False, index=True),
    Column("body", Json, nullable=False),
    Column("created_at", Text, nullable=False),
)

completions = Table(
    "completions", metadata,
    Column("seq", Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("prompt_id", Text, nullable=False, index=True),
    Column("text", Json, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)

imports = Table(
    "imports", metadata,
    Column("seq", Serial, primary_key=True),
    Column("file_hash", Text, nullable=False, index=True),
    Column("file_name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("skipped", Json, nullable=False),
    Column("created_at", Text, nullable=False),
)

judgments = Table(
    "judgments", metadata,
    Column("seq", Serial, primary_key=True),
    Column("prompt_key", Text, ForeignKey("prompts.key"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("payload", Json, nullable=False),
    Column("labeler", Text, index=True),
    Column("labeler_group", Json, nullable=False),
    Column("shown_order", Json),
    Column("seconds", Float),
    Column("instruction_hash", Text),
    Column("form_version", Text),
    Column("client_id", Text, unique=True),
    Column("content", Text, nullable=False),
    Column("import_seq", Serial, ForeignKey("imports.seq")),
    Column("created_at", Text, nullable=False),
    # Set by the studio. `role` is None for what counts, else why it stands apart: gold, qualify, repeat, surplus.
    Column("item_id", Serial, index=True),
    Column("role", Text),
)
