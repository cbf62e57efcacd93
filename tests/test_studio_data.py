"""What goes in and comes out: items, exports, snapshots, withdrawal, backups, commands."""

import http.server
import json
import random
import sqlite3
import threading
import types

import pytest
from sqlalchemy import text

from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.records import Choice, Prompt
from harken.store import backup
from harken.store.database import open_database
from harken.store.files import read_comparisons, read_demonstrations, write_jsonl
from harken.store.migrations import first_tables
from harken.store.snapshots import snapshot
from harken.studio.tasks.edit import spans
from harken.studio.work import withdrawal as people
from harken.studio.work.exports import export_rows, trl_pairs, write_rows
from harken.studio.work.uploads import read_items, read_upload
from harken.web import accounts
from studio_site import Desk, empty_postgres, new_site, open_template, postgres_server, simple_answer


@pytest.fixture
def desk(tmp_path):
    with open_template(tmp_path) as db:
        yield Desk(db, n=4)


def label_all(desk, name, answer=None):
    while tasks := desk.claim(name):
        desk.submit(name, tasks[0], **({"answer": answer} if answer else {}))


def rows(db, query):
    with db.link.reading() as connection:
        return connection.execute(text(query)).fetchall()


# Out

def test_trl_pairs_by_hand():
    """Ranks 1, 2, 2 of a, b, c: two pairs, a over b and a over c; b and c tie."""
    choice = Choice(Prompt.of("q"), ("a", "b", "c"), (1, 2, 2), "ana")
    plain = list(trl_pairs(choice, ties=False))
    assert [(r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in plain] == [("a", "b"), ("a", "c")]
    assert plain[0]["prompt"] == [{"role": "user", "content": "q"}] and plain[0]["labeler"] == "ana"
    (tie,) = list(trl_pairs(choice, ties=True))[2:]
    assert tie["tie"] and (tie["completion_a"][0]["content"], tie["completion_b"][0]["content"]) == ("b", "c")


def test_every_export_is_read_back_by_our_own_readers(tmp_path):
    with open_template(tmp_path) as db:
        for kind, k in (("rate_and_rank", 3), ("compare", 2), ("edit", 1), ("demonstrate", 0), ("write_prompt", 0)):
            desk = Desk(db, kind=kind, n=2, k=k)
            label_all(desk, f"who-{kind}")
        for shape in ("harken", "trl"):
            path = tmp_path / f"{shape}.jsonl"
            write_rows(path, export_rows(db, "comparisons", shape))
            assert all(c.labeler for c in read_comparisons(path).records)
            path = tmp_path / f"demos-{shape}.jsonl"
            assert write_rows(path, export_rows(db, "demonstrations", shape)) == 4 == len(read_demonstrations(path).records)
        ratings = list(export_rows(db, "ratings"))
        assert len(ratings) == 6 and ratings[0]["flags"].keys() >= {"sexual", "hallucination"}
        (edit, _) = export_rows(db, "edits")
        assert edit["completion"] == edit["original"] + " Better." and edit["spans"]
        assert len(list(export_rows(db, "prompts"))) == 2 and all(r["form_version"] for r in export_rows(db, "ratings"))


def test_parquet_holds_the_same_rows(desk, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    label_all(desk, "ana")
    for shape in ("harken", "trl", "trl_ties"):
        path = tmp_path / f"{shape}.parquet"
        n = write_rows(path, export_rows(desk.db, "comparisons", shape))
        assert parquet.read_table(path).num_rows == n == len(list(export_rows(desk.db, "comparisons", shape)))
    found = parquet.read_table(tmp_path / "harken.parquet").to_pylist()
    assert [r["ranks"] for r in found] == [list(c.ranks) for c in desk.db.comparisons()]
    rated = Desk(desk.db, kind="rate_and_rank", n=1)
    label_all(rated, "bo")
    write_rows(tmp_path / "ratings.parquet", export_rows(desk.db, "ratings"))
    schema = parquet.read_table(tmp_path / "ratings.parquet").schema
    assert str(schema.field("flags").type.field("hallucination").type) == "bool", "though it was asked of nobody"
    assert str(schema.field("prompt_flags").type.value_type) == "string"
    with pytest.raises(UserError, match="ends in none of"):
        write_rows(tmp_path / "x.xml", iter([]))


def test_an_edit_is_a_demonstration_a_preference_and_its_changed_words():
    """"Hi there, friend." → "Hello there, my friend.": a word replaced at [0, 2), two characters inserted at 10."""
    before, after = "Hi there, friend.", "Hello there, my friend."
    found = spans(before, after)
    assert found[0] == {"op": "replace", "from": [0, 2], "to": [0, 5]}
    assert found[1]["op"] == "insert" and after[slice(*found[1]["to"])].strip() == "my"
    rng = random.Random(1)
    for _ in range(50):
        one, other = ("".join(rng.choice("ab c.\n") for _ in range(rng.randint(0, 40))) for _ in range(2))
        rebuilt, at = "", 0
        for s in spans(one, other):
            rebuilt += one[at:s["from"][0]] + other[slice(*s["to"])]
            at = s["from"][1]
        assert rebuilt + one[at:] == other


def test_f12_f13_snapshots_of_mixed_questions_warn_and_say_what_is_in_them(tmp_path):
    with open_template(tmp_path) as db:
        for purpose in ("train", "eval"):
            desk = Desk(db, n=2, purpose=purpose)
            label_all(desk, f"labeler-{purpose}")
        info = snapshot(db, "comparisons", tmp_path / "all.jsonl")
        assert any("2 purposes: eval (2), train (2)" in w for w in info.warnings)
        assert any("2 instructions" in w for w in info.warnings)
        meta = json.loads((tmp_path / "all.jsonl.meta.json").read_text())
        assert meta["purposes"] == {"eval": 2, "train": 2} and len(meta["forms"]) == 1
        one = snapshot(db, "comparisons", tmp_path / "train.jsonl", purpose="train")
        assert one.rows == 2 and one.warnings == ()
        assert snapshot(db, "comparisons", tmp_path / "p.jsonl", project=desk.project).rows == 2


def test_f22_a_withdrawal_leaves_later_snapshots_and_names_the_runs(desk, tmp_path, capsys):
    desk.db.import_file(_imported(tmp_path))
    label_all(desk, "ana")
    label_all(Desk(desk.db, n=1), "bo")
    before = snapshot(desk.db, "comparisons", tmp_path / "before.jsonl")
    lineage = tmp_path / "runs" / "rm" / "lineage.json"
    lineage.parent.mkdir(parents=True)
    lineage.write_text(json.dumps({"data": {"path": "x", "sha256": before.hash}, "model": "toy"}))
    with desk.db.link.writing() as tx:
        count, touched = people.withdraw(tx, "ana", desk.clock())
    assert count == 5, "four here and one imported"
    assert [t.sha256 for t in touched] == [before.hash]
    assert list(people.runs_that_used([before.hash], [tmp_path / "runs"])) == [(lineage.parent, before.hash)]
    after = snapshot(desk.db, "comparisons", tmp_path / "after.jsonl")
    assert after.rows == 1 and "ana" not in (tmp_path / "after.jsonl").read_text()
    assert len(rows(desk.db, "SELECT 1 FROM judgments")) == 6, "they stay stored"
    assert main(["users", "withdraw", "bo", "--db", desk.db.name, "--runs", str(tmp_path / "runs")]) == 0
    assert "run that used one" in capsys.readouterr().out


def _imported(tmp_path):
    path = tmp_path / "old.jsonl"
    write_jsonl(path, [Choice(Prompt.of("old"), ("x", "y"), (1, 2), "ana")])
    return path


def test_a_prompt_that_was_taken_back_is_in_no_snapshot(tmp_path):
    with open_template(tmp_path) as db:
        desk = Desk(db, kind="write_prompt", n=0)
        desk.add([{"ask": {"text": "Write one."}}, {"ask": {"text": "Write another."}}])
        for words in ("keep me", "drop me"):
            desk.submit("ana", desk.claim("ana")[0], answer={"kind": "plain", "text": words, "use_case": "chat"})
        desk.undo("ana")
        assert [p.text for p in db.prompts()] == ["keep me"]


# In

def test_files_become_items_whatever_their_shape(tmp_path):
    def items(*rows):
        path = tmp_path / "in.jsonl"
        write_jsonl(path, rows)
        return read_items([path])

    assert items({"prompt": "q", "completions": ["a", "b"], "ranks": [1, 2]})[0]["completions"] == ["a", "b"]
    assert items({"prompt": "q", "chosen": "a", "rejected": "b"})[0]["completions"] == ["a", "b"]
    assert items({"prompt": "q", "completion": "a"})[0]["original"] == "a"
    assert items({"prompt": "q", "kind": "few_shot"})[0]["prompt_kind"] == "few_shot"
    (sampled,) = items({"prompt": "q", "completions": ["a", "b"], "finished": [True, True],
                        "source": {"model": "toy", "seed": 1}})
    assert sampled["completions"][0] == {"text": "a", "source": "model toy, seed 1"}
    array = [{"prompt": "q", "completions": ["a", "b"]}, {"prompt": "r", "role": "gold"}]
    (tmp_path / "array.json").write_text(json.dumps(array))
    assert [row["prompt"] for row in read_items([tmp_path / "array.json"])] == ["q", "r"]
    with pytest.raises(UserError, match="send the file again") as told:
        read_upload(b'{"prompt": "fine"}\n{"prompt": 3}\n')
    assert "--" not in str(told.value), "a browser has no flags"
    for model in "ab":
        write_jsonl(tmp_path / f"{model}.jsonl", [{"prompt": "q", "completions": [f"by {model}"], "finished": [True],
                                                   "source": {"model": model}}])
    (both,) = read_items([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert [c["source"] for c in both["completions"]] == ["model a", "model b"]


@pytest.mark.parametrize(("row", "words"), [
    ({"prompt": "q", "completions": ["only one"]}, "needs 2 completions"), ({"completions": ["a", "b"]}, "prompt"),
    ({"prompt": "q", "completions": ["a", "b"], "gold": {"ranks": [1, 2, 3]}}, "gold.ranks"),
    ({"prompt": "q", "completions": ["a", "b"], "colour": 1}, "colour"), ({"prompt": " ", "completions": ["a", "b"]}, "empty"),
    ({"prompt": [{"role": "assistant", "content": "x"}], "completions": ["a", "b"]}, "assistant")])
def test_a_bad_item_stops_all_of_them_and_is_named(desk, row, words):
    with pytest.raises(Exception, match=f"Item 2.*{words}"):
        desk.add([{"prompt": "fine", "completions": ["a", "b"]}, row])
    assert len(rows(desk.db, "SELECT 1 FROM items")) == 4


def test_the_same_items_again_add_nothing(desk):
    again = [{"prompt": f"question {i}", "completions": [f"answer {i} {c}" for c in range(2)]} for i in range(4)]
    assert desk.add(again) == {"added": 0, "already": 4, "names_its_maker": 0, "repeats_an_answer": 0}


def test_a_model_at_an_endpoint_answers_first(tmp_path, capsys):
    class Model(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            said = json.loads(self.rfile.read(int(self.headers["content-length"])))
            Model.asked.append(said)
            data = json.dumps({"choices": [{"message": {"content": f"answer {len(Model.asked)}"}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    Model.asked = []
    server = http.server.HTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    prompts = tmp_path / "p.jsonl"
    write_jsonl(prompts, [Prompt.of("one"), Prompt.of("two")])
    url = f"http://127.0.0.1:{server.server_port}/v1"
    command = ["ask", str(prompts), "--project", "new", "--kind", "compare", "--endpoint", url, "--model", "m", "--n", "2",
               "--db", str(tmp_path / "f.db")]
    assert main(command) == 0 and "Added 2 items" in capsys.readouterr().out
    Model.asked, asked = [], Model.asked
    again = [*command[:4], *command[6:]]
    for more, words in ((["--n", "3"], "takes 2 answers"), (["--kind", "edit"], "asks people to compare")):
        assert main([*again, *more]) == 2 and words in capsys.readouterr().err
    assert not Model.asked, "the model is not asked for what nobody could judge"
    Model.asked = asked
    server.shutdown()
    assert sorted(a["messages"][0]["content"] for a in Model.asked) == ["one", "one", "two", "two"]
    assert len({(a["messages"][0]["content"], a["seed"]) for a in Model.asked}) == 4
    with open_database(tmp_path / "f.db") as db:
        assert url in rows(db, "SELECT body FROM items")[0].body


def test_a_run_answers_first(tmp_path, capsys, monkeypatch):
    class Run:
        def sample(self, prompts, n, **_):
            return [[types.SimpleNamespace(text="" if p.messages[-1].content == "two" else f"answer {i}") for i in range(n)]
                    for p in prompts]

    monkeypatch.setattr("harken.launch.policies.open_sampler", lambda model: Run())
    monkeypatch.setattr("harken.launch.models.check_context", lambda *_: None)
    write_jsonl(tmp_path / "p.jsonl", [Prompt.of("one"), Prompt.of("two")])
    command = ["ask", str(tmp_path / "p.jsonl"), "--model", "runs/sft", "--db", str(tmp_path / "f.db")]
    assert main([*command, "--project", "new", "--kind", "rate_and_rank"]) == 0
    assert "Added 1 items" in (said := capsys.readouterr().out) and "1 prompt is left out" in said
    with open_database(tmp_path / "f.db") as db:
        assert "answer 3" in (body := rows(db, "SELECT body FROM items")[0].body) and "runs/sft" in body
    assert main([*command, "--project", "write", "--kind", "demonstrate"]) == 2
    assert "takes no answers of a model" in capsys.readouterr().err


# Backups and migrations

def test_a_backup_is_verified_and_comes_back_whole(desk, tmp_path, capsys):
    label_all(desk, "ana")
    copy = tmp_path / "copy.db"
    assert main(["backup", "--db", desk.db.name, "--out", str(copy)]) == 0
    label_all(Desk(desk.db, n=1), "bo")
    assert main(["restore", str(copy), "--db", str(tmp_path / "back.db")]) == 0
    said = capsys.readouterr().out
    assert said.count("4 judgments") == 2 and "the audit of" in said
    with open_database(tmp_path / "back.db") as back:
        assert list(back.judgments()) == list(desk.db.judgments())[:4]
    assert main(["backup", "--db", desk.db.name, "--out", str(copy)]) == 2, "a backup is never overwritten"
    assert main(["restore", str(copy), "--db", desk.db.name]) == 2, "nor a database by a restore"
    assert not list(tmp_path.glob(".*partial*"))


@pytest.mark.slow
def test_a_backup_is_made_while_others_write(desk, tmp_path):
    stop = threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            desk.add([{"prompt": f"more {n}", "completions": ["a", "b"]}])

    writer = threading.Thread(target=write)
    writer.start()
    for n in range(3):
        done = backup.backup(desk.db.link, tmp_path / f"{n}.db")
        assert done.rows["items"] >= 4 and done.rows["prompts"] == done.rows["items"]
    stop.set()
    writer.join()


def test_a_damaged_backup_is_noticed(desk, tmp_path):
    label_all(desk, "ana")
    copy = tmp_path / "copy.db"
    backup.backup(desk.db.link, copy)
    with sqlite3.connect(copy) as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("UPDATE events SET kind = 'skip' WHERE kind = 'submit'")
    with pytest.raises(UserError, match="The audit was changed"):
        backup.restore(copy, tmp_path / "back.db")
    data = bytearray(copy.read_bytes())
    data[len(data) // 2:len(data) // 2 + 4096] = b"\xaa" * 4096
    (tmp_path / "torn.db").write_bytes(data)
    with pytest.raises(UserError):
        backup.restore(tmp_path / "torn.db", tmp_path / "back2.db")


def test_a_database_of_format_1_is_copied_and_brought_up_to_date(tmp_path, monkeypatch):
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE harken_schema (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)")
        old.execute("INSERT INTO harken_schema VALUES (1, 'x')")
    link = backup.Link(path)
    with link.writing() as connection:
        first_tables(connection)
        connection.execute(text("INSERT INTO prompts (key, id, body, created_at) VALUES ('k', 'i', '{\"prompt\": \"q\"}', 'x')"))
        connection.execute(text("""INSERT INTO judgments (prompt_key, kind, payload, labeler_group, content, created_at)
                                   VALUES ('k', 'ranking', '{"completions": ["a", "b"], "ranks": [1, 2]}', '{}', 'c', 'x')"""))
    link.engine.dispose()
    with open_database(path) as db:
        assert db.backup is not None and "format-1" in db.backup.name
        assert [c.ranks for c in db.comparisons()] == [(1, 2)]
        with sqlite3.connect(db.backup) as before:
            assert before.execute("SELECT count(*) FROM judgments").fetchone() == (1,)
            assert before.execute("SELECT max(version) FROM harken_schema").fetchone() == (1,)
    with open_database(path) as db:
        assert db.backup is None


@pytest.mark.slow
def test_a_backup_moves_between_sqlite_and_postgresql(desk, tmp_path):
    label_all(desk, "ana")
    first = backup.backup(desk.db.link, tmp_path / "a.db")
    with postgres_server() as server, empty_postgres(server) as address:
        there = backup.restore(tmp_path / "a.db", address)
        assert there.rows == first.rows and there.chain == first.chain
        with open_database(address) as db:
            label_all(Desk(db, n=1), "bo")
            again = backup.backup(db.link, tmp_path / "b.db")
            assert again.rows["judgments"] == 5
            with open_database(tmp_path / "b.db") as back:
                assert list(back.judgments()) == list(db.judgments())


# Commands

def test_commands_on_wrong_input_say_what_to_do(tmp_path, capsys):
    db, words = str(tmp_path / "f.db"), tmp_path / "w"
    words.write_text("short\n")
    for command, said in ((["users", "add", "ada", "--password-file", str(words)], "at least 10 characters"),
                          (["users", "add", "ada", "--password-file", str(tmp_path / "none")], "cannot be read"),
                          (["users", "list"], "There is no database"), (["backup", "--out", "x.db"], "There is no database"),
                          (["export", "ratings", "--out", "x.jsonl"], "There is no database"),
                          (["ask", str(tmp_path / "none.jsonl"), "--project", "p", "--kind", "compare"], "does not exist"),
                          (["ask", str(_imported(tmp_path)), "--project", "p"], "Give --kind")):
        assert main([*command, "--db", db]) == 2
        assert said in capsys.readouterr().err
    words.write_text("long enough password\n")
    assert main(["users", "add", "ada", "--role", "lead", "--password-file", str(words), "--db", db]) == 0
    words.write_text("another long password\n")
    assert main(["users", "password", "ada", "--password-file", str(words), "--db", db]) == 0
    with open_database(db) as opened, opened.link.reading() as tx:
        assert accounts.right_password("another long password", accounts.stored_password(tx, "ada")[1])
    assert main(["users", "password", "bob", "--password-file", str(words), "--db", db]) == 2
    assert "no active account bob" in capsys.readouterr().err
    assert main(["users", "add", "ADA", "--password-file", str(words), "--db", db]) == 2
    assert main(["users", "list", "--db", db]) == 0
    assert "ada  lead  active" in capsys.readouterr().out


@pytest.mark.slow
def test_round_trip_from_import_to_a_reward_model(tmp_path):
    """Import → simulated labelers answer everything through the API → snapshot → `harken train reward_model`."""
    torch = pytest.importorskip("torch")
    import numpy as np

    from harken.sandbox import crowd, load_prompts
    assert torch
    labelers, rng = crowd()[:2], np.random.default_rng(0)
    with new_site(tmp_path) as site:
        project = site.lead.create_project("trip", "rate_and_rank", overlap=2)["id"]
        prompts = load_prompts()[:12]
        site.lead.add_items(project, [{"prompt": p.text, "completions": [
            {"text": f"{words} {p.text.split()[-1]}", "source": f"m{n}"} for n,
            words in enumerate(("Yes,", "No. Never", "Please see:"))]}
            for p in prompts])
        for name, labeler in zip(("ana", "bo"), labelers):
            client = site.clients[name]
            for task in client.tasks(project, ahead=3):
                prompt = Prompt.of(task["prompt"]["messages"][-1]["content"])
                judged = labeler.judge(prompt, task["completions"], range(len(task["completions"])), rng)
                client.submit(task, simple_answer(task, random.Random(0)) | {"ranks": judged.payload["ranks"]},
                              seconds=judged.seconds)
        made = site.lead.call("POST", f"/api/projects/{project}/snapshots", {"what": "comparisons", "name": "trip"})
        assert made["rows"] == 24 and made["labelers"] == 2
        listed = [len(site.lead.call("GET", f"/api/snapshots?project={one}")["items"]) for one in (project, site.open)]
        assert listed == [1, 0]
    assert main(["train", "reward_model", "--model", "toy", "--data", made["path"], "--out", str(tmp_path / "rm")]) == 0
    lineage = json.loads((tmp_path / "rm" / "lineage.json").read_text())
    assert lineage["data"]["sha256"] == made["sha256"]
