"""SIGKILL to `harken serve` while people judge its answers: is feedback that was acknowledged lost, or stored twice?

    python benchmarks/serve_kills.py                 # 100 kills
    python benchmarks/serve_kills.py --quick         # 5 kills

The model behind it is a stub at an address. Two more servers on the same database stand ready to take over. Clients chat, judge
and, where no answer came, send the same feedback again (same client_id) to the next server, until it is acknowledged. At the end
every acknowledged one must be in the database once, with its value, and `harken audit` must find nothing. Exits with 1 where that
fails.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harken.store.database import open_database


class Stub(BaseHTTPRequestHandler):
    """A model that always says the same."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choices = [{"index": i, "message": {"role": "assistant", "content": f"Yes {i}."}, "finish_reason": "stop"}
                   for i in range(asked.get("n") or 1)]
        if asked.get("stream"):
            self._send("text/event-stream", b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in self._chunks(choices))
                       + b"data: [DONE]\n\n")
        else:
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            self._send("application/json", json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "stub",
                                                       "choices": choices, "usage": usage}).encode())

    def _chunks(self, choices: list[dict]) -> list[dict]:
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
        return [{**head, "choices": [{"index": c["index"], "delta": {"content": c["message"]["content"]}, "finish_reason": None}]}
                for c in choices] + [
            {**head, "choices": [{"index": c["index"], "delta": {}, "finish_reason": "stop"}]} for c in choices]

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Load:
    """Clients that never give a feedback up before it is acknowledged."""

    def __init__(self, people: int) -> None:
        self.address, self.stopping = "", False
        self.acknowledged: dict[str, bool] = {}
        self.again = 0
        self.threads = [threading.Thread(target=self.person, args=(n,), daemon=True) for n in range(people)]

    def call(self, path: str, body: dict) -> dict:
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def person(self, n: int) -> None:
        chance, turn = random.Random(n), 0
        while not self.stopping:
            try:
                got = self.call("/v1/chat/completions", {"model": "m", "user": f"u{n}", "messages": [
                    {"role": "user", "content": f"{n} {turn}"}]})
            except (OSError, ValueError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            said = {"id": got["id"], "choice": 0, "token": got["harken"]["feedback"][0], "kind": "thumb",
                    "value": chance.random() < 0.5, "client_id": f"{n}.{turn}"}
            while True:
                try:
                    self.call("/v1/feedback", said)
                    self.acknowledged[said["client_id"]] = said["value"]
                    break
                except urllib.error.HTTPError as error:
                    raise SystemExit(f"feedback was refused: {error.read().decode()}") from None
                except (OSError, ValueError, http.client.HTTPException):
                    self.again += 1
                    time.sleep(0.02)
            turn += 1


def start(db: Path, stub: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "harken", "serve", "--model", f"m=http://127.0.0.1:{stub}/v1#stub", "--db", str(db),
               "--port", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def address_of(process: subprocess.Popen) -> str:
    """Where it answers, once it does."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if ": " not in line:
        raise SystemExit(f"A server ended at its start, status {process.wait()}.")
    return line.split(": ", 1)[1].strip().removesuffix("/v1").replace("localhost", "127.0.0.1")


def killed(load: Load, db: Path, stub: int, kills: int, until: float, chance: random.Random) -> int:
    """Kills the server in use, again and again; the next one was started before, on the same database. Returns how often."""
    running = [start(db, stub) for _ in range(3)]
    load.address = address_of(running[0])
    done = 0
    while done < kills and time.monotonic() < until:
        seen = len(load.acknowledged)
        while len(load.acknowledged) == seen:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.1))
        dying = running.pop(0)
        dying.send_signal(signal.SIGKILL)
        load.address = address_of(running[0])
        running.append(start(db, stub))
        dying.wait()
        done += 1
    load.stopping = True
    for thread in load.threads:
        thread.join(60)
    for process in running:
        process.terminate()
        process.wait()
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=60, help="stop after so long, and say how many kills it were")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    kills = 5 if args.quick else args.kills
    stub = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    load = Load(args.people)
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "feedback.db"
        open_database(db).close()
        for thread in load.threads:
            thread.start()
        kills = killed(load, db, stub.server_port, kills, time.monotonic() + 60 * args.minutes, random.Random(0))
        with open_database(db, create=False) as opened:
            rows = [(j.labeler, j.payload["label"]) for j in opened.judgments()]
        audit = subprocess.run([sys.executable, "-m", "harken", "audit", "--db", str(db)], capture_output=True, text=True)
    given = Counter((f"me/u{name.split('.')[0]}", value) for name, value in load.acknowledged.items())
    stored = Counter(rows)
    result = {"kills": kills, "acknowledged": sum(given.values()), "stored": sum(stored.values()), "sent_again": load.again,
              "lost": sum((given - stored).values()), "doubled": sum((stored - given).values()), "audit": audit.returncode}
    print(json.dumps(result))
    with contextlib.suppress(OSError):
        stub.shutdown()
    return int(bool(result["lost"] or result["doubled"] or audit.returncode))


if __name__ == "__main__":
    sys.exit(main())
