"""Snapshots: the same feedback, the same bytes, the same hash; and never overwritten."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest

from harken.core.errors import UserError
from harken.core.records import Choice, Demonstration, Prompt
from harken.store.database import open_database
from harken.store.files import read, write_jsonl
from harken.store.snapshots import snapshot

ROWS = [Choice(Prompt.of(f"Why {i} \u2028 ☂?"), ("Because.", "No."), (1, 2), labeler) for i, labeler in
        enumerate(["a7", "b1", "a7", None])]


def database(folder, name, rows):
    db = open_database(folder / f"{name}.db")
    write_jsonl(folder / f"{name}.in.jsonl", rows)
    db.import_file(folder / f"{name}.in.jsonl")
    return db


def test_the_same_feedback_in_another_order_has_the_same_hash(tmp_path):
    one = snapshot(database(tmp_path, "one", ROWS), "comparisons", tmp_path / "one.jsonl")
    two = snapshot(database(tmp_path, "two", ROWS[::-1]), "comparisons", tmp_path / "two.jsonl.gz")
    less = snapshot(database(tmp_path, "less", ROWS[1:]), "comparisons", tmp_path / "less.jsonl")
    assert one.hash == two.hash != less.hash
    content = one.path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == one.hash
    assert gzip.decompress(two.path.read_bytes()) == content
    assert sorted(c.prompt.text for c in read(one.path).records) == sorted(c.prompt.text for c in ROWS)


def test_the_file_beside_it_tells_what_it_is(tmp_path):
    info = snapshot(database(tmp_path, "one", ROWS), "comparisons", tmp_path / "s.jsonl")
    meta = json.loads((tmp_path / "s.jsonl.meta.json").read_text())
    assert (info.rows, info.labelers, info.unnamed) == (4, 2, 1)
    assert meta == {"kind": "comparisons", "rows": 4, "labelers": 2, "rows_without_labeler": 1, "sha256": info.hash,
                    "created": meta["created"], "harken": meta["harken"]}


def test_a_snapshot_is_never_overwritten(tmp_path):
    db = database(tmp_path, "one", ROWS)
    info = snapshot(db, "comparisons", tmp_path / "s.jsonl")
    meta = (tmp_path / "s.jsonl.meta.json").read_bytes()
    assert snapshot(db, "comparisons", tmp_path / "s.jsonl") == info
    assert (tmp_path / "s.jsonl.meta.json").read_bytes() == meta
    before = (tmp_path / "s.jsonl").read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        snapshot(db, "prompts", tmp_path / "s.jsonl")
    assert (tmp_path / "s.jsonl").read_bytes() == before


def test_a_snapshot_imported_elsewhere_gives_the_same_snapshot(tmp_path):
    first = snapshot(database(tmp_path, "one", ROWS), "comparisons", tmp_path / "s.jsonl")
    other = open_database(tmp_path / "other.db")
    other.import_file(first.path)
    assert snapshot(other, "comparisons", tmp_path / "t.jsonl").hash == first.hash


def test_what_cannot_be_frozen(tmp_path):
    db = database(tmp_path, "one", [Demonstration(Prompt.of("Hi"), "Hello")])
    with pytest.raises(UserError, match="holds no comparisons"):
        snapshot(db, "comparisons", tmp_path / "s.jsonl")
    with pytest.raises(UserError, match=r"does not end in \.jsonl"):
        snapshot(db, "demonstrations", tmp_path / "s.csv")
    with pytest.raises(UserError, match="Unknown kind"):
        snapshot(db, "nonsense", tmp_path / "s.jsonl")
    with pytest.raises(UserError, match="could not be written"):
        snapshot(db, "prompts", tmp_path / "none" / "s.jsonl")
    assert snapshot(db, "prompts", tmp_path / "p.jsonl").rows == 1
