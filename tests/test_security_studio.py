"""What a security review of the studio found, each fault with its kind: who gets in, what they reach, what leaks."""

import gzip
import http.client
import itertools
import json
import logging
import os
import socket
import stat
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from harken.cli.main import main
from harken.core.errors import UserError
from harken.store import backup
from harken.store.connection import masked
from harken.store.database import open_database
from harken.store.names import looks_like, mixed_scripts, name_key
from harken.store.snapshots import snapshot
from harken.studio.api.declare import API
from harken.studio.app import Studio, create_app
from harken.studio.client import Client, StudioError
from harken.studio.work import uploads
from harken.web import accounts, patience
from harken.web.errors import ApiError
from harken.web.json_schema import DEPTH, bounded
from harken.web.limits import Limits
from harken.web.passwords import weakness
from studio_site import PASSWORD, empty_postgres, in_session, logged_in, make_user, new_site, open_template, served

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(params=BOTH)
def site(request, tmp_path):
    if request.param == "sqlite":
        with new_site(tmp_path) as site:
            yield site
        return
    with empty_postgres(request.getfixturevalue("postgres")) as address, new_site(tmp_path, address) as site:
        yield site


def refused(call, *arguments, code, **more):
    with pytest.raises(StudioError) as error:
        call(*arguments, **more)
    assert error.value.code == code, str(error.value)
    return error.value


def person(site, name):
    return next(u for u in site.lead.call("GET", "/api/users")["items"] if u["name"] == name)["id"]


def bearer(url, secret):
    client = Client(url)
    client._headers["Authorization"] = f"Bearer {secret}"
    return client


def token_of(site, who, *scopes):
    made = getattr(site, who).call("POST", "/api/tokens", {"name": "t", "scopes": list(scopes)})
    return bearer(site.url, made["token"]), made["id"]


def join(site, invitation, name):
    client = Client(site.url)
    return client.call("POST", "/api/join", {"invitation": invitation, "name": name, "password": PASSWORD, "consent": True})


# --- who gets in ---

@pytest.mark.parametrize("end", ["demoted", "disabled", "withdrawn", "demoted and raised again"])
def test_invitations_end_with_their_makers_rights(site, end):
    other = make_user(site.db, "second", "lead")
    made = in_session(site.url, site.db, "second").call("POST", "/api/invitations", {"role": "lead", "uses": 1000, "days": 365})
    assert site.lead.call("GET", "/api/invitations")["items"][-1]["made_by"] == "second"
    if end == "withdrawn":
        site.lead.call("POST", f"/api/users/{other.id}/withdraw", {})
    else:
        change = {"state": "disabled"} if end == "disabled" else {"role": "labeler"}
        site.lead.call("PATCH", f"/api/users/{other.id}", change)
    if "raised" in end:
        site.lead.call("PATCH", f"/api/users/{other.id}", {"role": "lead"})
    refused(join, site, made["token"], "come back", code="not_found")
    assert site.lead.call("GET", "/api/invitations")["items"][-1]["revoked"]
    own = site.lead.call("POST", "/api/invitations", {"role": "viewer"})
    assert join(site, own["token"], "welcome guest")["user"]["role"] == "viewer"


@pytest.mark.parametrize("spelling", ["Ünal", "ünal", "ÜNAL", "U\u0308nal", " Ünal "])
def test_a_name_is_one_in_every_spelling(site, spelling):
    """Login, join, password: one key, whatever the database knows of capitals."""
    invitation = site.lead.call("POST", "/api/invitations", {"uses": 5})["token"]
    join(site, invitation, "Ünal")
    assert logged_in(site.url, spelling).me()["user"]["name"] == "Ünal"
    refused(join, site, invitation, spelling, code="conflict")
    with site.db.link.writing() as tx:
        accounts.set_password(tx, spelling, accounts.hash_password("some other words"), datetime.now(UTC))
    client = Client(site.url)
    client.login("Ünal", "some other words")


@given(st.text(min_size=1, max_size=20))
@settings(max_examples=150, deadline=None)
def test_a_key_is_its_own_key(name):
    assert name_key(name_key(name)) == name_key(name) == name_key(f" {name}  ")


