"""The studio over HTTP: who may call what, what is refused, and that the description is true."""

import argparse
import contextlib
import dataclasses
import http.client
import json
import random
import re
import socket
import threading
import types
import uuid
from pathlib import Path

import pytest
from sqlalchemy import event, text

from harken.cli import studio as cli_studio
from harken.core.errors import UserError
from harken.studio import app  # noqa: F401  it declares the operations
from harken.studio.api.declare import API
from harken.studio.client import Client, StudioError
from harken.web.json_schema import check
from harken.web.limits import Buckets, Limits
from harken.web.operations import ERROR
from studio_site import (
    FREE,
    PASSWORD,
    broken_rules,
    empty_postgres,
    in_session,
    logged_in,
    make_user,
    new_site,
    open_template,
    served,
    simple_answer,
)


@contextlib.contextmanager
def site_on(kind, folder, request):
    if kind == "sqlite":
        with new_site(folder) as site:
            yield site
        return
    with empty_postgres(request.getfixturevalue("postgres")) as address, new_site(folder, address) as site:
        yield site


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(params=BOTH)
def site(request, tmp_path):
    with site_on(request.param, tmp_path, request) as site:
        yield site


@pytest.fixture(scope="module", params=BOTH)
def shared(request, tmp_path_factory):
    """One site for tests that only ask for what is refused."""
    with site_on(request.param, tmp_path_factory.mktemp("site"), request) as site:
        yield site


def refused(call, *arguments, code, **more):
    with pytest.raises(StudioError) as error:
        call(*arguments, **more)
    assert error.value.code == code, str(error.value)
    return error.value


def raw(site, method, path, body=None, headers=(), client=None):
    """One request with exactly these headers besides the client's own; status, headers, bytes."""
    connection = http.client.HTTPConnection(site.url.split("//")[1], timeout=20)
    own = dict(client._headers) if client else {}
    connection.request(method, path, body, own | dict(headers), encode_chunked=True)
    response = connection.getresponse()
    return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()


def example(site, op):
    """A path and body for an operation, on things that exist where a lead could reach them."""
    ids = {"project": site.open, "item": 1, "user": 999, "invitation": 999, "token": 999, "assignment": 1, "judgment": 1,
           "version": "x", "webhook": 999, "crowd": 999}
    path = op.path
    for name, value in ids.items():
        path = path.replace("{" + name + "}", str(value))
    return path, {} if op.body is not None else None


@pytest.mark.parametrize("name", sorted(API.operations))
def test_each_role_reaches_what_it_may_and_nothing_else(shared, name):
    """Every operation × nobody, labeler, viewer, lead: 401 without login, 403 in the wrong role, neither in the right one."""
    op = API.operations[name]
    if op.who == "anyone":
        return
    may = {"user": {"ana", "viewer", "lead"}, "labeler": {"ana", "lead"}, "reader": {"viewer", "lead"}, "lead": {"lead"}}[op.who]
    path, body = example(shared, op)
    data = None if body is None and op.ndjson != "in" else b"{}"
    assert raw(shared, op.method, path, data, {"Content-Type": "application/json"})[0] == 401
    for who in ("ana", "viewer", "lead"):
        status, _, said = raw(shared, op.method, path, data, client=in_session(shared.url, shared.db, who))
        code = json.loads(said).get("error", {}).get("code") if status >= 400 else None
        assert (code == "forbidden") == (who not in may), f"{who}: {status} {code}"
        assert status < 500 and code not in ("login_needed", "csrf")


def test_another_labelers_tasks_drafts_and_other_projects_do_not_exist(site):
    task = site.ana.next(site.open)["tasks"][0]["assignment"]
    uuid4 = {"client_id": str(uuid.uuid4())}
    calls = [("GET", f"/api/assignments/{task}", None), ("PUT", f"/api/assignments/{task}/draft", {"draft": {}, "version": 0}),
             ("POST", f"/api/assignments/{task}/renew", {}),
             ("POST", f"/api/assignments/{task}/skip", uuid4 | {"reason": "other"}),
             ("POST", f"/api/assignments/{task}/unsafe", uuid4 | {"category": "other"}),
             ("POST", f"/api/assignments/{task}/submit", uuid4 | {"answer": {}, "form_version": "x", "instruction_hash": "x"})]
    for who in (site.bo, site.lead):
        for call in calls:
            refused(who.call, *call, code="not_found")
    for method, path, body in (("GET", "", None), ("POST", "/next", {"count": 1})):
        refused(site.ana.call, method, f"/api/projects/{site.closed}{path}", body, code="not_found")
    assert [p["id"] for p in site.ana.call("GET", "/api/projects")["items"]] == [site.open]
    assert site.lead.next(site.closed)["tasks"]
    ana = next(u["id"] for u in site.lead.call("GET", "/api/users")["items"] if u["name"] == "ana")
    site.lead.call("PUT", f"/api/projects/{site.closed}/members/{ana}", {"member": True})
    assert site.ana.next(site.closed)["tasks"]
    site.lead.call("PUT", f"/api/projects/{site.closed}/members/{ana}", {"member": False})
    refused(site.ana.next, site.closed, code="not_found")


