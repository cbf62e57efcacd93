"""Cases of other tools' trackers that had no test of their own (6, 16, 17, 34, 35), and neighbours of those that had one."""

import json
import re
import sqlite3
import time
import uuid
from pathlib import Path

import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.store import audit
from harken.store.database import open_database
from harken.studio.client import Client, StudioError
from harken.studio.work import withdrawal
from studio_site import PASSWORD, Desk, new_site, open_template, simple_answer

CASES = Path(__file__).parent / "cases" / "studio"
FRENCH = '{"prompt": "Où est le café ?", "completions": ["À côté.", "Désolé."]}\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with new_site(tmp_path_factory.mktemp("site")) as made:
        yield made


def project_of(site, items, kind="compare", **settings):
    project = site.lead.create_project(uuid.uuid4().hex[:8], kind, **settings)["id"]
    site.lead.add_items(project, items)
    return project


def pairs(n):
    return [{"prompt": f"q{i}", "completions": ["a", "b"]} for i in range(n)]


def bring(site, data):
    """Sends a file's bytes to a new project; what a lead then sees of its items."""
    project = site.lead.create_project(uuid.uuid4().hex[:8], "compare")["id"]
    site.lead.call("POST", f"/api/projects/{project}/import", data)
    return [site.lead.call("GET", f"/api/items/{row['id']}")
            for row in site.lead.call("GET", f"/api/projects/{project}/items")["items"]]


def test_case_6_a_dialogue_is_split_into_its_turns(site):
    (told,) = bring(site, (CASES / "hh_dialogue.jsonl").read_bytes())
    assert [m["role"] for m in told["messages"]] == ["user", "assistant", "user"]
    assert [m["content"] for m in told["messages"]] == ["Hi", "Hello", "Bye"]
    assert [c["text"] for c in told["body"]["completions"]] == ["See you", "Go"]
    turns = bring(site, (CASES / "multi_turn.jsonl").read_bytes())[0]["messages"]
    assert [m["role"] for m in turns] == ["system", "user", "assistant", "user"] and "مرحبا" in turns[3]["content"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "[1, {\"deep\": 1e400}]", "NaN"])
@pytest.mark.parametrize("where", ["meta", "tags"])
def test_case_4_a_number_beyond_all_bounds_is_refused_wherever_it_stands(site, number, where):
    """JSON that is valid by its grammar, and that a reader turns into infinity."""
    more = f'"meta": {{"x": {number}}}' if where == "meta" else f'"tags": ["a", {number}]'
    with pytest.raises(StudioError) as told:
        bring(site, FRENCH.encode() + f'{{"prompt": "p", "completions": ["a", "b"], {more}}}\n'.encode())
    assert told.value.status == 400 and ("line 2" in str(told.value) or "tags" in str(told.value))


@pytest.mark.parametrize("field", ["seconds", "answer", "draft"])
def test_case_4_an_answer_or_draft_with_infinity_is_refused(site, field):
    project = project_of(site, pairs(1))
    task = site.ana.next(project)["tasks"][0]
    body = {"client_id": str(uuid.uuid4()), "answer": {"preference": 1}, "seconds": 1.0, "form_version": task["form_version"],
            "instruction_hash": task["instruction_hash"]}
    path, method = f"/api/assignments/{task['assignment']}/submit", "POST"
    if field == "draft":
        body, path, method = {"draft": {"x": 1}, "version": 0}, f"/api/assignments/{task['assignment']}/draft", "PUT"
    raw = json.dumps(body).replace({"seconds": '"seconds": 1.0', "answer": '"preference": 1', "draft": '"x": 1'}[field],
                                   {"seconds": '"seconds": 1e999', "answer": '"preference": 1e999', "draft": '"x": 1e999'}[field])
    request = {"Content-Type": "application/json", **site.ana._headers}
    status, _, data = raw_call(site, method, path, raw.encode(), request)
    assert status == 400 and b"finite" in data, data
    site.ana.call("POST", f"/api/projects/{project}/leave", {})


def asked(task):
    return task["prompt"]["messages"][-1]["content"]


def raw_call(site, method, path, data, headers):
    import http.client
    from urllib.parse import urlsplit
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=20)
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read()


NAMES = ["BEN", " ben ", "Ben", "ＢＥＮ"]  # the last in full-width letters


@pytest.mark.parametrize("name", NAMES)
def test_case_16_a_withdrawal_finds_who_the_login_would_find(tmp_path, name):
    with open_template(tmp_path) as db:
        desk = Desk(db, n=2)
        desk.submit("ben", desk.claim("ben")[0])
        desk.submit("ann", desk.claim("ann")[0])
        with db.link.writing() as tx:
            assert withdrawal.withdraw(tx, name, desk.clock())[0] == 1
        assert [j.labeler for j in db.judgments()] == ["ann"]
        with db.link.reading() as tx:
            assert audit.check(tx).problems == ()