def test_a_name_that_looks_like_another_is_refused(site):
    invitation = site.lead.call("POST", "/api/invitations", {"uses": 9})["token"]
    join(site, invitation, "ada")
    refused(join, site, invitation, "аda", code="bad_request")  # a Cyrillic а before Latin letters
    join(site, invitation, "ace")
    refused(join, site, invitation, "асе", code="conflict")  # all Cyrillic
    join(site, invitation, "Иван")
    join(site, invitation, "Müller")
    join(site, invitation, "李雷")
    assert mixed_scripts("аda") and not mixed_scripts("Jürgen O'Neill-Łuk") and looks_like("l0rna") == looks_like("lorna")


def test_tokens_end_with_what_ends_sessions(site):
    ana, bo = person(site, "ana"), person(site, "bo")
    first, _ = token_of(site, "ana", "label")
    first.me()
    site.lead.call("PATCH", f"/api/users/{ana}", {"state": "disabled"})
    site.lead.call("PATCH", f"/api/users/{ana}", {"state": "active"})
    refused(first.me, code="login_needed")  # enabled again is not let in again
    second, _ = token_of(site, "bo", "label")
    with site.db.link.writing() as tx:
        accounts.set_password(tx, "bo", accounts.hash_password("some other words"), datetime.now(UTC))
    site.studio.forget()
    refused(second.me, code="login_needed")
    site.clients["bo"] = in_session(site.url, site.db, "bo")
    kept, _ = token_of(site, "bo", "label")
    bob = site.clients["bo"]
    bob.call("POST", "/api/me/password", {"old": "some other words", "new": PASSWORD})
    kept.me()
    logged_in(site.url, "bo").call("POST", "/api/me/password", {"old": PASSWORD, "new": "and other words", "revoke_tokens": True})
    refused(kept.me, code="login_needed")
    make_user(site.db, "second", "lead")
    site.clients["second"] = in_session(site.url, site.db, "second")
    strong, _ = token_of(site, "second", "lead")
    weak, _ = token_of(site, "second", "label")
    second_id = person(site, "second")
    site.lead.call("PATCH", f"/api/users/{second_id}", {"role": "labeler"})
    site.lead.call("PATCH", f"/api/users/{second_id}", {"role": "lead"})
    refused(strong.me, code="login_needed")
    assert weak.me()["user"]["name"] == "second" and bo


@pytest.mark.parametrize("name", sorted(n for n, op in API.operations.items() if op.who == "user" and op.method != "GET"))
def test_no_token_changes_the_account_it_speaks_for(site, name):
    op = API.operations[name]
    for scopes in (("read",), ("label",), ("lead",), ("lead", "read", "label")):
        client, number = token_of(site, "lead", *scopes)
        body = {"logout": {}, "change_password": {"old": PASSWORD, "new": "and other words"},
                "create_token": {"name": "x", "scopes": ["lead"]}}.get(name)
        refused(client.call, op.method, op.path.replace("{token}", str(number)), body, code="forbidden")
        client.me()


def test_a_session_that_is_not_used_ends(tmp_path):
    now = datetime(2026, 1, 5, tzinfo=UTC)
    with open_template(tmp_path) as db:
        make_user(db, "ana", "labeler")
        with db.link.writing() as tx:
            user, _ = accounts.stored_password(tx, "ana")
            secret, _ = accounts.start_session(tx, user, now, 10)
        for hours, there in ((9, True), (18, True), (29, False)):
            with db.link.writing() as tx:
                found = accounts.by_session(tx, secret, now + timedelta(hours=hours), 10)
                assert (found is not None) is there
                if found:
                    accounts.mark_seen(tx, secret, now + timedelta(hours=hours))


def test_use_keeps_a_session_alive_without_a_write_at_each_request(site):
    later = [datetime.now(UTC)]
    site.studio.clock = lambda: later[0]
    before = site.db.link.engine
    for _ in range(10):  # ten days of use, each within the idle time
        later[0] += timedelta(hours=24)
        site.studio.forget()
        site.ana.me()
        site.studio.writer.submit(lambda tx: None).result()
    assert before is site.db.link.engine
    later[0] += timedelta(hours=accounts.IDLE_HOURS + 1)
    site.studio.forget()
    refused(site.ana.me, code="login_needed")


@pytest.mark.parametrize("password", ["aaaaaaaaaa", "1234567890", "qwertyuiop", "password123", "P@ssw0rd2024!", "abcabcabcabc",
                                      "Welcome2024", "annotator1", "9876543210", "1q2w3e4r5t"])