def test_tokens_carry_their_scopes_and_no_more(site):
    read = site.lead.call("POST", "/api/tokens", {"name": "ci", "scopes": ["read"]})
    program = Client(site.url, read["token"])
    assert program.call("GET", f"/api/projects/{site.open}/progress")["items_total"] == 4
    refused(program.create_project, "x", "compare", code="forbidden")
    refused(program.next, site.open, code="forbidden")
    refused(program.call, "POST", "/api/tokens", {"name": "more", "scopes": ["read"]}, code="forbidden")
    refused(site.ana.call, "POST", "/api/tokens", {"name": "x", "scopes": ["lead"]}, code="forbidden")
    site.lead.call("DELETE", f"/api/tokens/{read['id']}")
    refused(program.call, "GET", "/api/me", code="login_needed")
    stored = [r.hash for r in rows(site, "SELECT hash FROM tokens")]
    assert read["token"] not in stored and len(stored[0]) == 64


def rows(site, query):
    with site.db.link.reading() as connection:
        return connection.execute(text(query)).fetchall()


def test_invitations_make_accounts_once_and_the_wrong_password_does_not_help(site):
    made = site.lead.call("POST", "/api/invitations", {"role": "labeler", "projects": [site.closed]})
    guest = Client(site.url)
    looked = guest.call("POST", "/api/invitations/look", {"invitation": made["token"]})
    assert looked["projects"] == ["closed"] and "withdraw" in looked["consent_text"]
    refused(guest.join, made["token"], "cy", "short", code="bad_request")
    guest.join(made["token"], "cy", "long enough password", {"age": "30-39"})
    assert guest.next(site.closed)["tasks"]
    refused(Client(site.url).join, made["token"], "dee", "long enough password", code="not_found")
    for name, password in (("cy", "wrong password"), ("nobody", "wrong password")):
        assert refused(Client(site.url).login, name, password, code="bad_login").message == "Name and password do not fit."
    other = site.lead.call("POST", "/api/invitations", {"uses": 2})
    refused(Client(site.url).join, other["token"], "CY", "long enough password", code="conflict")
    site.lead.call("DELETE", f"/api/invitations/{other['id']}")
    refused(Client(site.url).join, other["token"], "eve", "long enough password", code="not_found")
    assert "long enough" not in str(rows(site, "SELECT password_hash FROM users")), "only hashes are stored"


def test_judgments_from_elsewhere_are_stored_once_and_asked_of_nobody(site):
    said = [{"prompt": "q", "completions": ["a", "b"], "ranks": [1, 2], "labeler": "zoe"}]
    before = site.lead.call("GET", f"/api/projects/{site.open}/progress")["items_total"]
    assert site.lead.import_judgments(said) == {"kind": "comparisons", "added": 1, "already": 0, "repeats_an_answer": 0}
    again = site.lead.import_judgments([*said, {**said[0], "labeler": "yan"}])
    assert again == {"kind": "comparisons", "added": 1, "already": 1, "repeats_an_answer": 0}
    assert [c.labeler for c in site.db.comparisons()] == ["zoe", "yan"]
    assert site.lead.call("GET", f"/api/projects/{site.open}/progress")["items_total"] == before
    refused(site.lead.import_judgments, [{"prompt": "nobody judged this"}], code="bad_request")
    assert "line 2" in refused(site.lead.import_judgments, [said[0], {"prompt": 3}], code="bad_request").message


