"""`harken watch`: a page on loopback whose curves grow with a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import harken
from harken.report.live import create_app
from studio_browser import chromium


def begin(folder: Path, rows: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"command": "train rloo", "seed": 0}))
    lines = [json.dumps({"step": i, "reward": i / 2, "seconds": i}) + "\n" for i in range(1, rows)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def test_the_page_and_its_curves(tmp_path):
    client = TestClient(create_app([begin(tmp_path / "a<b>", 5), tmp_path / "later"]), base_url="http://localhost")
    assert "live.js" in client.get("/").text and client.get("/live.js").status_code == 200
    reply = client.get("/curves")
    assert "a&lt;b&gt;" in reply.text and "<polyline" in reply.text and "Waiting for" in reply.text
    assert reply.headers["x-status"].startswith("1 of 1 running, step 4")
    (tmp_path / "a<b>/result.json").write_text("{}")
    assert client.get("/curves").headers["x-status"] == "Finished."
    assert TestClient(create_app([tmp_path]), base_url="http://evil.example").get("/").status_code == 400


@pytest.mark.slow
def test_a_running_runs_curve_grows_in_chromium(tmp_path):
    run = begin(tmp_path / "run", 4)
    environment = {**os.environ, "PYTHONPATH": str(Path(harken.__file__).parents[1])}
    server = subprocess.Popen([sys.executable, "-m", "harken", "watch", str(run), "--port", "0"], stdout=subprocess.PIPE,
                              text=True, env=environment)
    try:
        address = server.stdout.readline().split()[1]
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 390, "height": 800})
            problems: list[str] = []
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.goto(address)
            page.wait_for_selector("#curves svg.plot polyline")
            before = page.locator("#curves figure strong").first.inner_text()
            begin(run, 40)
            page.wait_for_function("value => document.querySelector('#curves figure strong').innerText !== value", arg=before)
            assert "step 39" in page.locator("#status").inner_text()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390 and not problems
    finally:
        server.terminate()
        server.wait()
