"""Getting in and fitting in: sign-on, webhooks, crowd platforms, object stores, proxies and sub-paths."""

import base64
import hashlib
import hmac
import http.client
import http.cookiejar
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harken.cli.main import main
from harken.store import audit, events
from harken.store.database import open_database
from harken.store.remote import fetched
from harken.studio.client import StudioError
from harken.studio.work.hooks import Hooks, signature
from harken.web.sso import Provider
from studio_site import FREE, Clock, Desk, make_user, new_site, open_template, served

slow = pytest.mark.slow


@pytest.fixture
def site(tmp_path):
    with new_site(tmp_path) as made:
        yield made


# Single sign-on


def browser():
    """What a browser does: cookies and redirects."""
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))


def page(opener, address):
    try:
        with opener.open(address, timeout=20) as answer:
            return answer.status, answer.url, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.url, error.read().decode()


@contextmanager
def signed_on(tmp_path, **options):
    pytest.importorskip("authlib")
    from oidc_provider import CLIENT, SECRET, provider
    with provider() as idp, open_template(tmp_path) as db:
        make_user(db)
        with served(db, provider=Provider(idp.url, CLIENT, SECRET, **options), limits=FREE) as (url, studio):
            yield idp, url, studio, db


def names(db):
    with db.link.reading() as tx:
        return [tuple(row) for row in tx.exec_driver_sql("SELECT name, role, subject IS NOT NULL FROM users ORDER BY id")]


def test_somebody_signs_on_gets_an_account_once_and_goes_where_they_wanted(tmp_path):
    with signed_on(tmp_path, domains=("example.org",), leads=("BOSS@example.org",)) as (idp, url, _, db):
        own = browser()
        status, where, words = page(own, f"{url}/login/sso?next=/account")
        assert status == 200 and where == f"{url}/account" and "<h1>ada</h1>" in words
        assert page(browser(), f"{url}/login/sso")[0] == 200, "again, from another browser: the same account"
        idp.person |= {"sub": "u-2", "email": "boss@example.org"}
        page(browser(), f"{url}/login/sso")
        assert names(db) == [("lead", "lead", 0), ("ada", "labeler", 1), ("ada 2", "lead", 1)]
        idp.person |= {"sub": "u-3", "email": "eve@elsewhere.org"}
        status, _, words = page(browser(), f"{url}/login/sso")
        assert status == 403 and "none of those that may come in" in words and len(names(db)) == 3
        idp.person |= {"email": "eve@example.org", "email_verified": False}
        assert page(browser(), f"{url}/login/sso")[0] == 403, "an address that nobody verified is no address"
        with db.link.reading() as tx:
            assert audit.check(tx).problems == ()


@pytest.mark.parametrize("claims", [{"nonce": "other"}, {"aud": "somebody"}, {"iss": "https://evil"}, {"exp": 1}, {"sub": None}])
def test_a_token_that_was_not_meant_for_this_login_lets_nobody_in(tmp_path, claims):
    with signed_on(tmp_path) as (idp, url, _, db):
        idp.claims = claims
        assert page(browser(), f"{url}/login/sso")[0] == 401 and len(names(db)) == 1