def test_case_16_a_name_that_nobody_has_is_an_error_with_near_names(tmp_path, capsys):
    with open_template(tmp_path) as db:
        desk = Desk(db, n=1)
        desk.submit("ben", desk.claim("ben")[0])
        name = db.name
        for unknown in ("bem", "benn"):
            with pytest.raises(UserError, match=f"Nobody is called {unknown}"), db.link.writing() as tx:
                withdrawal.withdraw(tx, unknown, desk.clock())
    assert main(["users", "withdraw", "bem", "--db", name]) != 0
    said = capsys.readouterr()
    assert "Nobody is called bem" in said.err and "ben" in said.err.replace("bem", "")
    for command in (["erase", "bem", "--sure"], ["disable", "bem"]):
        assert main(["users", *command, "--db", name]) != 0, command
    with open_database(name) as db:
        assert len(list(db.judgments())) == 1


def test_case_17_a_labeler_withdraws_and_asks_to_be_erased_by_themselves(tmp_path):
    with new_site(tmp_path) as site:
        project = project_of(site, pairs(2), overlap=2)
        for client, note in ((site.ana, "my own words"), (site.bo, "")):
            task = client.next(project)["tasks"][0]
            client.submit(task, {"preference": 1, "notes": note})
        with pytest.raises(StudioError, match="password"):
            site.ana.call("POST", "/api/me/withdraw", {"password": "wrong one", "erase": True})
        assert site.ana.call("POST", "/api/me/withdraw", {"password": PASSWORD, "erase": True}) == {
            "judgments": 1, "erasure_asked": True}
        with pytest.raises(StudioError, match="401"):
            site.ana.me()
        assert [r["labeler"] for r in site.lead.export(project, "comparisons")] == ["bo"]
        (asked,) = site.lead.call("GET", "/api/erasures")["items"]
        assert asked["name"] == "ana"
        erased = site.lead.call("POST", f"/api/users/{asked['user']}/erase", {"sure": True})
        assert erased["judgments"] == 1 and site.lead.call("GET", "/api/erasures")["items"] == []
        with site.db.link.reading() as tx:
            assert audit.check(tx).problems == ()
        with sqlite3.connect(site.db.name) as raw:
            text = "\n".join(raw.iterdump())
        assert "my own words" not in text and "'ana'" not in text


@pytest.mark.parametrize("name", ["مريم 🌸 Ünal", "张伟", "О’Коннор-Смит", "a" * 60])
def test_case_35_an_invitation_takes_any_name_once(site, name):
    token = site.lead.call("POST", "/api/invitations", {"role": "labeler", "projects": [site.open], "uses": 1})["token"]
    client = Client(site.url)
    client.join(token, name, PASSWORD)
    assert client.me()["user"]["name"] == name
    with pytest.raises(StudioError):
        Client(site.url).join(token, f"{name} 2", PASSWORD)
    Client(site.url).login(name.upper(), PASSWORD)


def test_case_12_what_was_set_aside_withdrawn_or_undone_is_no_pace(tmp_path):
    with new_site(tmp_path) as site:
        project = project_of(site, pairs(3), overlap=2)
        receipts = [site.ana.submit(task, {"preference": 1}) for task in site.ana.tasks(project)]
        site.bo.submit(site.bo.next(project)["tasks"][0], {"preference": 1})
        site.bo.undo(project)
        site.lead.call("PATCH", f"/api/judgments/{receipts[0]['judgment']}", {"state": "set_aside", "reason": "a slip"})
        now = site.lead.call("GET", f"/api/projects/{project}/progress")
        assert (now["answers"], now["last_hour"]) == (2, 2)


def test_case_15_an_answer_set_aside_is_in_no_export_count_or_figure(tmp_path):
    """Every door by which answers leave: each shape of export, snapshots, who won, the table."""
    with new_site(tmp_path) as site:
        both = [{"text": "a", "source": "m1"}, {"text": "b", "source": "m2"}]
        project = project_of(site, [{"prompt": f"q{i}", "completions": both} for i in range(3)], kind="rate_and_rank")
        receipts = []
        for task in site.ana.tasks(project):
            receipts.append(site.ana.submit(task, {**simple_answer(task), "ranks": [1, 2]}))
        bad = receipts[1]["judgment"]
        site.lead.call("PATCH", f"/api/judgments/{bad}", {"state": "set_aside", "reason": "a slip"})
        for what in ("comparisons", "ratings"):
            rows = site.lead.export(project, what)
            assert len({r["judgment"] for r in rows}) == 2 and bad not in {r["judgment"] for r in rows}
        assert site.lead.call("GET", f"/api/projects/{project}/models")["votes"] == 2
        assert len(list(site.db.judgments())) == 2
        states = {row["judgment"]: row for row in site.lead.call("GET", f"/api/projects/{project}/answers")["items"]}
        assert bad in states, "it stays to be read"


@pytest.mark.parametrize("when", ["from=0001-01-01T00:00:00%2B14:00", "to=9999-12-31T23:59:59-12:00", "from=2026-13-01"])
@pytest.mark.parametrize("where", ["find", "answers"])
def test_case_31_a_date_that_no_calendar_holds_is_refused(site, where, when):
    with pytest.raises(StudioError, match="which is no date"):
        site.lead.call("GET", f"/api/projects/{site.open}/{where}?{when}")


