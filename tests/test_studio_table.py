"""A lead's table, comments, assignment, bulk changes and erasure: what is found, who is asked, what the audit says."""

import json
import uuid

import pytest
from sqlalchemy import text

from harken.cli.main import main
from harken.core.errors import UserError
from harken.store import audit
from harken.store.database import open_database
from harken.studio.client import StudioError
from harken.studio.work import projects, withdrawal
from harken.studio.work.table import find_answers, find_items
from studio_site import Desk, broken_rules, empty_postgres, new_site, open_template

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
TEXTS = (
    "When do I plant beans?",
    "Wann pflanze ich Bohnen?",
    "何时种豆子？",
    "متى أزرع الفاصوليا؟",
    '100% of_all "quoted" beans',
)


@pytest.fixture(params=BOTH)
def db(request, tmp_path):
    if request.param == "sqlite":
        with open_template(tmp_path) as made:
            yield made
        return
    with empty_postgres(request.getfixturevalue("postgres")) as address, open_database(address) as made:
        yield made


@pytest.fixture
def site(tmp_path):
    with new_site(tmp_path) as made:
        yield made


def problems(db):
    with db.link.reading() as tx:
        return audit.check(tx).problems


def found(desk, query, **more):
    with desk.db.link.reading() as tx:
        page = find_items(tx, desk.project, query, **more)
    return [row.id for row in page.rows], page.total


def test_items_are_found_by_any_part_of_their_words_in_every_script(db):
    desk = Desk(db, n=0)
    desk.add([{"prompt": t, "completions": ["a", {"text": f"answer {i}", "source": f"m{i % 2}, hot"}], "tags": [f"t{i}"]}
              for i, t in enumerate(TEXTS)])
    first = desk.rows("SELECT min(id) AS i FROM items")[0].i
    for words, places in (
        ("BEANS", [0, 4]),
        ("bohn", [1]),
        ("种豆", [2]),
        ("豆", [2]),
        ("الفاص", [3]),
        ("% of_", [4]),
        ("0%", [4]),
        ("answer 3", [3]),
        ('"quoted"', [4]),
        ("nothing such", []),
        (f"#{first + 2}", [2]),
    ):
        assert found(desk, {"q": words})[0] == [first + i for i in places], words
    assert found(desk, {"tag": "t2"})[0] == [first + 2] and found(desk, {"tag": "t"})[0] == []
    assert found(desk, {"source": "m1, hot"})[0] == [first + 1, first + 3] and found(desk, {"source": "m1"})[0] == []
    assert found(desk, {"q": "beans", "source": "m0, hot"}, sort="-id")[0] == [first + 4, first]


def test_items_are_filtered_sorted_and_paged(db):
    desk = Desk(db, n=230, overlap=2)
    first = desk.rows("SELECT min(id) AS i FROM items")[0].i
    (one,), (two,) = desk.claim("ana"), desk.claim("bo")
    desk.submit("ana", one)
    desk.submit("bo", two)
    desk.do("skip", "cy", desk.claim("cy")[0])
    assert found(desk, {"labeler": "ana"}) == ([first], 1) and found(desk, {"labelers": ["ana", "bo"]}) == ([first], 1)
    assert found(desk, {"state": "done"}) == ([first], 1)
    last, total = found(desk, {}, page=3)
    assert total == 230 and last == list(range(first + 200, first + 230)) and found(desk, {}, page=9)[0] == []
    assert found(desk, {}, sort="-skips")[0][0] == first + 1
    day = desk.clock().date().isoformat()
    assert found(desk, {"from": day})[1] == 1 and found(desk, {"to": day})[1] == 0
    assert found(desk, {}, sort="disagreement", picked=[first + 7, first + 3])[0] == [first + 7, first + 3]


def test_answers_are_found_and_reviewed_many_at_once(site):
    lead = site.lead
    for who in (site.ana, site.bo):
        for task in who.next(site.open, 4)["tasks"]:
            who.submit(task, {"preference": 1, "notes": f"because of {task['prompt']['messages'][0]['content']}"})
    path = f"/api/projects/{site.open}"
    every = lead.call("GET", f"{path}/answers")
    assert every["total"] == 8 and every["items"][0]["judgment"] > every["items"][-1]["judgment"]
    assert every["choices"]["labelers"] == ["ana", "bo"] and every["choices"]["sources"] == ["m"]
    mine = lead.call("GET", f"{path}/answers?labeler=ana&q=because+of+q1")
    assert [a["labeler"] for a in mine["items"]] == ["ana"] and mine["items"][0]["prompt"] == "q1"
    seqs = [a["judgment"] for a in every["items"]]
    assert lead.call("POST", f"{path}/review", {"judgments": seqs[:3], "state": "accepted"}) == {"changed": 3}
    assert lead.call("POST", f"{path}/review", {"judgments": seqs[:1], "state": "accepted"}) == {"changed": 1}
    with pytest.raises(StudioError, match="needs a reason"):
        lead.call("POST", f"{path}/review", {"judgments": seqs[3:5], "state": "set_aside"})
    with pytest.raises(StudioError, match="none of this project"):
        lead.call("POST", f"/api/projects/{site.closed}/review", {"judgments": seqs[:1], "state": "accepted"})
    lead.call("POST", f"{path}/review", {"judgments": seqs[3:5], "state": "set_aside", "reason": "in a hurry"})
    counts = {state: lead.call("GET", f"{path}/answers?state={state}")["total"] for state in
              ("counts", "open", "accepted", "set_aside")}
    assert counts == {"counts": 6, "open": 3, "accepted": 3, "set_aside": 2}
    rows = lead.export(site.open, "comparisons")
    assert len(rows) == 6 and sum(row.get("accepted", False) for row in rows) == 3
    with pytest.raises(StudioError, match="does not count"):
        lead.call("POST", f"{path}/review", {"judgments": seqs[3:4], "state": "accepted"})
    assert problems(site.db) == () and broken_rules(site.db) == []


