"""Secrets of the servers and commands that share a database: made when first asked for, never shown.

Who can read the database can read them: a signature made with one shows that something was not changed by anybody else.
"""

from __future__ import annotations

import secrets as random

from sqlalchemy import Connection, insert, select

from harken.store.serve_schema import secrets


def secret(tx: Connection, name: str) -> bytes:
    """32 bytes, the same for every process; the caller holds a write transaction."""
    found = tx.scalar(select(secrets.c.value).where(secrets.c.name == name))
    if found is None:
        found = random.token_hex(32)
        tx.execute(insert(secrets), {"name": name, "value": found})
    return bytes.fromhex(found)