def test_a_lead_finds_the_demonstrations_that_wait_for_a_grade(site):
    project = site.lead.create_project("test", "compare", qualification={"demonstrations": 6})["id"]
    site.lead.add_items(project, [{"prompt": "Write here", "kind": "demonstrate", "role": "qualify"}])
    address = f"/lead/projects/{project}/items?list=ungraded"
    assert b"Write here" not in raw(site, "GET", address, client=site.lead)[2]
    (task,) = site.ana.next(project)["tasks"]
    judgment = site.ana.submit(task, {"text": "Well."})["judgment"]
    assert b"Write here" in raw(site, "GET", address, client=site.lead)[2]
    site.lead.call("POST", f"/api/judgments/{judgment}/grade", {"score": 7})
    assert b"Write here" not in raw(site, "GET", address, client=site.lead)[2]


def test_a_client_that_was_idle_opens_its_connection_anew(site):
    site.lead.me()
    site.lead._connection.sock.shutdown(socket.SHUT_RDWR)  # as a server does after five seconds
    site.lead._used -= 5
    assert site.lead.create_project("after a pause", "compare")["name"] == "after a pause"


def test_logging_out_disabling_and_a_new_password_end_sessions(site):
    second = logged_in(site.url, "ana")
    second.call("POST", "/api/me/password", {"old": PASSWORD, "new": "another password"})
    refused(site.ana.me, code="login_needed")
    ana = next(u["id"] for u in site.lead.call("GET", "/api/users")["items"] if u["name"] == "ana")
    site.lead.call("PATCH", f"/api/users/{ana}", {"state": "disabled"})
    refused(second.me, code="login_needed")
    refused(Client(site.url).login, "ana", "another password", code="bad_login")
    refused(site.lead.call, "PATCH", "/api/users/1", {"role": "viewer"}, code="conflict")
    site.lead.call("POST", "/api/logout", {})
    refused(site.lead.me, code="login_needed")


def test_f19_cross_site_requests_are_refused_and_headers_are_strict(site):
    body = json.dumps({"name": "evil", "kind": "compare"})
    assert raw(site, "POST", "/api/projects", body, {"Origin": "https://evil.example"}, site.lead)[0] == 403
    assert raw(site, "POST", "/api/projects", body, {"Sec-Fetch-Site": "cross-site"}, site.lead)[0] == 403
    for csrf in ("", "wrong", "é"):
        status, _, said = raw(site, "POST", "/api/projects", body, {"X-Harken-CSRF": csrf.encode("latin-1")}, site.lead)
        assert status == 403 and json.loads(said)["error"]["code"] == "csrf"
    assert raw(site, "POST", "/api/projects", body, {"Content-Type": "text/plain"}, site.lead)[0] == 415, "what a form can send"
    assert raw(site, "GET", "/api/me", None, {"Host": "evil.example"}, site.lead)[0] == 403, "DNS rebinding"
    assert "evil" not in [p["name"] for p in site.lead.call("GET", "/api/projects")["items"]]
    for path in ("/api/health", "/nowhere"):
        headers = raw(site, "GET", path)[1]
        assert "access-control-allow-origin" not in headers and headers["x-content-type-options"] == "nosniff"
        csp = headers["content-security-policy"]
        assert "default-src 'none'" in csp and "unsafe" not in csp and "http" not in csp
    cookie = raw(site, "POST", "/api/login", json.dumps({"name": "lead", "password": PASSWORD}),
                 {"Content-Type": "application/json"})[1]
    assert "HttpOnly" in cookie["set-cookie"] and "SameSite=lax" in cookie["set-cookie"]


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'{"count": NaN}', b'{"count": "1"}', b'{"count": true}', b'{"count": 1.5}', b'{"count": 99}',
    b'{"count": 1, "extra": 1}', b'{"count": 1, "have": [0]}', b'{"count": 1, "have": "x"}', b"\xff\xfe", b"[" * 100_000,
    b'{"count": 1' + b"0" * 5000 + b"}", b'{"count": 1, "have": [' + b"1," * 60 + b"1]}"])
def test_malformed_bodies_are_refused_in_the_one_shape(shared, body):
    status, _, said = raw(shared, "POST", f"/api/projects/{shared.open}/next", body, client=shared.ana)
    assert status == 400, said[:200]
    check(ERROR, json.loads(said))


