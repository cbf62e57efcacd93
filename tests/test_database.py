"""The feedback database: stored once, never changed, all or nothing, and readable errors."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, inspect, text

from harken.cli import data as cli_data
from harken.core.errors import UserError
from harken.core.records import Choice, Completion, Demonstration, Judgment, Prompt
from harken.store import migrations
from harken.store.connection import RuleError
from harken.store.database import Added, open_database
from harken.store.files import write_jsonl
from harken.store.schema import metadata

PROMPT = Prompt.of("Name a colour.", tags=("art",))
RANKING = {"completions": ["Red", "Blue"], "ranks": [2, 1]}
SOURCE = Path(__file__).parents[1] / "src"


def judgment(client_id: str | None = "c1", **fields) -> Judgment:
    return Judgment(PROMPT, fields.pop("kind", "ranking"), fields.pop("payload", RANKING), client_id=client_id, **fields)


def choices(n: int, start: int = 0) -> list[Choice]:
    return [Choice(Prompt.of(f"Question {i % 50}?"), (f"a{i}", "b"), (1, 2), f"w{i % 7}") for i in range(start, start + n)]


@pytest.fixture
def db(tmp_path):
    with open_database(tmp_path / "feedback.db") as database:
        yield database


def test_a_judgment_comes_back_as_it_was(db):
    full = judgment(labeler="a7", group={"age": "30-39"}, order=(1, 0), seconds=3.25, instruction_hash="h", form_version="2")
    rated = judgment("c2", kind="rating", payload={"completion": "Red", "score": None})
    assert db.add_judgments([full, rated]) == Added(2, 0)
    assert list(db.judgments()) == [full, rated]
    assert list(db.comparisons()) == [Choice(PROMPT, ("Red", "Blue"), (2, 1), "a7", {"age": "30-39"})]
    assert list(db.prompts()) == [PROMPT]


@settings(max_examples=25, deadline=None)
@given(answer=st.text(st.characters(codec=None)), name=st.text(), group=st.dictionaries(st.text(), st.text(), max_size=2))
def test_any_text_comes_back_as_it_was(tmp_path_factory, answer, name, group):
    said = Judgment(Prompt.of("x" + answer), "edit", {"completion": answer}, name, group)
    path = tmp_path_factory.getbasetemp() / "texts.db"
    with open_database(path) as database:
        database.add_judgments([said])
        assert list(database.judgments())[-1] == said


def test_sending_twice_stores_once_and_a_client_id_is_never_reused(db):
    assert db.add_judgments([judgment(), judgment()]) == Added(1, 1)
    assert db.add_judgments([judgment()]) == Added(0, 1)
    with pytest.raises(UserError, match="'c1' was used for another answer"):
        db.add_judgments([judgment("c9"), judgment(payload={"completions": ["Red", "Blue"], "ranks": [1, 2]})])
    assert [j.client_id for j in db.judgments()] == ["c1"]
    assert db.add_judgments([judgment(None), judgment(None)]) == Added(2, 0)


def test_judgments_cannot_be_changed_or_removed(db):
    db.add_judgments([judgment()])
    for statement in ("UPDATE judgments SET labeler = 'x'", "DELETE FROM judgments"):
        with pytest.raises(RuleError, match="never changed"), db.link.writing() as connection:
            connection.execute(text(statement))


def test_prompts_and_completions_are_stored_once(db):
    other = Prompt.of("Name a colour.", use_case="chat")
    assert db.add_prompts([PROMPT, PROMPT, other]) == Added(2, 1)
    assert list(db.prompts()) == [PROMPT], "one prompt for each id"
    a, b = Completion(PROMPT.id, "Red", "run-1"), Completion(PROMPT.id, "Blue", "run-1")
    assert db.add_completions([a, b, a]) == Added(2, 1)
    assert db.completions(PROMPT.id) == [a, b]


def test_more_than_a_page_keeps_its_order_while_others_write(db):
    rows = choices(2500)
    db.add_judgments([Judgment(c.prompt, "ranking", {"completions": list(c.options), "ranks": [1, 2]}, c.labeler)
                      for c in rows])
    seen = []
    for i, choice in enumerate(db.comparisons()):
        if i == 10:
            db.add_judgments([judgment()])
        seen.append(choice)
    assert seen == rows


# Imports

def test_import_of_each_kind(db, tmp_path):
    for kind, rows in (("comparisons", [*choices(3), Choice(PROMPT, ("a", "b"), (1, 1), kind="use")]),
                       ("demonstrations", [Demonstration(PROMPT, "Red", "a7", {"age": "x"})]), ("prompts", [PROMPT])):
        write_jsonl(tmp_path / f"{kind}.jsonl", rows)
        result = db.import_file(tmp_path / f"{kind}.jsonl")
        assert result.kind == kind
        found = list(getattr(db, kind)())
        assert all(row in found for row in rows)
    assert len(list(db.comparisons())) == 4


def test_the_same_file_stores_nothing_twice_and_a_grown_one_only_its_new_rows(db, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = choices(900)
    write_jsonl(path, [*rows, rows[0]])  # a row that stands twice in the file is two judgments
    assert (db.import_file(path).added, db.import_file(path).added) == (901, 0)
    assert db.import_file(path).before is not None
    write_jsonl(path, [*rows, rows[0], *choices(5, 900)])
    result = db.import_file(path)
    assert (result.added, result.already, result.before) == (5, 901, None)
    assert db.import_file(path, "prompts").kind == "prompts", "the same file as another kind is another import"
    assert len(list(db.comparisons())) == 906


def test_a_bad_line_stores_nothing_unless_skipped(db, tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, choices(5))
    with path.open("a") as file:
        file.write("{oops}\n")
    with pytest.raises(UserError, match="line 6"):
        db.import_file(path)
    assert list(db.judgments()) == []
    result = db.import_file(path, skip_bad=True)
    assert (result.added, result.skipped) == (5, {"not valid JSON": 1})


def python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(SOURCE)})


@pytest.mark.slow
def test_killed_halfway_leaves_nothing_half_imported(tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", choices(2000))
    child = python("""