def test_passwords_that_are_guessed_first_are_refused(password):
    with pytest.raises(ApiError) as error:
        accounts.hash_password(password)
    assert password not in str(error.value.to_json())


def test_honest_passwords_are_taken_and_the_own_name_is_not():
    for password in (PASSWORD, "gurke lampe tisch", "Xk3!vv9-Qz", "das pferd frisst", "über den wolken"):
        assert weakness(password, "ada") is None
    assert weakness("adalovelace1815", "Ada Lovelace") and weakness("ecalevolada", "adalovelace")


def test_guesses_from_many_addresses_are_slowed_and_a_known_browser_gets_in():
    now = [0.0]
    limits = Limits()
    for buckets in vars(limits).values():
        buckets.clock = lambda: now[0]
    for n in range(30):
        limits.login(f"10.0.0.{n}", "Ada")
    with pytest.raises(ApiError) as slow:
        limits.login("10.9.9.9", "ADA")  # another address, another spelling
    assert slow.value.code == "slow_down"
    limits.login("10.9.9.9", "eve")
    for _ in range(10):
        limits.login("10.9.9.9", "ada", "the secret of her browser")
    with pytest.raises(ApiError):
        limits.login("10.9.9.9", "ada", "the secret of her browser")
    now[0] += 60
    limits.login("10.9.9.9", "ada")


def test_a_browser_is_known_again_after_a_login(tmp_path):
    """Behind a proxy without X-Forwarded-For everybody has one address: guesses do not shut the owner out."""
    with open_template(tmp_path) as db:
        make_user(db, "ada", "lead")
        with served(db, limits=Limits(logins=0.001, login_burst=3)) as (url, _):
            first = request(url, "POST", "/api/login", {"name": "ada", "password": PASSWORD})
            device = first.cookies["harken_device"]
            for _ in range(5):
                last = request(url, "POST", "/api/login", {"name": "ada", "password": "wrong words here"})
            assert first.status == 200 and last.status == 429
            assert request(url, "POST", "/api/login", {"name": "ada", "password": PASSWORD}).status == 429
            right = {"name": "ada", "password": PASSWORD}
            again = request(url, "POST", "/api/login", right, {"Cookie": f"harken_device={device}"})
            assert again.status == 200 and again.cookies["harken_device"] == device
            foreign = request(url, "POST", "/api/login", right, {"Cookie": "harken_device=made-up"})
            assert foreign.status == 429
            rows = db.link.engine.connect().execute(text("SELECT hash FROM devices")).scalars().all()
            assert rows == [accounts.digest(device)]  # the secret itself is not stored


def test_an_account_is_known_by_a_bounded_number_of_browsers(tmp_path):
    now = datetime(2026, 1, 5, tzinfo=UTC)
    with open_template(tmp_path) as db:
        user = make_user(db, "ada", "lead")
        with db.link.writing() as tx:
            secrets = [accounts.remember_device(tx, user, None, now + timedelta(hours=n)) for n in range(30)]
            assert [accounts.known_device(tx, "Ada", s) for s in secrets] == [n >= 10 for n in range(30)]
            assert accounts.remember_device(tx, user, secrets[-1], now) == secrets[-1]
            assert not accounts.known_device(tx, "eve", secrets[-1])