def test_a_foreign_key_another_browser_and_a_disabled_account_let_nobody_in(tmp_path):
    from joserfc.jwk import RSAKey
    with signed_on(tmp_path) as (idp, url, _, db):
        idp.signer = RSAKey.generate_key(2048, {"kid": "k1"})
        assert page(browser(), f"{url}/login/sso")[0] == 401
        idp.signer = None

        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_):
                return None

        mine = urllib.request.build_opener(Stay, urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        with pytest.raises(urllib.error.HTTPError) as away:
            mine.open(f"{url}/login/sso")
        with pytest.raises(urllib.error.HTTPError) as home:
            mine.open(away.value.headers["Location"])
        back = home.value.headers["Location"]
        assert page(browser(), back)[0] == 401, "sent to somebody else, the address signs nobody in"
        assert page(mine, back)[0] in (303, 200) and page(mine, back)[0] == 401, "and it works once"
        with db.link.writing() as tx:
            tx.exec_driver_sql("UPDATE users SET state = 'disabled' WHERE name = 'ada'")
        assert page(browser(), f"{url}/login/sso")[0] == 404


# Webhooks


@contextmanager
def receiver(status=200):
    """An HTTP server that keeps what it is sent, and answers with `said["status"]`."""
    said = {"status": status, "got": []}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            said["got"].append((dict(self.headers), body))
            self.send_response(said["status"])
            if said["status"] == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", said
    finally:
        server.shutdown()
        server.server_close()


class Quiet:
    """A site for deliveries alone: a database, its writer, a clock that jumps."""

    def __init__(self, db):
        from harken.web.writer import Writer
        self.db, self.writer, self.clock = db, Writer(db.link), Clock()


def test_webhooks_are_signed_in_order_retried_and_lose_nothing(tmp_path):
    from harken.studio.work.hooks import add_webhook
    with open_template(tmp_path) as db, receiver(500) as (url, said):
        desk, site = Desk(db, n=3), Quiet(db)
        with db.link.writing() as tx:
            number, secret = add_webhook(tx, url, ["submit", "undo"], desk.project, 1, site.clock())
        for task in desk.claim("ana", 3):
            desk.submit("ana", task, answer={"preference": 1, "notes": "private words"})
        hooks = Hooks(site)
        assert hooks.deliver() == 0 and len(said["got"]) == 1, "the first was refused: the others wait behind it"
        assert hooks.deliver() == 0 and len(said["got"]) == 1, "not before its time"
        with db.link.reading() as tx:
            assert tuple(tx.exec_driver_sql("SELECT tries, problem FROM webhooks").one()) == (1, "answered 500")
        said["status"], said["got"] = 200, []
        site.clock.pass_(seconds=6)
        assert hooks.deliver() == 3 and hooks.deliver() == 0
        bodies = [json.loads(body) for _, body in said["got"]]
        assert [b["type"] for b in bodies] == ["submit"] * 3
        assert [b["data"]["judgment"] for b in bodies] == [1, 2, 3] and not any(b"private" in body for _, body in said["got"])
        for headers, body in said["got"]:  # by hand, as a receiver of Standard Webhooks does it
            lower = {k.lower(): v for k, v in headers.items()}
            signed = f"{lower['webhook-id']}.{lower['webhook-timestamp']}.".encode() + body
            key = base64.b64decode(secret.removeprefix("whsec_"))
            assert lower["webhook-signature"] == "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        said["status"] = 302
        desk.undo("ana")
        assert hooks.deliver() == 0 and len(said["got"]) == 4, "a redirect is not followed"
        site.writer.close()
        assert number == 1


def test_a_receiver_that_hangs_one_that_speaks_no_http_and_a_lost_database_stop_no_other(tmp_path, monkeypatch):
    import asyncio

    from harken.store.connection import StorageError
    from harken.studio.work import hooks as module
    monkeypatch.setattr(module, "EVERY", 0.02)
    monkeypatch.setattr(module, "SECONDS", 1)
    with open_template(tmp_path) as db, receiver() as (url, said), socket.create_server(("127.0.0.1", 0)) as hanging, \
            socket.create_server(("127.0.0.1", 0)) as odd:
        def babble():
            caller, _ = odd.accept()
            with caller:
                caller.recv(4096)
                caller.sendall(b"hello, this is no HTTP\r\n\r\n")
        threading.Thread(target=babble, daemon=True).start()
        desk, site = Desk(db, n=2), Quiet(db)
        site.slow = asyncio.to_thread
        with db.link.writing() as tx:
            for address in (f"http://127.0.0.1:{hanging.getsockname()[1]}/", f"http://127.0.0.1:{odd.getsockname()[1]}/", url):
                module.add_webhook(tx, address, ["submit"], desk.project, 1, site.clock())
        for task in desk.claim("ana", 2):
            desk.submit("ana", task)
        hooks, lost = module.Hooks(site), []
        due = hooks._due

        def first_lost():
            if not lost:
                lost.append(True)
                raise StorageError("The database cannot be reached.", "Wait.")
            return due()
        hooks._due = first_lost

        async def turn():
            running = asyncio.create_task(hooks.run())
            for _ in range(500):
                await asyncio.sleep(0.01)
                with db.link.reading() as tx:
                    problems = list(tx.exec_driver_sql("SELECT problem FROM webhooks ORDER BY id").scalars())
                if len(said["got"]) == 2 and problems[1]:
                    break
            running.cancel()
            return problems
        assert asyncio.run(turn())[1] == "not reached (BadStatusLine)" and lost
        assert [json.loads(body)["data"]["judgment"] for _, body in said["got"]] == [1, 2]
        for _ in range(300):  # the one that hung is given up, and the writer still stands
            if not hooks._busy:
                break
            threading.Event().wait(0.01)
        site.writer.close()


def test_the_signature_of_the_standard():
    """The example of Standard Webhooks 1.0's own test vectors."""
    said = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert said == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_goes_out_by_https_and_only_where_a_lead_says(site):
    for url, words in (
        ("http://example.org/x", "https only"),
        ("ftp://example.org", "no address"),
        ("https://u:p@example.org", "no address"),
    ):
        with pytest.raises(StudioError, match=words):
            site.lead.call("POST", "/api/webhooks", {"url": url, "kinds": ["submit"]})
    made = site.lead.call("POST", "/api/webhooks", {"url": "https://example.org/x", "kinds": ["submit"], "project": site.open})
    (shown,) = site.lead.call("GET", "/api/webhooks")["items"]
    assert made["secret"].startswith("whsec_") and "secret" not in shown
    site.lead.call("DELETE", f"/api/webhooks/{made['id']}")
    assert site.lead.call("GET", "/api/webhooks")["items"] == []


# Crowd platforms


def test_a_participant_comes_by_the_link_answers_and_gets_the_code(site):
    made = site.lead.call("POST", f"/api/projects/{site.open}/crowds", {"code": "C1X9", "answers": 2})
    path, _, query = made["url"].partition("?")
    assert query == "PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}"
    status, _, words = page(browser(), f"{site.url}{path}?PROLIFIC_PID=5f3&STUDY_ID=s1")
    assert status == 200 and "You come as 5f3" in words
    assert "The link is not whole" in page(browser(), site.url + path)[2]

    def join(participant):
        connection = http.client.HTTPConnection(site.url.split("//")[1])
        body = json.dumps(
            {"link": path.rpartition("/")[2], "participant": participant, "extra": {"STUDY_ID": "s1"}, "consent": True}
        )
        connection.request("POST", "/api/crowd/join", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return json.loads(answer.read())["user"]

    user = join("5f3")
    assert join("5f3") == user and join("6a1")["id"] != user["id"] and user["name"].startswith("p-")
    person = in_session_of(site, user["name"])
    listed = [p["name"] for p in person.call("GET", "/api/projects")["items"]]
    assert listed == ["open"], "another project, though open to all labelers, is none of theirs"
    other = site.lead.create_project("other", "compare")["id"]
    with pytest.raises(StudioError, match="no such project"):
        person.next(other)
    for n, task in enumerate(person.next(site.open, 2)["tasks"]):
        assert person.call("POST", f"/api/projects/{site.open}/completion", {})["code"] is None, n
        person.submit(task, {"preference": 1})
    done = person.call("POST", f"/api/projects/{site.open}/completion", {})
    assert done["code"] == "C1X9" and done["url"] == "https://app.prolific.com/submissions/complete?cc=C1X9"
    rows = site.lead.call("GET", f"/api/projects/{site.open}/participants")["items"]
    assert [(r["participant"], r["extra"], r["answers"], r["completed_at"] is not None) for r in rows] == [
        ("5f3", {"STUDY_ID": "s1"}, 2, True), ("6a1", {"STUDY_ID": "s1"}, 0, False)]
    (link,) = site.lead.call("GET", f"/api/projects/{site.open}/crowds")["items"]
    assert (link["participants"], link["completed"]) == (2, 1)
    site.lead.call("DELETE", f"/api/crowds/{link['id']}")
    assert page(browser(), f"{site.url}{path}?PROLIFIC_PID=7")[0] == 404
    with site.db.link.reading() as tx:
        assert audit.check(tx).problems == () and events.end(tx)[0] > 0


def in_session_of(site, name):
    from datetime import UTC, datetime

    from harken.store.studio_schema import users
    from harken.studio.client import Client
    from harken.web import accounts
    with site.db.link.writing() as tx:
        row = tx.execute(users.select().where(users.c.name == name)).one()
        secret, csrf = accounts.start_session(tx, accounts.as_user(row), datetime.now(UTC))
    client = Client(site.url)
    client._headers |= {"Cookie": f"harken_session={secret}", "X-Harken-CSRF": csrf}
    return client


# Object stores


def test_files_come_from_and_go_to_an_object_store(tmp_path, capsys):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    row = {"prompt": "Hi", "completions": ["Hello.", "Yo"], "ranks": [1, 2], "labeler": "ana"}
    with store.open("/bucket/pairs.jsonl", "wb") as out:
        out.write(json.dumps(row).encode() + b"\n")
    db = str(tmp_path / "f.db")
    assert main(["import", "memory://bucket/pairs.jsonl", "--db", db]) == 0
    assert main(["ask", "memory://bucket/pairs.jsonl", "--project", "p", "--kind", "compare", "--db", db]) == 0
    assert main(["export", "comparisons", "--db", db, "--out", "memory://bucket/out.jsonl"]) == 0
    assert json.loads(store.cat("/bucket/out.jsonl")) == row
    assert "memory://bucket/out.jsonl" in capsys.readouterr().out
    assert main(["import", "memory://bucket/missing.jsonl", "--db", db]) == 2
    assert "There is no memory://bucket/missing.jsonl" in capsys.readouterr().err
    assert main(["import", "nosuch://bucket/x.jsonl", "--db", db]) == 2
    assert fetched("memory://bucket/pairs.jsonl").read_text() == json.dumps(row) + "\n"
    with open_database(db) as made:
        assert len(list(made.comparisons())) == 1


# Proxies and sub-paths: cases 27 and 28


@contextmanager
def proxy(upstream, *, strip="", host=None):
    """A reverse proxy that takes a prefix off the path, or not, and sends another Host on, as nginx does by default."""
    address = upstream.split("//")[1]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def forward(self):
            length = int(self.headers.get("Content-Length", 0))
            connection = http.client.HTTPConnection(address, timeout=20)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            headers |= {"Host": host or address, "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
            path = self.path.removeprefix(strip) or "/"
            connection.request(self.command, path, self.rfile.read(length) if length else None, headers)
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("strip", ["/harken", ""])
def test_case_27_every_address_of_a_page_lies_below_the_path(tmp_path, strip):
    with open_template(tmp_path) as db:
        make_user(db)
        with served(db, base="/harken", hosts=None, limits=FREE) as (url, _), proxy(url, strip=strip) as outside:
            status, where, words = page(browser(), f"{outside}/harken/account")
            assert status == 200 and where == f"{outside}/harken/login?next=/account"
            addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', words)
            assert addresses and all(a.startswith("/harken/") for a in addresses), addresses
            style = next(a for a in addresses if a.endswith(".css"))
            assert page(browser(), outside + style)[0] == 200
            request = urllib.request.Request(
                f"{outside}/harken/api/login",
                json.dumps({"name": "lead", "password": "correct horse battery"}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert "Path=/harken" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(("host", "origin", "works"), [
    (None, "https://studio.example.org", True), ("studio.example.org", "https://studio.example.org:8443", True),
    ("studio.example.org:8443", "https://studio.example.org:8443", True), (None, "https://evil.example.org", False),
    (None, "http://localhost:9999", False)])
def test_case_28_a_login_through_a_proxy_that_changes_the_host(tmp_path, host, origin, works):
    names = ("studio.example.org",)
    with open_template(tmp_path) as db:
        make_user(db)
        with served(db, hosts=("localhost", "127.0.0.1", *names), public_names=names, limits=FREE) as (url, _), \
                proxy(url, host=host) as outside:
            body = json.dumps({"name": "lead", "password": "wrong password here"}).encode()
            request = urllib.request.Request(f"{outside}/api/login", body, {"Content-Type": "application/json", "Origin": origin,
                                                                          "Sec-Fetch-Site": "same-origin"})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=30)
            said = json.loads(refused.value.read())["error"]
            assert said["code"] == ("bad_login" if works else "origin")
            assert works or "--public-name" in said["hint"]


@slow
def test_the_nginx_configuration_of_the_docs_serves_a_path(tmp_path):
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if nginx is None:
        pytest.skip("no nginx is installed: apt-get install nginx-light")
    block = (Path(__file__).parents[1] / "deploy" / "nginx-path.conf").read_text(encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open_template(tmp_path) as db:
        make_user(db)
        with served(db, base="/harken", hosts=None, public_names=("127.0.0.1",), limits=FREE) as (url, _):
            block = block.replace("http://127.0.0.1:8765", url)
            config = tmp_path / "nginx.conf"
            config.write_text(
                f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}} http {{ access_log off; "
                f"client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p; fastcgi_temp_path {tmp_path}/f; "
                f"uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s; server {{ listen 127.0.0.1:{port}; {block} }} }}"
            )
            server = subprocess.Popen([nginx, "-c", config, "-p", tmp_path], stderr=subprocess.DEVNULL)
            try:
                outside = f"http://127.0.0.1:{port}"
                for _ in range(200):
                    with suppress(OSError):
                        socket.create_connection(("127.0.0.1", port), 0.2).close()
                        break
                    time.sleep(0.05)
                assert page(browser(), f"{outside}/harken/account")[1] == f"{outside}/harken/login?next=/account"
                request = urllib.request.Request(
                    f"{outside}/harken/api/login",
                    b'{"name": "lead", "password": "correct horse battery"}',
                    {"Content-Type": "application/json", "Origin": outside},
                )
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.status == 200
            finally:
                server.terminate()
                server.wait(10)


