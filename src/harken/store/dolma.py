"""Dolma's attributes: spans with scores beside untouched documents, keyed by id (allenai/dolma, docs/data-format.md).

    {"id": "d7", "attributes": {"pii__spans": [[0, 12, 0.9], …]}}      a line a document, .jsonl or .jsonl.gz

`write_attributes` gives an annotation's scores to Dolma; `DolmaScores` is a scorer made of Dolma's attributes, so that
`harken annotate documents/ --scorer dolma:attributes/=-KEY` brings them into training.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harken.core.errors import UserError
from harken.store.annotations import Annotated
from harken.store.files import write_jsonl
from harken.store.unpack import open_unpacked


def write_attributes(annotated: Annotated, folder: Path, key: str) -> int:
    """A file of attributes for each split; segments without a score are left out. Returns the number of spans."""
    folder.mkdir(parents=True, exist_ok=True)
    spans = 0
    for split in sorted(annotated.rows):
        rows = []
        for group in range(annotated.rows[split]["groups"]):
            for document in annotated.read(split, group):
                scored = [[a, b, s] for a, b, s in zip([0, *document.ends], document.ends, document.scores) if s is not None]
                rows.append({"id": document.id, "attributes": {key: scored}})
                spans += len(scored)
        write_jsonl(folder / f"{split:05d}.jsonl.gz", rows)
    return spans


class DolmaScores:
    """Scores by the spans of one attribute. A segment gets the worst score of the spans that touch it, none where none does.
    `sign` is -1 for attributes of faults, since here higher is better. The spans are kept on disk, by id.

    Raises `UserError` where a line is no row of attributes, none has the key, or two with one id have other spans.
    """

    def __init__(self, folder: str | Path, key: str, sign: int = 1) -> None:
        root = Path(folder)
        files = sorted(p for p in root.rglob("*.jsonl*") if p.is_file()) if root.is_dir() else [root]
        if not files or not files[0].is_file():
            raise UserError(f"{folder} holds no attributes.", "Name a folder or file of Dolma's attributes (.jsonl, .jsonl.gz).")
        self.sign, digest, count = sign, hashlib.sha256(f"{key}{sign}".encode()), 0
        self._place = tempfile.TemporaryDirectory(prefix="harken-dolma-")
        self._db = sqlite3.connect(Path(self._place.name) / "spans.sqlite", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE spans (id TEXT PRIMARY KEY, spans TEXT) WITHOUT ROWID")
        self._db.execute("BEGIN")
        for path in files:
            with open_unpacked(path) as file:
                for number, line in enumerate(file, 1):
                    digest.update(line)
                    count += self._add(line, key, f"{path}, line {number}")
        self._db.execute("COMMIT")
        if not count:
            raise UserError(f"No document of {folder} has the attribute {key}.",
                            "Check its name; a minus before it turns its sign.")
        self.id = f"dolma/{'-' if sign < 0 else ''}{key}/{digest.hexdigest()[:16]}"

    def _add(self, line: bytes, key: str, place: str) -> int:
        try:
            row = json.loads(line)
            spans = row["attributes"].get(key)
            if spans is None:
                return 0
            signed = [(int(a), int(b), self.sign * float(s)) for a, b, s in spans]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{place} is no row of attributes: {type(error).__name__}: {error}.",
                            'Rows are like {"id": "d7", "attributes": {"KEY": [[0, 12, 0.9]]}}.') from None
        name, spans = str(row["id"]), json.dumps(signed)
        known = self._db.execute("SELECT spans FROM spans WHERE id = ?", (name,)).fetchone()
        if known and known[0] != spans:
            raise UserError(f"{place} has the id {name!r}, which another row has with other spans: whose they are is not known.",
                            "Give every document an id of its own, in the documents and in their attributes.")
        self._db.execute("INSERT OR IGNORE INTO spans VALUES (?, ?)", (name, spans))
        return 1

    def rate_document(self, name: str, text: str, ends: Sequence[int]) -> list[float | None]:
        """The scores of a document's segments."""
        row = self._db.execute("SELECT spans FROM spans WHERE id = ?", (name,)).fetchone()
        spans = sorted(json.loads(row[0])) if row else []
        return [min((s for a, b, s in spans if a < end and b > start), default=None) for start, end in zip([0, *ends], ends)]