def test_oversize_bodies_are_refused_before_they_are_read(shared):
    for length in (300_000, 10**12):
        status, _, said = raw(shared, "POST", "/api/login", None,
                              {"Content-Type": "application/json", "Content-Length": str(length)})
        assert status == 413 and json.loads(said)["error"]["code"] == "too_large"
    for path, client, most in ((f"/api/projects/{shared.open}/next", shared.ana, 3 << 20),
                               ("/api/projects", shared.lead, 256 << 10)):
        chunks = (b"x" * 65536 for _ in range(most // 65536 + 4))
        assert raw(shared, "POST", path, chunks, {"Transfer-Encoding": "chunked"}, client)[0] == 413


@pytest.mark.parametrize("path", ["/api/projects/0", "/api/projects/-1", "/api/projects/99999999999999999999",
                                  "/api/projects/1%27",
                                  "/api/projects/1;DROP TABLE users", "/api/projects/%00", "/api/projects/../users", "/api/nope"])
def test_paths_that_name_nothing(shared, path):
    status, _, said = raw(shared, "GET", path.replace(" ", "%20"), client=shared.lead)
    assert status == 404 and json.loads(said)["error"]["code"] == "not_found"


def test_words_of_sql_and_markup_are_words(site):
    """F20: what people write is stored and given back as it is; nothing executes it (the pages escape it)."""
    evil = "'; DROP TABLE judgments; -- <script>alert(1)</script><img src=x onerror=alert(1)>\u202e\U0001f600"
    project = site.lead.create_project(evil, "demonstrate")["id"]
    site.lead.add_items(project, [{"prompt": evil}])
    task = site.ana.next(project)["tasks"][0]
    assert task["prompt"]["messages"][0]["content"] == evil
    assert site.ana.submit(task, {"text": evil, "notes": evil})["answer"]["text"] == evil
    assert site.lead.export(project, "demonstrations")[0]["completion"] == evil
    for wrong in ("nul \x00", "half \ud800"):
        task = {**task, "form_version": task["form_version"]}
        refused(site.ana.submit, task, {"text": wrong}, code="bad_request")
    status, headers, _ = raw(site, "GET", f"/api/projects/{project}", client=site.ana)
    assert status == 200 and headers["content-type"] == "application/json"


def test_rate_limits_slow_down_and_say_for_how_long(tmp_path):
    with open_template(tmp_path) as db, served(db, limits=Limits(calls=5, call_burst=5, logins=0.1, login_burst=2)) as (url, _):
        make_user(db)
        guess = Client(url)
        codes = []
        for _ in range(4):
            status, headers, _ = guess._send("POST", "/api/login", {"name": "lead", "password": "wrong guess"})
            codes.append(status)
        assert codes == [401, 401, 429, 429] and int(headers["retry-after"]) >= 1


def test_buckets_by_hand():
    """Two at once, then one a second: at 0 s two pass and the third waits 1 s; at 1 s one passes."""
    now = [0.0]
    buckets = Buckets(1, 2, clock=lambda: now[0])
    buckets.take("a")
    buckets.take("a")
    with pytest.raises(Exception, match="Too many"):
        buckets.take("a")
    buckets.take("b")
    now[0] = 1.0
    buckets.take("a")
    with pytest.raises(Exception, match="Too many"):
        buckets.take("a")


def test_single_user_mode_needs_no_login_and_ends_with_the_first_account(tmp_path):
    with open_template(tmp_path) as db, served(db, single_user=True, limits=FREE) as (url, _):
        me = Client(url)
        refused(me.create_project, "p", "compare", code="csrf")
        assert me.me()["single_user"] is True
        me.create_project("p", "compare")
        refused(me.call, "POST", "/api/invitations", {}, code="set_password_first")
        refused(me.call, "POST", "/api/tokens", {"name": "x", "scopes": ["read"]}, code="set_password_first")
        status, _, said = raw(types.SimpleNamespace(url=url), "GET", "/api/me", None, {"X-Forwarded-For": "9.9.9.9"})
        assert status == 403 and json.loads(said)["error"]["code"] == "proxy_needs_accounts"
        lead = Client(url)
        lead._sign_in("/api/setup", {"name": "ada", "password": PASSWORD})
        assert lead.me()["user"]["name"] == "ada"
        refused(Client(url).me, code="login_needed")
        refused(Client(url).call, "POST", "/api/setup", {"name": "eve", "password": PASSWORD}, code="accounts_exist")


def test_an_overlap_from_more_to_fewer_is_refused(site):
    wrong = {"min": 5, "max": 2}
    for call in (lambda: site.lead.create_project("odd", "compare", overlap=wrong),
                 lambda: site.lead.call("PATCH", f"/api/projects/{site.open}", {"overlap": wrong})):
        assert "above its max" in refused(call, code="bad_request").message


def test_lists_are_paged_and_polling_costs_nothing_when_nothing_changed(site):
    seen, after = [], 0
    while True:
        page = site.lead.call("GET", f"/api/projects/{site.open}/items?limit=3&after={after}")
        seen += [i["id"] for i in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert len(seen) == 4 == len(set(seen))
    path = f"/api/projects/{site.open}/progress"
    tag = raw(site, "GET", path, client=site.lead)[1]["etag"]
    assert raw(site, "GET", path, None, {"If-None-Match": tag}, site.lead)[::2] == (304, b"")
    site.ana.submit(site.ana.next(site.open)["tasks"][0], {"preference": 1})
    assert raw(site, "GET", path, None, {"If-None-Match": tag}, site.lead)[0] == 200
    for wrong in ("limit=0", "limit=501", "limit=x", "after=-1", "what=1", "state=x"):
        refused(site.lead.call, "GET", f"/api/projects/{site.open}/items?{wrong}", code="bad_request")


def test_the_lead_sees_an_item_with_its_answers_and_history(site):
    task = site.ana.next(site.open)["tasks"][0]
    site.ana.submit(task, {"preference": 2, "notes": "clear"})
    site.ana.undo(site.open)
    number = site.lead.call("GET", f"/api/projects/{site.open}/judgments")["items"][0]["item"]  # labelers see another
    item = site.lead.call("GET", f"/api/items/{number}")
    assert item["answers"][0]["labeler"] == "ana" and item["answers"][0]["retracted"] == "undo"
    assert [e["kind"] for e in item["events"]] == ["submit", "undo"] and item["body"]["completions"][1]["source"] == "m"
    changed = site.lead.call("PATCH", f"/api/items/{number}", {"state": "set_aside"})
    assert changed["state"] == "set_aside"
    assert [a["action"] for a in site.ana.call("GET", f"/api/projects/{site.open}/history")["items"]] == ["submit"]
    assert broken_rules(site.db) == []


def test_f14_a_rating_that_contradicts_the_ranking_is_noticed_and_kept(site):
    """Shown first: rated 6 and ranked second; shown second: rated 4 and ranked first."""
    project = site.lead.create_project("rr", "rate_and_rank")["id"]
    site.lead.add_items(project, [{"prompt": "q", "completions": ["a", "b"]}])
    task = site.ana.next(project)["tasks"][0]
    answer = simple_answer(task, random.Random(0))
    answer["ratings"][0]["overall"], answer["ratings"][1]["overall"], answer["ranks"] = 6, 4, [2, 1]
    receipt = site.ana.submit(task, answer)
    assert [n["pairs"] for n in receipt["notices"]] == [[[1, 0]]] and receipt["counted"]
    assert next(site.db.judgments()).payload["conflicts"] == [[task_index(task, 1), task_index(task, 0)]]


def task_index(task, place):
    return ["a", "b"].index(task["completions"][place])


def test_answers_that_do_not_fit_the_form_name_the_field(site):
    project = site.lead.create_project("rr", "rate_and_rank")["id"]
    site.lead.add_items(project, [{"prompt": "q", "completions": ["a", "b", "c"]}])
    task = site.ana.next(project)["tasks"][0]
    good = simple_answer(task)
    flags = good["ratings"][0]["flags"]
    for wrong, field in ((good | {"ranks": [1, 2]}, "answer.ranks"), (good | {"ranks": [0, 1, 2]}, r"answer.ranks[0]"),
                         (good | {"ratings": good["ratings"][:2]}, "answer.ratings"), (good | {"more": 1}, "more"),
                         ({"ranks": [1, 2, 3]}, "ratings"), (good | {"prompt_flags": ["nope"]}, "answer.prompt_flags[0]"),
                         (good | {"ratings": [{"overall": 8, "flags": flags}] * 3}, "answer.ratings[0].overall"),
                         (good | {"prompt_flags": ["closed_domain"]}, "hallucination")):
        assert field in refused(site.ana.submit, task, wrong, code="bad_answer").message
    assert site.ana.submit(task, good | {"ranks": [1, 3, 3]})["answer"]["ranks"] == [1, 2, 2], "ranks are made dense and echoed"


def test_several_windows_at_once_never_store_twice(site):
    """F2: 8 threads send the same submit, 4 times each."""
    task, client_id, told = site.ana.next(site.open)["tasks"][0], str(uuid.uuid4()), []

    def send():
        client = logged_in(site.url, "ana")
        for _ in range(4):
            told.append(client.submit(task, {"preference": 1}, seconds=1, client_id=client_id))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(told) == 32 and sum(not t["already"] for t in told) == 1
    assert len(rows(site, "SELECT 1 FROM judgments")) == 1 and broken_rules(site.db) == []


@pytest.mark.parametrize(("pragma", "words"), [("PRAGMA max_page_count=1", "full"), ("PRAGMA query_only=ON", "read-only")])
def test_f21_a_failed_write_is_an_error_the_labeler_sees(site, pragma, words):
    task = site.ana.next(site.open)["tasks"][0]
    site.db.link.engine.dispose()
    if not site.db.link.is_file:
        if words == "full":
            pytest.skip("a full disk cannot be feigned by a setting of PostgreSQL's")
        pragma = "SET default_transaction_read_only = on"

    @event.listens_for(site.db.link.engine, "connect")
    def spoil(connection, _):
        connection.execute(pragma)
        connection.commit()

    body = {"client_id": str(uuid.uuid4()), "answer": {"preference": 1, "notes": "x" * 4000},
            "form_version": task["form_version"],
            "instruction_hash": task["instruction_hash"]}
    status, headers, said = site.ana._send("POST", f"/api/assignments/{task['assignment']}/submit", body)
    error = json.loads(said)["error"]
    assert status == 503 and error["code"] == "storage" and words in error["message"] and "retry-after" in headers
    assert len(rows(site, "SELECT 1 FROM judgments")) == 0


def test_a_fault_of_ours_is_told_in_the_one_shape_and_harms_nobody_else(tmp_path, monkeypatch):
    """To programs as JSON, to people as a page; both with the headers that every answer has."""
    for name in ("leave", "list_projects"):
        monkeypatch.setitem(API.operations, name, dataclasses.replace(API.operations[name], handler=lambda call: 1 / 0))
    with open_template(tmp_path) as db:
        make_user(db)
        with served(db, limits=FREE) as (url, _):
            lead = logged_in(url)
            project = lead.create_project("p", "compare")["id"]
            site = types.SimpleNamespace(url=url)
            status, headers, said = raw(site, "POST", f"/api/projects/{project}/leave", b"{}",
                                        {"Content-Type": "application/json"}, lead)
            assert (status, json.loads(said)["error"]["code"]) == (500, "internal")
            for path, expected in (("/", 500), ("/nowhere", 404)):
                status, headers, said = raw(site, "GET", path, client=lead)
                assert status == expected and b"<h1>" in said and b"Traceback" not in said
                assert headers["content-type"].startswith("text/html")
                assert "default-src 'none'" in headers["content-security-policy"]
            assert lead.me()["user"]["name"] == "lead"


def test_the_description_is_made_of_the_routes_and_is_served(site):
    described = Client(site.url).call("GET", "/api/openapi.json")
    assert described == json.loads(json.dumps(API.openapi()))
    told = {(m.upper(), p) for p, methods in described["paths"].items() for m in methods}
    assert told == {(op.method, op.path) for op in API.operations.values()}
    assert len({o["operationId"] for p in described["paths"].values() for o in p.values()}) == len(told)


def test_a_public_address_without_a_password_is_refused(tmp_path):
    parser = argparse.ArgumentParser()
    cli_studio.add_commands(parser.add_subparsers())
    args = parser.parse_args(["studio", "--db", str(tmp_path / "f.db"), "--host", "0.0.0.0", "--port", "0"])
    with pytest.raises(UserError, match="no lead has a password"):
        args.handler(args)


def test_f11_the_documented_example_runs(site):
    page = (Path(__file__).parents[1] / "docs" / "studio-api.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    token = site.lead.call("POST", "/api/tokens", {"name": "docs", "scopes": ["read", "label", "lead"]})["token"]
    found = {}
    exec(code.replace("http://localhost:8765", site.url).replace("hk_…", token), found)
    assert [{r["chosen"][0]["content"], r["rejected"][0]["content"]} for r in found["rows"]] == [{"Hello.", "Yo"}]
