"""What Harken writes, Harken reads: each export of each kind, in each shape and container, comes back equal."""

from __future__ import annotations

import pytest

from harken.core.records import Choice, Demonstration, Judgment, Message, Prompt
from harken.store.database import open_database
from harken.store.files import read, write_jsonl, write_table
from harken.store.snapshots import snapshot
from harken.studio.work.exports import WHATS, export_rows, write_rows
from studio_site import Desk, open_template

TOOLS = ({"type": "function", "function": {"name": "w", "parameters": {"properties": {"city": {"type": "string"}}}}},)
CALLED = Prompt((Message("system", "Be brief."), Message("user", "Rome?"),
                 Message("assistant", "", {"tool_calls": [{"id": "1", "function": {"name": "w", "arguments": "{}"}}]}),
                 Message("tool", "20C", {"tool_call_id": "1"}), Message("user", "So?")), tools=TOOLS)
TEXTS = ("Human: hi\n\nAssistant:", '[{"role": "user", "content": "x"}]', "<|im_start|>user", "User: a\nAssistant: b", "=1+1",
         "'=x", "\uff1d1+1", "'\uff0bx", "\n=1",
         "- a list", 'a "quote", a comma;\ta tab\r\nand lines', "007", "true", "null", " 3.0 ")
RECORDS = [
    Judgment(CALLED, "ranking", {"completions": ["Warm.", "Cold.", "Mild."], "ranks": [1, 2, 1], "strength": 2}, "ann",
             {"age": "30"}),
    Judgment(Prompt.of("Q", use_case="chat", tags=("x",), split="train", meta={"n": [1, {"a": None}]}), "ranking",
             {"completions": ["a", "b"], "ranks": [1, 1], "weight": 0.5}, "7", {"sex": "f"}),
    Judgment(CALLED, "demonstration", {"completion": "Warm."}, "bo", form_version="f1", instruction_hash="i1"),
    Judgment(Prompt.of("Q"), "rating", {"completion": "a", "score": 3}, "ann"),
    Judgment(Prompt.of("Q"), "rating", {"completion": "b", "score": None}, "ann"),
    Judgment(Prompt.of("Q"), "thumb", {"completion": "a", "label": False}, "ann"),
    Judgment(CALLED, "thumb", {"completion": "b", "label": True}),
    *(Judgment(Prompt.of(text), "demonstration", {"completion": text}) for text in TEXTS),
    *(Judgment(Prompt.of(text), "ranking", {"completions": [text, "no"], "ranks": [2, 1]}) for text in TEXTS),
    *(Judgment(Prompt.of(text), "thumb", {"completion": text, "label": True}) for text in TEXTS),
]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    with open_template(tmp_path_factory.mktemp("full")) as db:
        for kind, k in (("rate_and_rank", 3), ("compare", 2), ("edit", 1), ("demonstrate", 0), ("write_prompt", 0),
                        ("questions", 2)):
            desk = Desk(db, kind=kind, n=2, k=k)
            while tasks := desk.claim(f"who-{kind}"):
                desk.submit(f"who-{kind}", tasks[0])
        db.add_judgments(RECORDS)
        yield db


def kept(row):
    """A flag of another project's form is null in Parquet: it was not asked."""
    flags = row.get("flags")
    here = ("judgment", "item", "sources", "source", "notes", "answered_at", "scale")  # of the database that it was given in
    row = {k: v for k, v in row.items() if k not in here}
    return row | ({"flags": {k: v for k, v in flags.items() if v is not None}} if flags else {})


@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz", "f.csv", "f.parquet"])
@pytest.mark.parametrize("shape", ["harken", "trl", "trl_ties"])
@pytest.mark.parametrize("what", WHATS)
def test_an_export_comes_back_equal(full, tmp_path, what, shape, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    rows = list(export_rows(full, what, shape))
    assert rows and write_rows(tmp_path / name, iter(rows)) == len(rows)
    with open_database(tmp_path / "new.db") as db:
        result = db.import_file(tmp_path / name)
        assert result.added == len(rows) and not result.skipped and not result.unread, (result.skipped, result.unread)
        again = list(export_rows(db, what, shape))
    assert [kept(r) for r in again] == [kept(r) for r in rows]


@pytest.mark.parametrize("kind", ["comparisons", "demonstrations", "prompts", "ratings", "thumbs", "edits", "questions"])
def test_a_snapshot_comes_back_as_the_same_snapshot(full, tmp_path, kind):
    first = snapshot(full, kind, tmp_path / "one.jsonl")
    with open_database(tmp_path / "new.db") as db:
        assert db.import_file(first.path).kind == kind
        assert snapshot(db, kind, tmp_path / "two.jsonl").hash == first.hash


def test_tools_and_tool_turns_stay_in_the_database(tmp_path):
    shown = Demonstration(CALLED, "Warm.")
    write_jsonl(tmp_path / "f.jsonl", [shown, Demonstration(Prompt.of("Rome?"), "Warm.")])
    with open_database(tmp_path / "f.db") as db:
        db.import_file(tmp_path / "f.jsonl")
        assert next(iter(db.demonstrations())) == shown and next(iter(db.demonstrations())).prompt.tools == TOOLS
        assert len({p.id for p in db.prompts()}) == 2


@pytest.mark.parametrize("record", [Choice(Prompt.of(t), (t, "b"), (2, 1), "7", {"age": "x"}) for t in TEXTS]
                         + [Demonstration(Prompt.of(t), t, "true", weight=2) for t in TEXTS])
def test_any_text_goes_through_a_table(tmp_path, record):
    assert write_table(tmp_path / "f.csv", [record.to_json()]) == 1
    assert read(tmp_path / "f.csv").records == [record]


def test_who_judged_did_not_write_the_prompt(tmp_path):
    write_jsonl(tmp_path / "f.jsonl", [Choice(Prompt.of("Q"), ("a", "b"), (1, 2), "ann")])
    with open_database(tmp_path / "f.db") as db:
        assert db.import_file(tmp_path / "f.jsonl", "prompts").added == 1
        assert not list(db.judgments()) and len(list(db.prompts())) == 1
