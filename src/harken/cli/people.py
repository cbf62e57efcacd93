"""People in the place of a judge: a project of the studio is made, waited for, and read back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harken.core.errors import NotYet, UserError
from harken.core.files import file_hash
from harken.core.progress import progress
from harken.core.run import Run
from harken.store.connection import masked

EVERY = 5.0
"""Seconds between two looks at the studio's database."""


def with_people(config: Any, evaluation: Callable[[], Run]) -> Run:
    """Runs an evaluation; where it needs people first and names a studio, they are asked there. No model is held while they
    answer. Interrupted and started again, it goes on waiting: the project is the same, and nothing is asked twice. Raises
    `UserError` while answers are outstanding and the evaluation does not wait."""
    try:
        return evaluation()
    except NotYet as needed:
        if not getattr(config, "studio", ""):
            raise
        ask = Path(needed.ask)
    from harken.store.database import open_database
    from harken.studio.work.exports import export_rows, write_rows
    with open_database(config.studio) as db:
        number, name = _project(db, ask, config.overlap)
        where = masked(config.studio)
        print(f"People are asked in the project {name!r} of {where}: harken studio --db {where}", file=sys.stderr, flush=True)
        _wait(db, number, config.wait, name)
        write_rows(Path(config.people or Path(config.out) / "votes.jsonl"), export_rows(db, "comparisons", project=number))
    return evaluation()


def _project(db: Any, ask: Path, overlap: int) -> tuple[int, str]:
    """The project of these pairs, made and filled where it is not there. Labelers see its name, so that it names no model."""
    from sqlalchemy import select

    from harken.core.files import read_jsonl
    from harken.store.studio_schema import projects as table
    from harken.studio.work import projects
    from harken.web.errors import ApiError
    digest, now = file_hash(ask), datetime.now(UTC)
    name = f"Which answer is better? ({digest[:8]})"
    try:
        with db.link.writing() as tx:
            row = tx.execute(select(table.c.id).where(table.c.name == name)).first()
            wanted = {"name": name, "kind": "compare", "purpose": "eval", "overlap": overlap}
            number = row.id if row else projects.create_project(tx, wanted, now, seed=int(digest[:12], 16))
            projects.add_items(tx, number, read_jsonl(ask), now)
    except ApiError as error:
        raise UserError(error.message, error.hint) from None
    return number, name


def _wait(db: Any, number: int, wait: bool, name: str) -> None:
    """Until every pair is answered, or set aside by people."""
    total, settled = _settled(db, number)
    if settled < total and not wait:
        raise UserError(f"{settled} of {total} pairs of {name!r} are answered.", "Give the same command later.")
    if settled < total and not sys.stderr.isatty():
        print(f"Waiting for {total - settled} of {total} pairs. An interrupted wait loses nothing.", file=sys.stderr, flush=True)
    with progress("people's answers", total, settled) as advance:
        while settled < total:
            time.sleep(EVERY)
            before, (total, settled) = settled, _settled(db, number)
            advance(settled - before)


def _settled(db: Any, number: int) -> tuple[int, int]:
    """(pairs, pairs that nobody is asked any more)."""
    from sqlalchemy import func, select

    from harken.store.studio_schema import items
    with db.link.reading() as tx:
        counts = dict(tx.execute(select(items.c.state, func.count()).where(
            items.c.project_id == number, items.c.role == "task").group_by(items.c.state)).tuples().all())
    return sum(counts.values()), sum(n for state, n in counts.items() if state != "open")
