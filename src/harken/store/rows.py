"""A judgment and a prompt as rows of the database, and back: the one place that says what their hashes cover.

    row = judgment_row(key, "ranking", {"completions": […], "ranks": [1, 2]}, labeler="ada")
    judgment_of(row_of_judgments_joined_with_prompts)

An answer that is imported and the same answer submitted in the studio have one `content`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, RowMapping
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement

from harken.core.records import Judgment, JudgmentKind, Prompt, content_hash

Row = dict[str, Any]


class _NextJudgment(ColumnElement[int]):
    inherit_cache = True
    type = BigInteger()


@compiles(_NextJudgment, "sqlite")
def _next_sqlite(*_: Any, **__: Any) -> str:
    return "(SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'judgments')"


@compiles(_NextJudgment, "postgresql")
def _next_postgresql(*_: Any, **__: Any) -> str:
    return "nextval(pg_get_serial_sequence('judgments', 'seq'))"


NEXT_JUDGMENT: ColumnElement[int] = _NextJudgment()
"""The number of the next judgment, for who holds the write lock and inserts it: its event's hash is known before it is stored."""


def prompt_key(prompt: Prompt) -> str:
    """Names a prompt with all it holds; `prompt.id` names its messages alone."""
    return content_hash(prompt.to_json())[:32]


def prompt_row(prompt: Prompt, created_at: str) -> Row:
    return {"key": prompt_key(prompt), "id": prompt.id, "body": prompt.to_json(), "created_at": created_at}


def judgment_row(prompt: str, kind: JudgmentKind, payload: Mapping[str, Any], *, labeler: str | None = None,
                 group: Mapping[str, str] | None = None, order: Sequence[int] | None = None, seconds: float | None = None,
                 instruction_hash: str | None = None, form_version: str | None = None, client_id: str | None = None) -> Row:
    """A judgment as stored; `prompt` is the prompt's key. `content` is the hash of what was said, by whom, of what, and under
    which form and instructions; not of the `client_id` it came under."""
    row = {"prompt_key": prompt, "kind": kind, "payload": dict(payload), "labeler": labeler, "labeler_group": dict(group or {}),
           "shown_order": list(order) if order else None, "seconds": None if seconds is None else float(seconds),
           "instruction_hash": instruction_hash, "form_version": form_version}
    return {**row, "content": content_hash(row), "client_id": client_id}


def judgment_of(row: RowMapping) -> Judgment:
    """The judgment of a row of `judgments` joined with its prompt's `body`."""
    order = None if row["shown_order"] is None else tuple(row["shown_order"])
    return Judgment(Prompt.from_json(row["body"]), row["kind"], row["payload"], row["labeler"], row["labeler_group"], order,
                    row["seconds"], row["instruction_hash"], row["form_version"], row["client_id"])
