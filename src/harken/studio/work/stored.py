"""A project's stored answers, read back: for figures, and for the order of what is asked next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from harken.core.records import Judgment
from harken.store.rows import judgment_of
from harken.store.schema import judgments, prompts
from harken.store.studio_schema import items, retractions

MOST = 5_000  # answers looked at, the latest ones: about 2.5 s of one core, and no more with a longer history (F5)


@dataclass(frozen=True)
class StoredAnswer:
    """One stored answer."""

    seq: int
    item: int
    role: str | None
    at: str
    judgment: Judgment

    @property
    def labeler(self) -> str:
        return self.judgment.labeler or "(no name)"

    @property
    def payload(self) -> Mapping[str, Any]:
        return self.judgment.payload


def load(tx: Connection, project: int, most: int = MOST) -> list[StoredAnswer]:
    """The latest answers that were not taken back or set aside, oldest first."""
    gone = select(retractions.c.judgment_seq)
    query = (select(judgments, prompts.c.body).join(items, items.c.id == judgments.c.item_id)
             .join(prompts, prompts.c.key == judgments.c.prompt_key)
             .where(items.c.project_id == project, items.c.state != "set_aside", judgments.c.seq.not_in(gone))
             .order_by(judgments.c.seq.desc()).limit(most))
    return [StoredAnswer(r.seq, r.item_id, r.role, r.created_at, judgment_of(r._mapping)) for r in tx.execute(query)][::-1]
