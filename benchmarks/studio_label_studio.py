"""The studio's load on Label Studio's community edition: how many annotations a second it stores, and how long they take.

    pip install label-studio && python benchmarks/studio_label_studio.py

Starts `label-studio` with SQLite on loopback (a temporary folder, no network needed), makes one project of pairs with overlap 2,
as our compares are, and lets 8, then 32 users ask for their next task and submit an annotation through its REST API, each
with a token of their own. One answer is two requests, as on its own pages; ours is one (`studio_load.py`).
"""

from __future__ import annotations

import argparse
import http.cookiejar
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

TOKEN = "0123456789abcdef0123456789abcdef01234567"
CONFIG = """<View><Text name="p" value="$prompt"/><Text name="a" value="$a"/><Text name="b" value="$b"/>
<Choices name="better" toName="p"><Choice value="a"/><Choice value="b"/></Choices></View>"""
PASSWORD = "correct horse battery 1"
PORT = 18_099


def call(url: str, method: str, path: str, body: object = None, token: str = TOKEN) -> object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json", "Authorization": f"Token {token}"},
                                     method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def start(program: str, folder: Path) -> tuple[subprocess.Popen, str]:
    env = os.environ | {"LATEST_VERSION_CHECK": "false", "COLLECT_ANALYTICS": "false", "SENTRY_DSN": "",
                        "FRONTEND_SENTRY_DSN": "", "DEBUG": "false"}
    command = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(PORT), "--data-dir", str(folder),
               "--username", "lead@example.com", "--password", PASSWORD, "--user-token", TOKEN, "--enable-legacy-api-token",
               "--log-level", "ERROR"]
    server = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=(folder / "log").open("w"),
                              stderr=subprocess.STDOUT)
    url, deadline = f"http://127.0.0.1:{PORT}", time.time() + 300
    while time.time() < deadline and server.poll() is None:
        try:
            call(url, "GET", "/api/version")
            return server, url
        except (OSError, urllib.error.URLError):
            time.sleep(1)
    raise SystemExit(f"Label Studio did not start:\n{(folder / 'log').read_text()[-1500:]}")


def join(url: str, invitation: str, user: str) -> str:
    """Signs up by the lead's invitation, as on its page; returns the user's token."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    opener.open(url + invitation, timeout=60).read()
    csrf = next(c.value for c in jar if c.name == "csrftoken")
    form = urllib.parse.urlencode({"email": user, "password": PASSWORD, "csrfmiddlewaretoken": csrf})
    opener.open(urllib.request.Request(url + invitation, form.encode(), {"Referer": url}), timeout=60).read()
    return json.loads(opener.open(f"{url}/api/current-user/token", timeout=60).read())["token"]


def work(url: str, project: int, token: str, deadline: float, waited: list[float], faults: list[str]) -> None:
    """One user: the next task, an annotation, and again until time is up or nothing is left."""
    result = [{"from_name": "better", "to_name": "p", "type": "choices", "value": {"choices": ["a"]}}]
    while time.time() < deadline:
        started = time.perf_counter()
        try:
            task = call(url, "GET", f"/api/projects/{project}/next", token=token)
            call(url, "POST", f"/api/tasks/{task['id']}/annotations/", {"result": result, "lead_time": 12.5}, token=token)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return
            faults.append(f"{error.code}")
            continue
        except OSError as error:
            faults.append(type(error).__name__)
            continue
        waited.append(time.perf_counter() - started)


def run(url: str, users: int, tokens: list[str], items: int, seconds: float) -> dict[str, object]:
    project = call(url, "POST", "/api/projects", {"title": f"load {users}", "label_config": CONFIG, "maximum_annotations": 2,
                                                  "overlap_cohort_percentage": 100})["id"]
    tasks = [{"data": {"prompt": f"{n}: what is best?", "a": "this one " * 20, "b": "that one " * 20}} for n in range(items)]
    for at in range(0, items, 250):
        call(url, "POST", f"/api/projects/{project}/import", tasks[at:at + 250])
    waited: list[float] = []
    faults: list[str] = []
    began = time.time()
    threads = [threading.Thread(target=work, args=(url, project, token, began + seconds, waited, faults))
               for token in tokens[:users]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.time() - began
    found = call(url, "GET", f"/api/projects/{project}")
    counts = [t["total_annotations"] for page in range(1, items // 100 + 1)
              for t in call(url, "GET", f"/api/tasks?project={project}&page={page}&page_size=100")["tasks"]]
    waited.sort()
    at = lambda share: round(1000 * waited[min(len(waited) - 1, int(share * len(waited)))]) if waited else None  # noqa: E731
    return {"users": users, "submits_per_s": round(len(waited) / took, 1), "submits": len(waited), "p50_ms": at(0.5),
            "p95_ms": at(0.95), "faults": {f: faults.count(f) for f in sorted(set(faults))},
            "stored": found["total_annotations_number"], "over_overlap": sum(c > 2 for c in counts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="label-studio", help="its command (default: the one on the path)")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60, help="the longest that one run may take")
    parser.add_argument("--quick", action="store_true", help="100 items, 10 seconds a run")
    args = parser.parse_args()
    if args.quick:
        args.items, args.seconds = 100, 10
    program = shutil.which(args.program)
    if program is None:
        sys.exit("Label Studio is not installed: pip install label-studio (in an environment of its own), then --program PATH.")
    with tempfile.TemporaryDirectory() as folder:
        server, url = start(program, Path(folder))
        try:
            invitation = call(url, "GET", "/api/invite")["invite_url"]
            tokens = [join(url, invitation, f"u{n}@example.com") for n in range(32)]
            version = call(url, "GET", "/api/version")["label-studio-os-package"]["version"]
            found = [run(url, users, tokens, args.items, args.seconds) for users in (8, 32)]
        finally:
            server.terminate()
            server.wait()
    print(json.dumps({"label_studio": version, "items": args.items, "overlap": 2, "runs": found}))


if __name__ == "__main__":
    main()