def test_an_item_assigned_to_somebody_is_asked_of_nobody_else(db):
    desk = Desk(db, n=4, overlap=1)
    ana, bo = desk.person("ana"), desk.person("bo")
    first = desk.rows("SELECT min(id) AS i FROM items")[0].i
    desk.claim("cy")
    with db.link.writing() as tx:
        projects.change_item(tx, first + 1, {"assigned": [bo.id]}, desk.clock())
        projects.change_item(tx, first + 3, {"assigned": [bo.id]}, desk.clock())
    given = {}
    for name in ("ana", "bo"):
        tasks = desk.claim(name, 4)
        given[name] = [t["item"] for t in tasks]
        for task in tasks:
            desk.submit(name, task)
    assert given == {"ana": [first + 2], "bo": [first + 1, first + 3]}
    assert desk.next("ana")["status"] == "empty", "cy holds the first; the others' are none of hers"
    assert found(desk, {"assigned": bo.id})[0] == [first + 1, first + 3]
    with db.link.writing() as tx, pytest.raises(Exception, match="no active labeler"):
        projects.change_item(tx, first, {"assigned": [ana.id, 999]}, desk.clock())
    with db.link.writing() as tx:
        projects.change_item(tx, first + 1, {"assigned": [], "overlap": 2}, desk.clock())
    assert [t["item"] for t in desk.claim("ana", 4)] == [first + 1], "it is everybody's again"
    assert problems(db) == () and broken_rules(db) == []


def test_a_lead_and_a_labeler_write_to_each_other_and_nobody_else_reads_it(site):
    (task,), (other,) = site.ana.next(site.open)["tasks"], site.bo.next(site.open)["tasks"]
    users = {u["name"]: u["id"] for u in site.lead.call("GET", "/api/users")["items"]}
    item = site.lead.call("GET", f"/api/projects/{site.open}/find")["items"][0]["id"]
    site.lead.call("POST", f"/api/items/{item}/comments", {"labeler": users["ana"], "text": "Why A?"})
    (mine,) = site.ana.call("GET", f"/api/projects/{site.open}/mine?queue=commented")["items"]
    assert [(c["author"], c["text"]) for c in mine["comments"]] == [("lead", "Why A?")]
    site.ana.call("POST", f"/api/assignments/{task['assignment']}/comments", {"text": "It is shorter."})
    assert [c["text"] for c in site.lead.call("GET", f"/api/items/{item}/comments")["items"]] == ["Why A?", "It is shorter."]
    assert site.bo.call("GET", f"/api/projects/{site.open}/mine?queue=commented")["items"] == []
    with pytest.raises(StudioError) as refused:
        site.ana.call("POST", f"/api/assignments/{other['assignment']}/comments", {"text": "mine?"})
    assert refused.value.status == 404
    with pytest.raises(StudioError, match="never given item"):
        site.lead.call("POST", f"/api/items/{item}/comments", {"labeler": users["viewer"], "text": "hm"})
    assert problems(site.db) == ()
    with site.db.link.writing() as tx:
        tx.execute(text("UPDATE comments SET text = '\"Why B?\"' WHERE id = 1"))
    assert problems(site.db) == ("Comment 1 is not what an event says.",)


def test_archived_and_hidden_projects_leave_the_lists_and_keep_their_answers(site):
    site.lead.call("PATCH", f"/api/projects/{site.open}", {"status": "archived"})
    site.lead.call("PATCH", f"/api/projects/{site.closed}", {"hidden": True})
    assert site.ana.call("GET", "/api/projects")["items"] == []
    assert {p["status"] for p in site.lead.call("GET", "/api/projects")["items"]} == {"archived", "open"}
    assert site.ana.next(site.open)["status"] == "finished"
    site.lead.call("PATCH", f"/api/projects/{site.open}", {"status": "open"})
    assert site.ana.next(site.open)["tasks"]