@pytest.mark.parametrize("end", ["disabled", "viewer", "withdrawn", "taken out"])
def test_case_10_items_for_somebody_who_answers_no_more_are_for_the_others(tmp_path, end):
    """Assigned to one who left, an item would be asked of nobody."""
    with new_site(tmp_path) as site:
        project = project_of(site, pairs(3), overlap=1)
        ids = {user["name"]: user["id"] for user in site.lead.call("GET", "/api/users")["items"]}
        first, second, _ = [row["id"] for row in site.lead.call("GET", f"/api/projects/{project}/items")["items"]]
        for item, people in ((first, ["bo"]), (second, ["bo", "lead"])):
            site.lead.call("PATCH", f"/api/projects/{project}/items", {"items": [item], "assigned": [ids[p] for p in people]})
        for task in site.ana.tasks(project):
            assert asked(task) == "q2"
            site.ana.submit(task, {"preference": 1})
        assert site.ana.next(project)["status"] == "answered"
        if end == "withdrawn":
            site.lead.call("POST", f"/api/users/{ids['bo']}/withdraw", {})
        elif end == "taken out":
            site.lead.call("PUT", f"/api/projects/{project}/members/{ids['bo']}", {"member": False})
            with pytest.raises(StudioError, match="bo may not answer in this project"):
                site.lead.call("PATCH", f"/api/projects/{project}/items", {"items": [first], "assigned": [ids["bo"]]})
        else:
            site.lead.call("PATCH", f"/api/users/{ids['bo']}", {"role": end} if end == "viewer" else {"state": end})
        assert [asked(task) for task in site.ana.next(project, 3)["tasks"]] == ["q0"]
        found = {row["id"]: row["assigned"] for row in site.lead.call("GET", f"/api/projects/{project}/find")["items"]}
        assert (found[first], found[second]) == ([], [ids["lead"]])
        with site.db.link.reading() as tx:
            assert audit.check(tx).problems == ()


def test_figures_that_take_long_are_not_waited_for(tmp_path, monkeypatch):
    """The overview says so, and has them once they are there."""
    import threading

    from harken.studio.pages.lead import Figures
    work, go_on = Figures._work_out, threading.Event()
    monkeypatch.setattr(Figures, "_work_out", lambda *args: go_on.wait(60) and work(*args))
    with new_site(tmp_path) as site:
        project = project_of(site, pairs(1))
        site.ana.submit(site.ana.next(project)["tasks"][0], {"preference": 1})

        def overview():
            return raw_call(site, "GET", f"/lead/projects/{project}", None, site.lead._headers)[2].decode()
        assert "data-soon" in overview() and 'id="pace"' not in overview()
        go_on.set()
        end = time.monotonic() + 60
        while 'id="pace"' not in (page := overview()):
            assert time.monotonic() < end
        assert "data-soon" not in page


def test_a_lead_reads_words_and_not_their_program(tmp_path):
    """States of answers and members, who agrees with whom, and a command that a shell takes: pages with something in them."""
    with new_site(tmp_path) as site:
        models = [{"text": "a", "source": "m1"}, {"text": "b", "source": "m2"}]
        items = [{"prompt": f"q{i}", "completions": models} for i in range(4)]
        project = site.lead.create_project("Tom's questions", "compare", overlap=2)["id"]
        site.lead.add_items(project, items)
        for client in (site.ana, site.bo):
            said = [client.submit(task, {"preference": 1 if client is site.ana else -1})["judgment"]
                    for task in client.tasks(project)]
        site.bo.undo(project)
        site.lead.call("PATCH", f"/api/judgments/{said[0]}", {"state": "set_aside", "reason": "a slip"})
        site.lead.call("POST", f"/api/users/{site.bo.me()['user']['id']}/withdraw", {})
        pages = {}
        for path in ("", "/answers", "/models", "/settings"):
            status, _, page = raw_call(site, "GET", f"/lead/projects/{project}{path}", None, site.lead._headers)
            pages[path] = page.decode()
            assert status == 200 and not re.search(r"[>\w]_\(|\)_|>\)", pages[path]), path
        for words in ("undone", "withdrawn", "set aside"):
            assert f'<span class="tag">{words}</span>' in pages["/answers"], words
        assert "has not begun" in pages["/settings"] and "may answer" in pages["/settings"]
        assert "--project &#39;Tom&#39;&#34;&#39;&#34;&#39;s questions&#39; --out" in pages["/models"]


def test_a_login_goes_back_to_the_same_list(site):
    status, headers, _ = raw_call(site, "GET", f"/lead/projects/{site.open}/items?q=b%26c&page=2", None, {})
    assert status == 303 and headers["location"] == f"/login?next=/lead/projects/{site.open}/items%3Fq%3Db%2526c%26page%3D2"