def request(url, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection(url.split("//")[1], timeout=20)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"} | dict(headers))
    answer = connection.getresponse()
    cookies = dict(c.split(";")[0].split("=", 1) for c in answer.headers.get_all("Set-Cookie") or [])
    return SimpleNamespace(status=answer.status, cookies=cookies, data=answer.read())


# --- what they reach ---

def test_somebody_taken_out_holds_nothing_and_reaches_nothing_there(site):
    task = site.ana.next(site.open)["tasks"][0]
    me, path = person(site, "ana"), f"/api/assignments/{task['assignment']}"
    before = site.lead.call("GET", f"/api/projects/{site.open}/progress")["held"]
    site.lead.call("PUT", f"/api/projects/{site.open}/members/{me}", {"member": False})
    assert before == 1 and site.lead.call("GET", f"/api/projects/{site.open}/progress")["held"] == 0
    said = {"client_id": str(uuid.uuid4())}
    answer = {"answer": {"preference": 1}, "form_version": task["form_version"], "instruction_hash": task["instruction_hash"]}
    for method, end, body in (("GET", "", None), ("POST", "/submit", said | answer),
                              ("POST", "/skip", said | {"reason": "other"}),
                              ("POST", "/unsafe", said | {"category": "other"}), ("POST", "/renew", {}),
                              ("PUT", "/draft", {"draft": {}, "version": 0})):
        refused(site.ana.call, method, path + end, body, code="not_found")
    for method, end, body in (("POST", "/undo", said), ("POST", "/leave", {}), ("GET", "/history", None),
                              ("POST", "/next", {"count": 1})):
        code = "not_found" if end != "/undo" else "nothing_to_undo"
        refused(site.ana.call, method, f"/api/projects/{site.open}{end}", body, code=code)
    site.lead.call("PUT", f"/api/projects/{site.open}/members/{me}", {"member": True})
    assert site.ana.next(site.open)["tasks"]


@pytest.mark.parametrize("change", [{"state": "disabled"}, {"role": "viewer"}])
def test_somebody_who_may_not_answer_any_more_gives_back_what_they_held(site, change):
    site.ana.next(site.open)
    site.lead.call("PATCH", f"/api/users/{person(site, 'ana')}", change)
    assert site.lead.call("GET", f"/api/projects/{site.open}/progress")["held"] == 0


def test_a_project_that_is_none_of_mine_has_no_history_and_nothing_to_leave(site):
    for project in (site.closed, 999):
        refused(site.bo.call, "GET", f"/api/projects/{project}/history", code="not_found")
        refused(site.bo.call, "POST", f"/api/projects/{project}/leave", {}, code="not_found")


def test_nothing_sent_to_a_labeler_tells_gold_from_tasks(site):
    project = site.lead.create_project("gold", "compare", gold_rate=0.5)["id"]
    rows = [{"prompt": f"t{i}", "completions": ["a", "b"]} for i in range(12)]
    gold = [{"prompt": f"g{i}", "completions": ["a", "b"], "role": "gold", "gold": {"ranks": [1, 2]}} for i in range(12)]
    site.lead.add_items(project, rows + gold)
    with site.db.link.reading() as tx:
        last_task = tx.execute(text("SELECT max(id) FROM items WHERE role = 'task'")).scalar()
    shown, opened, counted = [], set(), set()
    while len(shown) < 14:
        answer = site.bo.next(project)
        opened.add(answer["progress"]["open"])
        for task in answer["tasks"]:
            words = task["prompt"]["messages"][0]["content"]
            shown.append((words[0] == "g", task["item"]))
            counted.add(site.bo.submit(task, {"preference": 1})["counted"])
            assert site.bo.call("GET", f"/api/assignments/{task['assignment']}")["item"] == task["item"]
    assert {is_gold for is_gold, _ in shown} == {True, False}
    assert counted == {True} and len(opened) == 1  # the count did not move at a task and rest at gold
    ids = sorted(shown, key=lambda s: s[1])
    runs = sum(a[0] != b[0] for a, b in itertools.pairwise(ids))
    assert runs > 1 and all(number > last_task + 24 for _, number in shown)  # not in the order of adding
    lead = site.lead.next(project)["tasks"][0]
    assert site.lead.call("GET", f"/api/items/{lead['item']}")["id"] == lead["item"]  # leads see the numbers as they are


# --- what is refused at the door ---

def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_deep_and_infinite_values_are_refused_on_every_door(site, tmp_path):
    task = site.ana.next(site.open)["tasks"][0]["assignment"]
    deep, endless = json.dumps(nested(900)), "1e999"
    for value in (deep, endless, "-1e999", "NaN"):
        draft = f'{{"draft": {{"a": {value}}}, "version": 0}}'.encode()
        items = f'{{"items": [{{"prompt": "p", "completions": ["a", "b"], "meta": {{"a": {value}}}}}]}}'.encode()
        lines = f'{{"prompt": "p", "completions": ["a", "b"], "meta": {{"a": {value}}}, "warnings": []}}'.encode()
        for client, method, path, body, kind in (
                (site.ana, "PUT", f"/api/assignments/{task}/draft", draft, "json"),
                (site.lead, "POST", f"/api/projects/{site.open}/items", items, "json"),
                (site.lead, "POST", f"/api/projects/{site.open}/import", lines, "x-ndjson")):
            answer = request(site.url, method, path, body, client._headers | {"Content-Type": f"application/{kind}"})
            assert answer.status == 400, (value[:20], path, answer.data[:200])
    assert bounded(nested(DEPTH))
    site.ana.call("PUT", f"/api/assignments/{task}/draft", {"draft": {"a": nested(30)}, "version": 0})


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=20))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_passes_the_door_is_json(value):
    try:
        passed = bounded(value)
    except ApiError:
        return
    assert json.loads(json.dumps(passed, allow_nan=False)) == passed