def much_said(db):
    """A project in which ben left traces of every kind."""
    desk = Desk(db, n=8, overlap=2, skip_limit=9)
    desk.person("ben", group={"age": "30-39"})
    for name in ("ben", "ana"):
        for task in desk.claim(name, 3):
            desk.submit(name, task, answer={"preference": 2, "notes": f"signed {name} Miller"})
    desk.undo("ben")
    desk.do("skip", "ben", desk.claim("ben")[0], note="I am ben Miller of Leeds")
    writing = Desk(db, kind="write_prompt", n=0)
    writing.people, writing.clock = desk.people, desk.clock
    writing.add([{"ask": {"text": "Ask."}}])
    writing.submit("ben", writing.claim("ben")[0], answer={"kind": "plain", "text": "ben Miller wrote this", "use_case": "chat"})
    return desk


def test_erasing_somebody_leaves_nothing_of_them_and_an_audit_that_says_so(db):
    desk = much_said(db)
    before = desk.rows("SELECT hash FROM events ORDER BY seq DESC LIMIT 1")[0].hash
    with db.link.writing() as tx:
        erased, _ = withdrawal.erase(tx, "BEN", desk.clock())
    assert erased.judgments == 4 and erased.prompts == 1 and erased.events >= 3
    for table in ("judgments", "events", "users", "prompts", "assignments", "comments", "tokens"):
        for row in desk.rows(f"SELECT * FROM {table}"):
            words = json.dumps([str(value) for value in row])
            assert "ben" not in words.replace("erased", "") and "Miller of" not in words, (table, words)
    with db.link.reading() as tx:
        report = audit.check(tx, before)
    assert report.problems == () and report.redacted == 1
    assert [j.labeler for j in db.judgments()].count("ana") == 3
    with db.link.writing() as tx, pytest.raises(UserError, match="no account ben"):
        withdrawal.erase(tx, "ben", desk.clock())


@pytest.mark.parametrize(("statement", "words"), [
    ("UPDATE events SET body = json_set(body, '$.reason', 'x') WHERE kind = 'skip'", "does not match its hash"),
    ("UPDATE events SET body = json_set(body, '$.redacted', json('true')) WHERE kind = 'submit' AND seq = (SELECT max(seq) FROM "
     "events WHERE kind = 'submit')", "no erasure explains it"),
    ("UPDATE judgments SET seconds = 77 WHERE labeler LIKE 'erased-%'", "What is left of the answers of erased-1"),
    ("UPDATE judgments SET payload = '{\"redacted\": true}' WHERE labeler = 'ana'", "Judgment 4 was changed"),
    ("UPDATE prompts SET body = '{\"prompt\": \"other\"}' WHERE body LIKE '%(erased)%'", "Prompt 9 was changed"),
])
def test_what_is_changed_after_or_under_the_cloak_of_an_erasure_is_noticed(tmp_path, statement, words):
    with open_template(tmp_path) as db:
        desk = much_said(db)
        with db.link.writing() as tx:
            withdrawal.erase(tx, "ben", desk.clock())
        with db.link.writing() as tx:
            for verb in ("update", "delete"):
                tx.execute(text(f"DROP TRIGGER judgments_no_{verb}"))
                tx.execute(text(f"DROP TRIGGER events_no_{verb}"))
            assert tx.execute(text(statement)).rowcount
        assert any(words in problem for problem in problems(db)), problems(db)


def test_a_judgment_cannot_be_changed_but_for_an_erasure(tmp_path):
    with open_template(tmp_path) as db:
        much_said(db)
        for change in (
            "payload = '{}'",
            "labeler = 'erased-1'",
            "content = 'x', payload = '{\"redacted\": true}', labeler = 'erased-1'",
        ):
            with pytest.raises(Exception, match="never changed"), db.link.writing() as tx:
                tx.execute(text(f"UPDATE judgments SET {change} WHERE seq = 1"))


def test_the_command_erases_only_when_it_is_sure(tmp_path, capsys):
    path = tmp_path / "f.db"
    with open_database(path) as db:
        much_said(db)
    assert main(["users", "erase", "ben", "--db", str(path)]) == 2 and "--sure" in capsys.readouterr().err
    assert main(["users", "withdraw", "bem", "--db", str(path)]) == 2 and "Did you mean ben?" in capsys.readouterr().err
    assert main(["users", "erase", "ben", "--sure", "--db", str(path)]) == 0
    assert "is erased-1 from now on; 4 answers" in capsys.readouterr().out
    assert main(["audit", "--db", str(path)]) == 0 and "redacted, not broken" in capsys.readouterr().out
    assert main(["backup", "--db", str(path), "--out", str(tmp_path / "b.db")]) == 0


def test_answers_of_a_page_keep_their_order(db):
    desk = Desk(db, n=3)
    for task in desk.claim("ana", 3):
        desk.submit("ana", task, client_id=str(uuid.uuid4()))
    with db.link.reading() as tx:
        down, up = find_answers(tx, desk.project, {}), find_answers(tx, desk.project, {}, sort="id")
    assert [r.seq for r in down.rows] == [r.seq for r in up.rows][::-1] and down.total == 3