import sys, time
from sqlalchemy import event
from harken.store.database import open_database
db = open_database(sys.argv[1])
batches = 0
@event.listens_for(db.link.engine, "after_cursor_execute")
def count(connection, cursor, statement, *rest):
    global batches
    batches += statement.startswith("INSERT INTO judgments")
    if batches == 3:
        print("halfway", flush=True)
        time.sleep(60)
db.import_file(sys.argv[2])
""", tmp_path / "feedback.db", tmp_path / "pairs.jsonl")
    assert child.stdout is not None and child.stdout.readline() == "halfway\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with open_database(tmp_path / "feedback.db") as db:
        assert list(db.prompts()) == [] and list(db.judgments()) == []
        assert db.import_file(tmp_path / "pairs.jsonl").added == 2000


@pytest.mark.slow
def test_processes_that_open_and_import_at_once(tmp_path):
    """A fresh file opened by all at once; two import the same file, two another."""
    write_jsonl(tmp_path / "0.jsonl", choices(1500))
    write_jsonl(tmp_path / "1.jsonl", choices(1500, 10_000))
    code = """
import sys
from harken.store.database import open_database
sys.stdin.readline()
print(open_database(sys.argv[1]).import_file(sys.argv[2]).added)
"""
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "f.db"), str(tmp_path / f"{i % 2}.jsonl")],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env=os.environ | {"PYTHONPATH": str(SOURCE)}) for i in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60) for child in children]
    assert [err for _, err in answers if err] == []
    assert sorted(int(out) for out, _ in answers) == [0, 0, 1500, 1500]
    with open_database(tmp_path / "f.db") as db:
        assert len(list(db.judgments())) == 3000


def test_many_threads_store_each_answer_once(db):
    """F2: answers accepted = answers stored."""
    accepted = []

    def work(worker: int) -> None:
        for i in range(25):
            accepted.append(db.add_judgments([judgment(f"{worker // 2}-{i}")]).added)

    threads = [threading.Thread(target=work, args=(w,)) for w in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sum(accepted) == len(list(db.judgments())) == 100


# What goes wrong

def test_a_held_lock_ends_in_words(tmp_path):
    path = tmp_path / "f.db"
    open_database(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with open_database(path, busy_seconds=0.1) as db:
        with pytest.raises(UserError, match="in use by another process"):
            db.add_judgments([judgment()])
        assert list(db.judgments()) == [], "reading goes on"
    other.close()


@pytest.mark.parametrize(("pragma", "words"), [("max_page_count=30", "the disk is full"), ("query_only=ON", "is read-only")])
def test_full_and_read_only_disks_end_in_words_and_store_nothing(db, tmp_path, pragma, words):
    write_jsonl(tmp_path / "pairs.jsonl", choices(5000))
    db.link.engine.dispose()
    event.listen(db.link.engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))
    with pytest.raises(UserError, match=words):
        db.import_file(tmp_path / "pairs.jsonl")
    assert list(db.judgments()) == []


def test_files_that_are_no_feedback_database(tmp_path):
    (tmp_path / "text.db").write_text("not a database, but long enough to look at")
    with pytest.raises(UserError, match="is not a database"):
        open_database(tmp_path / "text.db")
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(UserError, match=r"not a database|damaged"):
        open_database(tmp_path / "torn.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(UserError, match=r"another program \(its tables: bookmarks"):
        open_database(tmp_path / "other.db")
    with pytest.raises(UserError, match="is a folder"):
        open_database(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_database(tmp_path / "none" / "f.db")
    with pytest.raises(UserError, match="There is no database"):
        open_database(tmp_path / "f.db", create=False)
    assert not (tmp_path / "f.db").exists()
    for address in ("postgresql://u:secret@127.0.0.1:1/x", "oracel://x"):
        with pytest.raises(UserError) as error:
            open_database(address)
        assert "secret" not in str(error.value)


def test_settings_that_keep_answers(db):
    with db.link.reading() as connection:
        got = {p: connection.execute(text(f"PRAGMA {p}")).scalar() for p in
               ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}
    assert got == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


# Migrations

def test_migrations_lead_to_the_declared_schema(db):
    with db.link.reading() as connection:
        found = inspect(connection)
        for table in metadata.sorted_tables:
            columns = {(c["name"], c["nullable"]) for c in found.get_columns(table.name)}
            primary = {c.name for c in table.primary_key}
            assert {c for c in columns if c[0] not in primary} == {
                (c.name, bool(c.nullable)) for c in table.columns if c.name not in primary}
            assert {i["name"] for i in found.get_indexes(table.name)} >= {i.name for i in table.indexes}


def test_an_older_database_is_brought_up_to_date_and_a_newer_one_refused(tmp_path, monkeypatch):
    path = tmp_path / "f.db"
    with open_database(path) as db:
        db.add_judgments([judgment()])

    def second(connection):
        connection.execute(text("CREATE TABLE extra (x TEXT)"))

    def broken(connection):
        second(connection)
        raise RuntimeError("in the middle of a migration")

    known = migrations.MIGRATIONS
    monkeypatch.setattr(migrations, "MIGRATIONS", [*known, broken])
    with pytest.raises(RuntimeError):
        open_database(path)
    monkeypatch.setattr(migrations, "MIGRATIONS", [*known, second])
    with open_database(path) as db:
        assert list(db.judgments()) == [judgment()]
    monkeypatch.undo()
    with pytest.raises(UserError, match=f"newer Harken: format {len(known) + 1}, known here up to {len(known)}"):
        open_database(path)


# Commands

def harken(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    cli_data.add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(a) for a in arguments])
    return args.handler(args)


def test_an_answer_compared_with_itself_is_counted_and_kept(tmp_path, capsys):
    path, db = tmp_path / "pairs.jsonl", tmp_path / "f.db"
    path.write_text("".join(json.dumps({"prompt": f"q{i}", "completions": ["a", "a" if i < 2 else "b", f"c{i}"],
                                        "ranks": [1, 2, 3]}) + "\n" for i in range(5)))
    for _ in range(2):
        assert harken("import", path, "--db", db) == 0
        assert "2 comparisons with the same completion twice" in capsys.readouterr().out
    assert harken("snapshot", "comparisons", "--db", db, "--out", tmp_path / "frozen.jsonl") == 0
    said = capsys.readouterr().out
    assert "Froze 5 comparisons" in said and "2 comparisons with the same completion twice" in said


def test_commands_say_what_they_did_and_what_comes_next(tmp_path, capsys):
    path, db, out = tmp_path / "pairs.jsonl", tmp_path / "f.db", tmp_path / "frozen.jsonl"
    path.write_text("".join(json.dumps(c.to_json()) + "\n" for c in choices(3)) + "{oops}\n")
    assert harken("import", path, "--db", db, "--skip-bad") == 0
    said = capsys.readouterr().out
    assert "Stored 3 comparisons" in said and "1 × not valid JSON" in said and "Next: harken snapshot comparisons" in said
    assert harken("import", path, "--db", db, "--skip-bad") == 0
    assert "nothing new to store" in capsys.readouterr().out
    assert harken("snapshot", "comparisons", "--db", db, "--out", out) == 0
    said = capsys.readouterr().out
    assert "Froze 3 comparisons (3 labelers)" in said and "Next: harken train reward_model" in said
    assert len(out.read_text().splitlines()) == 3


def test_a_database_opened_twice_keeps_its_locks(tmp_path):
    """Else a third party that closes it takes itself for the last one, and removes the journal that holds our answers."""
    path = tmp_path / "f.db"
    with open_database(path) as db, db.link.reading() as tx:
        tx.execute(text("SELECT count(*) FROM judgments")).scalar()
        with open_database(path):
            code = ("import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
                    "c.execute('SELECT * FROM judgments').fetchall(); c.close()")
            subprocess.run([sys.executable, "-c", code, str(path)], check=True)
            assert path.with_name("f.db-wal").exists()
