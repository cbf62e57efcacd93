"""The audit proves the data: any one cell that was edited, any row that was removed or added, is noticed; nothing else is."""

import json
import random
import shutil
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import text

from harken.cli.main import main
from harken.core.errors import UserError
from harken.store import audit, backup, events
from harken.store.connection import Link
from harken.store.database import open_database
from harken.studio.work import projects, withdrawal
from harken.studio.work.set_aside import set_answer_aside
from harken.web import accounts
from studio_site import Desk, empty_postgres, open_template

TABLES = ("judgments", "events", "items", "users", "retractions", "imports", "prompts")
FREE_CELLS = {
    # Not part of what the audit promises: secrets and how a person likes to work, and when a row of no consequence was made.
    "users": {"password_hash", "hidden", "consent", "created_at", "name_key", "subject"},
    "prompts": {"seq", "id", "created_at"},
}


def said_much(db, folder, n):
    """A project in which everything happened: `n` answers, repeats, gold, skips, imports, answers taken back in each way."""
    desk = Desk(db, n=max(8, n // 2), overlap={"min": 2, "max": 3}, gold_rate=0.1, repeat_rate=0.1, repeat_minutes=0,
                skip_limit=1)
    desk.add([{"prompt": "known", "completions": ["a", "b"], "role": "gold", "gold": {"ranks": [1, 2]}},
              {"prompt": "hard words", "completions": ["c", "d"], "warnings": ["hate"]}])
    rng, given = random.Random(0), 0
    desk.do("skip", "eve", desk.claim("eve")[0])
    desk.do("unsafe", "eve", desk.claim("eve")[0])
    desk.do("skip", "eve", desk.claim("eve")[0])
    desk.undo("eve")
    while given < n:
        for name in ("ana", "bo", "cy"):
            for task in desk.claim(name, 1):
                desk.submit(name, task, answer={"preference": rng.choice([-2, 2])})
                given += 1
        if not any(desk.claim(name, 1) for name in ("ana", "bo", "cy")):
            break
        desk.clock.pass_(minutes=1)
    for name in ("ana", "bo"):
        desk.undo(name)
    with db.link.writing() as tx:
        projects.change_item(tx, 3, {"state": "set_aside", "warnings": ["abuse"]}, desk.clock())
        projects.change_item(tx, 4, {"overlap": 5}, desk.clock())
        desk.clock.pass_(minutes=1)
        withdrawal.withdraw(tx, "cy", desk.clock())
        set_answer_aside(tx, standing(tx), "a slip", desk.clock())
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{i}", "chosen": "x", "rejected": "y", "labeler": f"l{i}"}) + "\n"
                            for i in range(5)))
    db.import_file(file)
    return desk


def standing(tx):
    """The first answer of the studio that counts."""
    return tx.execute(text("SELECT min(seq) FROM judgments WHERE role IS NULL AND item_id IS NOT NULL"
                           " AND seq NOT IN (SELECT judgment_seq FROM retractions)")).scalar()


def problems(path, expect=None):
    link = Link(path, create=False)
    with link.reading() as connection:
        report = audit.check(connection, expect)
    link.engine.dispose()
    return report.problems


def edited(path, *statements):
    with sqlite3.connect(path) as db:
        for name in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name[0]}")
        for statement, values in statements:
            assert db.execute(statement, values).rowcount == 1
    db.close()


def other(value, column):
    """Another value of the same kind; a number that is not taken, which the database itself would refuse."""
    if isinstance(value, (int, float)):
        return value + (1000 if column in ("seq", "id", "judgment_seq") else 1 if column != "held_out" else -value or 1)
    if value is None:
        return "777777"
    if value[:1] in "{[":
        return json.dumps({**json.loads(value), "x": 1} if value[0] == "{" else [*json.loads(value), 1])
    return value[:-1] + ("0" if value[-1] != "0" else "1") if value else "x"


@pytest.mark.parametrize(("n", "step"), [(24, 4), pytest.param(1000, 1, marks=pytest.mark.slow)])
def test_any_one_edited_cell_is_noticed(tmp_path, n, step):
    """In every column; without the slow tests in every fourth."""
    with open_template(tmp_path) as db:
        said_much(db, tmp_path, n)
        copy = tmp_path / "copy.db"
        backup.backup(db.link, copy)  # an honest database passes
    kept = copy.read_bytes()
    rng, tried = random.Random(1), 0
    with sqlite3.connect(copy) as plain:
        columns = {t: [c[1] for c in plain.execute(f"PRAGMA table_info({t})")] for t in TABLES}
        rows = {t: plain.execute(f"SELECT rowid, * FROM {t}").fetchall() for t in TABLES}
    plain.close()
    cells = [(table, at, column) for table in TABLES for at, column in enumerate(columns[table], 1)
             if column not in FREE_CELLS.get(table, ())]
    for table, at, column in cells[::step]:
        row = rng.choice(rows[table])
        copy.write_bytes(kept)
        edited(copy, (f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (other(row[at], column), row[0])))
        assert problems(copy), f"{table}.{column} of row {row[0]}: {row[at]!r} -> {other(row[at], column)!r}"
        tried += 1
    assert tried > 60 // step


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    """A database in which everything happened, of eight answers; its bytes."""
    folder = tmp_path_factory.mktemp("little")
    with open_template(folder) as db:
        said_much(db, folder, 8)
        backup.backup(db.link, folder / "copy.db")
    return (folder / "copy.db").read_bytes()


