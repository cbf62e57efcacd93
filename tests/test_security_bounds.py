"""What a security review of the studio found, each fault with its kind: what fills memory, disk or connections."""

import gzip
import json
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harken.core.errors import UserError
from harken.studio.app import Studio, create_app
from harken.studio.work import uploads
from harken.web import patience
from security_site import request
from studio_site import new_site, open_template


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
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
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


HEALTH = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n"
LOGIN = b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = LOGIN + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
WISHES = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"  # as Java's client sends


def statuses(address, sent):
    """The status and message of each answer to these bytes, and whether the server closed."""
    with socket.create_connection(address) as connection:
        connection.settimeout(0.3)
        received, closed = b"", False
        try:
            connection.sendall(sent)
            while part := connection.recv(65536):
                received += part
            closed = True
        except TimeoutError:
            pass
        except OSError:  # reset: it closed while more was on its way
            closed = True
        return [(int(code), *re.findall(rb'"message": "(.*?)"', text)) for code, text in
                re.findall(rb"HTTP/1\.1 (\d+)(.*?)(?=HTTP/1|$)", received, re.DOTALL)], closed


REFUSED = {
    "no host": b"GET /api/health HTTP/1.1\r\n\r\n",
    "two hosts": HEALTH + b"Host: evil.example\r\n\r\n",
    "another host in the address": b"GET http://evil.example/api/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two lengths": LOGIN + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": LOGIN + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": HEALTH + b"X : a\r\n\r\n",
    "nul": HEALTH + b"X: a\0b\r\n\r\n",
    "folded": HEALTH + b"X: a\r\n b\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "connect with a path": b"CONNECT /a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long header": HEALTH + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
    "many headers": HEALTH + b"X: aaaaaaaa\r\n" * 40_000 + b"\r\n",
    "header without end": HEALTH + b"X: " + b"a" * 400_000,
    "long address": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "trailer without end": CHUNKED + b"X: " + b"a" * 400_000,
    "chunk's extension without end": LOGIN + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"a" * 400_000,
    "a thousand at once": (HEALTH + b"\r\n") * 1000,
}


def test_what_no_honest_client_sends_is_refused_and_the_connection_closed(tmp_path):
    with open_template(tmp_path) as db, patient(db, 20) as address:
        for name, sent in REFUSED.items():
            codes, closed = statuses(address, sent)
            assert (closed and codes in ([(400,)], [])) or (name == "a thousand at once" and len(codes) < 20 and closed), name
        assert statuses(address, (HEALTH + b"\r\n") * 3) == ([(200,)] * 3, False)
        assert statuses(address, HEALTH + b"X: " + b"a" * 30_000 + b"\r\n\r\n") == ([(200,)], False)


def test_who_asks_for_another_protocol_is_answered_in_this_one_body_and_all(tmp_path):
    with open_template(tmp_path) as db, patient(db, 20) as address:
        body = b'{"name": "a", "password": "wrong", "padding": "' + b"a" * 3000 + b'"}'
        plain = LOGIN + b"Content-Length: %d\r\n" % len(body)
        expected, _ = statuses(address, plain + b"\r\n" + body)
        assert expected != statuses(address, LOGIN + b"Content-Length: 0\r\n\r\n")[0]
        for times in (1, 2):
            assert statuses(address, (plain + WISHES + b"\r\n" + body) * times) == (expected * times, False)
        assert statuses(address, HEALTH + WISHES + b"\r\n") == ([(200,)], False)


def test_a_trailer_is_no_header(tmp_path):
    with open_template(tmp_path) as db, patient(db, 20) as address:
        assert statuses(address, CHUNKED + b"Host: evil.example\r\n\r\n") == statuses(address, CHUNKED + b"\r\n")


def test_there_are_never_more_connections_than_the_bound(tmp_path):
    with open_template(tmp_path) as db, patient(db, 20, most=5) as address:
        held = [socket.create_connection(address) for _ in range(6)]
        time.sleep(0.2)
        assert request(f"http://127.0.0.1:{address[1]}", "GET", "/api/health").status == 503
        for connection in held:
            connection.close()
        time.sleep(0.2)
        assert request(f"http://127.0.0.1:{address[1]}", "GET", "/api/health").status == 200