@pytest.mark.parametrize("number", ["9" * 5000, "99999999999999999999999", "0", "-1", "x", "²", "%00", "1e3"])
@pytest.mark.parametrize("page", ["/label/{}", "/label/{}/answers", "/lead/projects/{}", "/lead/projects/{}/models",
                                  "/lead/projects/{}/items", "/lead/projects/{}/answers", "/lead/projects/{}/settings",
                                  "/lead/items/{}"])
def test_a_number_that_names_nothing_in_a_pages_address_is_a_page_that_does_not_exist(shared_lead, page, number):
    url, headers = shared_lead
    assert request(url, "GET", page.format(number).replace("²", "%C2%B2"), None, headers).status == 404
    query = {"/lead/projects/{}/items": "page", "/lead/projects/{}/answers": "page", "/label/{}/answers": "before"}.get(page)
    if query:
        address = f"{page.format(1)}?{query}={number.replace('²', '%C2%B2')}"
        assert request(url, "GET", address, None, headers).status == 404


@pytest.fixture(scope="module")
def shared_lead(tmp_path_factory):
    with new_site(tmp_path_factory.mktemp("pages")) as site:
        yield site.url, dict(site.lead._headers)


def test_one_request_writes_little_into_the_log(site, caplog, monkeypatch):
    def fall(depth=400):
        return fall(depth - 1) if depth else [][1] + "x" * 10**6
    monkeypatch.setitem(API.operations["list_users"].__dict__, "handler", lambda call: fall())
    with caplog.at_level(logging.ERROR):
        answer = request(site.url, "GET", "/api/users", None, site.lead._headers)
    words = caplog.text
    assert answer.status == 500 and "IndexError" in words and len(words) < 6000


def test_no_password_hash_stands_in_an_error(tmp_path, caplog):
    with open_template(tmp_path) as db:
        secret = "$argon2id$v=19$m=19456$secret"
        for statement in ("INSERT INTO users (name, name_key, password_hash, role) VALUES ('a', 'a', :h, 'lead')",
                          "INSERT INTO users (nothing) VALUES (:h)"):
            with pytest.raises(Exception) as error, db.link.writing() as tx:
                tx.execute(text(statement), {"h": secret})
            assert secret not in "".join(str(e) for e in chain(error.value))
    assert secret not in caplog.text


def chain(error):
    while error is not None:
        yield error
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


def test_adding_an_account_twice_is_a_sentence(tmp_path, capsys):
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    add = ["users", "add", "Öz", "--db", str(tmp_path / "t.db"), "--password-file", str(file)]
    assert main(add) == 0 and main(add) != 0
    words = capsys.readouterr()
    assert "taken" in words.err and "argon2" not in words.out + words.err and "Traceback" not in words.err


# --- secrets on the disk and on the terminal ---

def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value):
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def test_databases_side_files_backups_and_snapshots_are_their_owners_alone(tmp_path):
    with umask(0o022):
        path = tmp_path / "f.db"
        (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
        with open_database(path) as db:
            db.import_file(tmp_path / "pairs.jsonl")
            backup.backup(db.link, tmp_path / "copy.db")
            snapshot(db, "comparisons", tmp_path / "snap.jsonl")
            modes = {p.name: mode(p) for p in tmp_path.iterdir() if p.name != "pairs.jsonl"}
        backup.restore(tmp_path / "copy.db", tmp_path / "again.db")
        assert mode(tmp_path / "again.db") == 0o600
        (tmp_path / "plain.txt").write_text("x")
    assert {"f.db", "f.db-wal", "copy.db", "snap.jsonl", "snap.jsonl.meta.json"} <= modes.keys()
    assert set(modes.values()) == {0o600} and mode(tmp_path / "plain.txt") == 0o644


def test_a_password_file_that_others_can_read_is_told(tmp_path, capsys):
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o644)
    main(["users", "add", "ada", "--db", str(tmp_path / "t.db"), "--password-file", str(file)])
    assert "can be read by other accounts" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["postgresql://u:p4ssw0rd@localhost:1/d", "postgresql://u:p4ssw0rd@x@localhost:1/d",
                                     "postgresql://:p4ssw0rd@localhost:1/d", "postgresql://u:p4ssw0rd@localhost:x/d"])