@pytest.mark.parametrize("table", ["judgments", "events", "items", "users", "retractions", "imports"])
@pytest.mark.parametrize("which", ["first", "middle", "last"])
def test_a_removed_row_is_noticed(little, tmp_path, table, which):
    copy = tmp_path / "copy.db"
    copy.write_bytes(little)
    with sqlite3.connect(copy) as plain:
        rows = [r[0] for r in plain.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
    plain.close()
    edited(copy, (f"DELETE FROM {table} WHERE rowid = ?", (rows[{"first": 0, "middle": len(rows) // 2, "last": -1}[which]],)))
    assert problems(copy)


def test_an_answer_set_aside_frees_its_place_and_its_retraction_is_covered(tmp_path):
    with open_template(tmp_path) as db:
        desk = Desk(db, n=1)
        (task,) = desk.claim("ana")
        seq = desk.submit("ana", task)["judgment"]
        with db.link.writing() as tx:
            set_answer_aside(tx, seq, "a slip", desk.clock())
        before, after = tmp_path / "before.db", tmp_path / "after.db"
        backup.backup(db.link, before)
        (again,) = desk.claim("bo")
        desk.submit("bo", again)
        with db.link.writing() as tx:  # an answer that came too late never had a place
            projects.change_item(tx, 1, {"overlap": 2}, desk.clock())
        (late,) = desk.claim("cy")
        with db.link.writing() as tx:
            projects.change_item(tx, 1, {"overlap": 1}, desk.clock())
        surplus = desk.submit("cy", late)
        assert not surplus["counted"]
        with db.link.writing() as tx:
            set_answer_aside(tx, surplus["judgment"], "late", desk.clock())
        backup.backup(db.link, after)
    assert problems(before) == problems(after) == ()
    kept = before.read_bytes()
    for change in ("DELETE FROM retractions", "UPDATE retractions SET reason = 'undo'",
                   "UPDATE retractions SET reason = 'withdrawal'", "UPDATE retractions SET created_at = 'x'"):
        before.write_bytes(kept)
        edited(before, (f"{change} WHERE judgment_seq = ?", (seq,)))
        assert any(f"The retraction of judgment {seq} is" in words for words in problems(before)), change
    for change in ("done = 1, free = 0, state = 'done'", "again = 0"):
        before.write_bytes(kept)
        edited(before, (f"UPDATE items SET {change} WHERE id = ?", (1,)))
        assert any(words.startswith("Item 1: ") for words in problems(before)), change


def test_a_rewritten_end_is_noticed_by_whoever_kept_an_earlier_one(tmp_path, capsys):
    """The last events removed, and SQLite's own count of them set back: only an earlier end tells."""
    with open_template(tmp_path) as db:
        desk = Desk(db)
        desk.submit("ana", desk.claim("ana")[0])
        with db.link.writing() as tx:
            events.add(tx, "note", desk.clock())
        with db.link.reading() as tx:
            kept = events.end(tx)[1]
        copy = tmp_path / "copy.db"
        backup.backup(db.link, copy)
    assert main(["audit", "--db", str(copy), "--expect", kept[:16]]) == 0
    with sqlite3.connect(copy) as plain:
        last = plain.execute("SELECT max(seq) FROM events").fetchone()[0]
    plain.close()
    edited(copy, ("DELETE FROM events WHERE seq = ?", (last,)),
           ("UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", (last - 1,)))
    assert main(["audit", "--db", str(copy)]) == 0
    assert main(["audit", "--db", str(copy), "--expect", kept[:16]]) == 1
    assert "last events were removed" in capsys.readouterr().out


def test_an_added_answer_without_an_event_is_noticed_and_a_backup_of_it_refused(tmp_path):
    with open_template(tmp_path) as db:
        desk = Desk(db)
        desk.submit("ana", desk.claim("ana")[0])
        with db.link.writing() as tx:
            columns = "prompt_key, kind, payload, labeler, labeler_group, content, created_at, item_id"
            tx.execute(text(f"INSERT INTO judgments ({columns}) SELECT {columns} FROM judgments"))
        with pytest.raises(UserError, match="does not hold what its audit says"):
            backup.backup(db.link, tmp_path / "copy.db")


@pytest.mark.slow
def test_the_audit_holds_on_postgresql_and_of_its_backup(postgres, tmp_path):
    with empty_postgres(postgres) as address, open_database(address) as db:
        said_much(db, tmp_path, 24)
        with db.link.reading() as tx:
            assert audit.check(tx).problems == ()
        backup.backup(db.link, tmp_path / "copy.db")
        with db.link.writing() as tx:
            tx.execute(text("UPDATE users SET role = 'lead' WHERE name = 'ana'"))
        with db.link.reading() as tx:
            assert "role" in audit.check(tx).problems[0]


def test_a_database_of_before_is_covered_from_its_migration_on(tmp_path):
    """What a database held when it was brought up to date is covered as it was then, and the names of old keep theirs."""
    old = tmp_path / "old.db"
    with open_template(tmp_path) as db:
        desk = said_much(db, tmp_path, 12)
        name = db.name
    shutil.copy(name, old)
    with sqlite3.connect(old) as plain:  # as format 2 had it: no key, no maker, and events that covered less
        for trigger in plain.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            plain.execute(f"DROP TRIGGER {trigger[0]}")
        plain.execute("DROP INDEX ix_users_name_key")
        for table, column in (("users", "name_key"), ("invitations", "made_by"), ("sessions", "seen_at")):
            plain.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        plain.execute("DROP TABLE devices")
        for index in ("ix_users_subject", "ix_items_line", "ix_items_again"):
            plain.execute(f"DROP INDEX {index}")
        for table, column in (("items", "assigned"), ("users", "subject")):
            plain.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for table in (
            "served",
            "feedback",
            "secrets",
            "item_search",
            "item_texts",
            "comments",
            "reviews",
            "webhooks",
            "participants",
            "crowds",
        ):
            plain.execute(f"DROP TABLE IF EXISTS {table}")
        plain.execute("DELETE FROM harken_schema WHERE version >= 3")
        plain.execute("INSERT INTO users (name, role, labeler_group, held_out, hidden, state, created_at) VALUES "
                      "('Ünal', 'labeler', '{}', 0, '[]', 'active', 'x'), ('ünal', 'labeler', '{}', 0, '[]', 'active', 'x')")
        before = ""
        names = ("kind", "user_id", "project_id", "item_id", "assignment_id", "judgment_seq", "client_id", "undoes")
        for row in plain.execute(f"SELECT seq, {', '.join(names)}, body, created_at FROM events ORDER BY seq").fetchall():
            if row[1] == "import":
                plain.execute("DELETE FROM events WHERE seq = ?", (row[0],))
                continue
            body = {k: v for k, v in json.loads(row[9]).items()
                    if k not in ("after", "wanted", "aside", "hash", "labelers", "labeler_group", "held_out")
                    and (k, row[1]) != ("role", "submit")}
            before = events.content_hash([before, {**dict(zip(names, row[1:9])), "body": body, "created_at": row[10]}])
            plain.execute("UPDATE events SET body = ?, hash = ? WHERE seq = ?", (json.dumps(body), before, row[0]))
    plain.close()
    with open_database(old) as db:
        with db.link.reading() as tx:
            assert audit.check(tx).problems == ()
            keys = dict(tx.execute(text("SELECT name, name_key FROM users")).tuples().all())
            assert keys["ünal"] == "ünal" and keys["Ünal"] == "ünal (2)"  # the second could never log in before
            told = tx.execute(text("SELECT body FROM events WHERE kind = 'name_shared'")).scalar()
            assert json.loads(told)["signs_in_as"] == "ünal (2)"
        with db.link.writing() as tx:  # and it goes on
            accounts.set_password(tx, "Ünal (2)", "$x", desk.clock())
        with db.link.writing() as tx:
            tx.execute(text("UPDATE imports SET rows = rows + 1"))
        with db.link.reading() as tx:
            assert "Import" in audit.check(tx).problems[0]


@pytest.mark.parametrize("cell", ["'{oops'", "CAST(x'22c622' AS TEXT)", "''"])
def test_a_cell_that_can_no_longer_be_read_is_damage_in_words(tmp_path, capsys, cell):
    rows, path = tmp_path / "r.jsonl", tmp_path / "f.db"
    rows.write_text('{"prompt": "a", "completions": ["x", "y"], "ranks": [1, 2], "labeler": "ann"}\n')
    with open_database(path) as db:
        db.import_file(rows)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DROP TRIGGER judgments_no_update")
        raw.execute(f"UPDATE judgments SET payload = {cell}")
    assert main(["audit", "--db", str(path)]) != 0
    said = capsys.readouterr().err
    assert "is damaged" in said and "Traceback" not in said and "Restore it from a backup" in said
