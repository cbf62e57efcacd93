"""A small client of the studio's API, standard library only.

    studio = Client("http://localhost:8765", token="hk_…")          # or .login(name, password)
    project = studio.create_project("helpful", "compare", overlap=2)
    studio.add_items(project["id"], [{"prompt": "Hi", "completions": ["Hello.", "Yo"]}])
    for task in studio.tasks(project["id"]):
        studio.submit(task, {"preference": -1})

One client belongs to one thread. A request that may have been lost is sent again: actions carry an id of their own, so
they happen once.
"""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

Json = dict[str, Any]
RETRIES = 5
IDLE_SECONDS = 3.0  # servers close what was idle for five: a call on such a connection would be lost
MOST_ITEMS = 200
ACTIONS = ("submit", "skip", "unsafe", "undo", "draft", "next", "renew", "leave", "items", "import")


class StudioError(Exception):
    """An answer that says no: `status`, `code`, `message`, `hint` as the API gave them."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        self.status, self.code, self.message, self.hint = status, code, message, hint
        super().__init__(f"{status} {code}: {message} {hint}".strip())


class Client:
    """One caller: by token, by login, or alone in single-user mode."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        assert parts.scheme in ("http", "https") and parts.hostname, f"{url} is no http address"
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._used = 0.0
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def login(self, name: str, password: str) -> Json:
        return self._sign_in("/api/login", {"name": name, "password": password})

    def join(self, invitation: str, name: str, password: str, group: Mapping[str, str] | None = None) -> Json:
        """Makes an account with an invitation's token, consenting to what `look_at_invitation` shows."""
        return self._sign_in("/api/join", {"invitation": invitation, "name": name, "password": password, "consent": True,
                                           "group": dict(group or {})})

    def _sign_in(self, path: str, body: Json) -> Json:
        answer: Json = self.call("POST", path, body)
        self._headers["X-Harken-CSRF"] = answer["csrf"]
        return answer

    def me(self) -> Json:
        """Who is calling; where single-user mode needs no login, this makes changes possible."""
        answer: Json = self.call("GET", "/api/me")
        if answer["csrf"]:
            self._headers["X-Harken-CSRF"] = answer["csrf"]
        return answer

    def create_project(self, name: str, kind: str, **settings: Any) -> Json:
        return dict(self.call("POST", "/api/projects", {"name": name, "kind": kind, **settings}))

    def add_items(self, project: int, items: Iterable[Mapping[str, Any]]) -> int:
        """Adds items a few hundred at a time; returns how many were new."""
        batch: list[Mapping[str, Any]] = []
        added = 0
        for item in items:
            batch.append(item)
            if len(batch) == MOST_ITEMS:
                added += self._add(project, batch)
                batch = []
        return added + (self._add(project, batch) if batch else 0)

    def _add(self, project: int, batch: Sequence[Mapping[str, Any]]) -> int:
        lines = "".join(json.dumps(item) + "\n" for item in batch).encode()
        return int(self.call("POST", f"/api/projects/{project}/import", lines)["added"])

    def import_judgments(self, rows: Iterable[Mapping[str, Any]]) -> Json:
        """Stores comparisons or demonstrations that people gave elsewhere: for snapshots, asked of nobody again."""
        return dict(self.call("POST", "/api/judgments/import", "".join(json.dumps(row) + "\n" for row in rows).encode()))

    def order(self, project: int, by: str = "information") -> Json:
        """Puts first what teaches most (`information`), or all in the order of `arrival`."""
        return dict(self.call("POST", f"/api/projects/{project}/order", {"by": by}))

    def next(self, project: int, count: int = 1, have: Sequence[int] = ()) -> Json:
        return dict(self.call("POST", f"/api/projects/{project}/next", {"count": count, "have": list(have)}))

    def tasks(self, project: int, *, ahead: int = 2, wait: float = 0.0) -> Iterator[Json]:
        """Tasks until none is left; waits up to `wait` seconds in all for those that others hold."""
        deadline = time.monotonic() + wait
        held: list[Json] = []
        while True:
            answer = self.next(project, max(1, ahead - len(held)), [t["assignment"] for t in held])
            held += answer["tasks"]
            if held:
                yield held.pop(0)
            elif answer["status"] == "empty" and time.monotonic() < deadline:
                time.sleep(0.2)
            else:
                return

    def submit(self, task: Mapping[str, Any], answer: Mapping[str, Any], *, seconds: float | None = None,
               client_id: str | None = None, ahead: Sequence[int] | None = None) -> Json:
        """Sends an answer. With `ahead` (the assignments still held) the receipt's `next` brings one more task."""
        body = {"client_id": client_id or str(uuid.uuid4()), "answer": dict(answer), "seconds": seconds,
                "form_version": task["form_version"], "instruction_hash": task["instruction_hash"]}
        if ahead is not None:
            body["next"] = {"count": 1, "have": list(ahead)}
        return dict(self.call("POST", f"/api/assignments/{task['assignment']}/submit", body))

    def skip(self, task: Mapping[str, Any], reason: str, note: str = "") -> Json:
        body = {"client_id": str(uuid.uuid4()), "reason": reason, "note": note}
        return dict(self.call("POST", f"/api/assignments/{task['assignment']}/skip", body))

    def undo(self, project: int) -> Json:
        return dict(self.call("POST", f"/api/projects/{project}/undo", {"client_id": str(uuid.uuid4())}))

    def export(self, project: int, what: str, shape: str = "harken") -> list[Json]:
        query = urlencode({"what": what, "shape": shape})
        lines: bytes = self.call("GET", f"/api/projects/{project}/export?{query}")
        return [json.loads(line) for line in lines.decode().split("\n") if line]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Any operation: JSON in, JSON out (bytes for JSON Lines). Raises `StudioError`, or OSError when nobody answers.

        Waits where the studio asks for it (429, 503), and repeats what is safe to repeat.
        """
        repeats = method in ("GET", "PUT", "DELETE") or path.rsplit("/", 1)[-1] in ACTIONS
        for attempt in range(RETRIES):
            try:
                status, headers, data = self._send(method, path, body)
            except (OSError, http.client.HTTPException):
                self._connection.close()
                if not repeats or attempt == RETRIES - 1:
                    raise
                time.sleep(0.1 * 2**attempt)
                continue
            if status in (429, 503) and attempt < RETRIES - 1:
                time.sleep(float(headers.get("retry-after", 1)))
                continue
            break
        if headers.get("content-type", "").startswith("application/x-ndjson"):
            return data
        answer: Any = json.loads(data) if data else None
        if status >= 400:
            error = (answer or {}).get("error", {})
            raise StudioError(status, error.get("code", ""), error.get("message", ""), error.get("hint", ""))
        return answer

    def _send(self, method: str, path: str, body: Any) -> tuple[int, Mapping[str, str], bytes]:
        headers = dict(self._headers)
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/x-ndjson"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._connection.close()  # the next request opens it anew
        self._connection.request(method, path, data, headers)
        response = self._connection.getresponse()
        content = response.read()
        self._used = time.monotonic()
        cookie = response.headers.get("set-cookie", "")
        if cookie.startswith("harken_session="):
            self._headers["Cookie"] = cookie.split(";")[0]
        return response.status, {k.lower(): v for k, v in response.headers.items()}, content

    def close(self) -> None:
        self._connection.close()