@pytest.mark.parametrize("command", [["users", "list"], ["snapshot", "comparisons", "--out", "x.jsonl"],
                                     ["backup", "--out", "x.db"], ["studio", "--port", "0"], ["audit"],
                                     ["export", "comparisons", "--out", "x.jsonl"]])
def test_no_command_shows_the_password_of_an_address(address, command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("psycopg")
    assert main([*command, "--db", address]) != 0
    words = capsys.readouterr()
    assert "p4ssw0rd" not in words.out + words.err
    assert "p4ssw0rd" not in masked(address)


def test_addresses_of_databases_stay_what_they_look_like(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("file:zz.db?x=1", "FILE:zz.db", "sqlite:///zz.db?mode=rw", "sqlite:///file:zz.db"):
        with pytest.raises(UserError):
            open_database(address)
    assert list(tmp_path.iterdir()) == []


def test_a_snapshots_name_is_checked_to_its_end(site):
    body = {"what": "comparisons", "name": "x\n"}
    refused(site.lead.call, "POST", f"/api/projects/{site.open}/snapshots", body, code="bad_request")
    task = site.ana.next(site.open)["tasks"][0]
    refused(site.ana.call, "POST", f"/api/assignments/{task['assignment']}/skip", {"client_id": "12345678\n", "reason": "other"},
            code="bad_request")


# --- what fills up ---

def rss():
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) // 1024


def bombs():
    line = b'{"prompt": "' + b"a" * (120 << 20) + b'", "chosen": "x", "rejected": "y"}\n'
    yield "one long line", gzip.compress(line, 1)
    yield "one array", gzip.compress(b"[" + b'"aaaaaaa",' * (8 << 20) + b"1]", 1)
    yield "many lines", gzip.compress(b'{"prompt": "p", "chosen": "x", "rejected": "y"}\n' * (2 << 20), 1)
    yield "a long text", json.dumps({"prompt": "a" * 300_000, "chosen": "x", "rejected": "y"}).encode()
    yield "a plain long line", b'{"prompt": "' + b"a" * (20 << 20) + b'"}'


@pytest.mark.slow
def test_an_upload_that_unpacks_to_much_is_refused_within_bounded_memory(tmp_path):
    packed = [(name, data) for name, data in bombs()]
    with new_site(tmp_path) as site:
        for name, data in packed:
            for path in ("/api/judgments/import", f"/api/projects/{site.open}/import"):
                before, peak, over = rss(), [0], threading.Event()

                def watch(peak=peak, over=over):
                    while not over.wait(0.005):
                        peak[0] = max(peak[0], rss())
                thread = threading.Thread(target=watch)
                thread.start()
                answer = request(site.url, "POST", path, data, site.lead._headers | {"Content-Type": "application/x-ndjson"})
                over.set()
                thread.join()
                assert answer.status == 400, (name, path, answer.data[:200])
                assert b"/tmp" not in answer.data
                assert peak[0] - before < 200, (name, path, peak[0] - before)


def test_uploads_are_bounded_unpacked_by_line_and_by_text(monkeypatch):
    monkeypatch.setattr(uploads, "UNPACKED", 10_000)
    monkeypatch.setattr(uploads, "LINE_BYTES", 3_000)
    row = b'{"prompt": "p", "completions": ["a", "b"], "warnings": []}\n'
    assert len(uploads.read_upload(gzip.compress(row * 100))) == 100
    for data, words in ((gzip.compress(row * 1000), "once it is unpacked"),
                        (b'{"prompt": "' + b"a" * 4000 + b'"}', "a line of more"),
                        (b'\xef\xbb\xbf{"prompt": "' + b"a" * 4000 + b'"}', "a line of more"),
                        (b"[" + b'{"prompt": "p"},\n' * 500 + b"1]", "one JSON array"),
                        (gzip.compress(row)[:-9], "damaged gzip")):
        with pytest.raises(UserError, match=words):
            uploads.read_upload(data)


ROWS = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["prompt", "completions", "ranks", "labeler", "meta", "warnings", "source", "gold",
                                         "text", "chosen", "rejected", "messages", "role", "content"]), inner, max_size=4),
                    max_leaves=15)


@given(st.one_of(st.binary(max_size=200), st.lists(ROWS, min_size=1, max_size=3).map(
    lambda rows: "\n".join(json.dumps(row) for row in rows).encode()), ROWS.map(lambda row: json.dumps([row] * 2).encode())),
    st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_uploaded_is_read_or_refused_in_words(data, packed):
    with suppress(UserError):
        for row in uploads.read_upload(gzip.compress(data) if packed else data):
            assert isinstance(row, dict)


@pytest.mark.parametrize("completions", ["null", "5", "true", '{"a": 1}', '"5"'])
@pytest.mark.parametrize("rest", ["", ', "source": false', ', "source": "m", "finished": [true]'])
def test_completions_that_are_no_list_are_none_or_refused_in_words(completions, rest):
    line = f'{{"prompt": "p", "completions": {completions}{rest}}}'.encode()
    if completions == "null":
        assert not uploads.read_upload(line)[0].get("completions")
    else:
        with pytest.raises(UserError, match="must be a list"):
            uploads.read_upload(line)


@contextmanager
def patient(db, seconds, most=None):
    """The studio behind the connections' deadlines, shortened."""
    import uvicorn
    studio = Studio(db, single_user=True)
    protocol = type("Short", (patience.Patient,), {"header_seconds": seconds})
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(studio), log_level="error", ws="none", http=protocol,
                                          limit_concurrency=most, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield sock.getsockname()
    finally:
        server.should_exit = True
        thread.join(10)
        studio.close()


def closed_within(connection, seconds):
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def test_connections_without_progress_are_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("harken.web.http.BODY_SECONDS", 0.5)
    with open_template(tmp_path) as db, patient(db, 0.5) as address:
        host = f"Host: 127.0.0.1:{address[1]}\r\n"
        silent, half, body = (socket.create_connection(address) for _ in range(3))
        half.sendall(b"GET / HTTP/1.1\r\nHost: lo")
        body.sendall(f"POST /api/login HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{".encode())
        after = socket.create_connection(address)
        after.sendall(f"GET /api/health HTTP/1.1\r\n{host}\r\nGET / HT".encode())
        for connection in (silent, half, body, after):
            assert closed_within(connection, 15)
        assert request(f"http://127.0.0.1:{address[1]}", "GET", "/api/health").status == 200


def test_there_are_never_more_connections_than_the_bound(tmp_path):
    with open_template(tmp_path) as db, patient(db, 20, most=5) as address:
        held = [socket.create_connection(address) for _ in range(6)]
        time.sleep(0.2)
        assert request(f"http://127.0.0.1:{address[1]}", "GET", "/api/health").status == 503
        for connection in held:
            connection.close()
        time.sleep(0.2)
        assert request(f"http://127.0.0.1:{address[1]}", "GET", "/api/health").status == 200


# --- which host names are served ---

def config_of(monkeypatch, tmp_path, *options):
    """The studio that `harken studio` would serve."""
    made = {}

    class Server:
        def __init__(self, config):
            made["config"] = config

        def run(self, sockets):
            for sock in sockets:
                sock.close()

    import uvicorn
    monkeypatch.setattr(uvicorn, "Server", Server)
    original = Studio.__init__

    def keep(self, db, **more):
        made["options"] = more
        original(self, db, **more)

    monkeypatch.setattr(Studio, "__init__", keep)
    with open_database(tmp_path / "h.db") as db, db.link.reading() as tx:
        there = accounts.has_lead(tx)
    if not there:
        with open_database(tmp_path / "h.db") as db:
            make_user(db)
    main(["studio", "--db", str(tmp_path / "h.db"), "--port", "0", *options])
    return made


def test_named_hosts_are_checked_on_every_address(monkeypatch, tmp_path, capsys):
    made = config_of(monkeypatch, tmp_path, "--host", "127.0.0.2", "--public-name", "judge.example")
    assert "judge.example" in made["options"]["hosts"] and "evil.example" not in made["options"]["hosts"]
    assert made["config"].limit_concurrency == patience.MOST_CONNECTIONS and made["config"].http is patience.Patient
    assert capsys.readouterr().err == ""
    (tmp_path / "h.db").chmod(0o644)
    config_of(monkeypatch, tmp_path, "--host", "127.0.0.2")
    words = capsys.readouterr().err
    assert "any host name are answered" in words and "can be read by other accounts" in words
