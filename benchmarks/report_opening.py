"""How long a report of 50,000 samples takes to make, to open, to search and to sort.

    python benchmarks/report_opening.py [--quick] [--samples 50000] [--chromium /usr/bin/chromium]

Two models answer every prompt: prompts of about 40 words, answers of about 60, drawn from a vocabulary of 5,000 made-up words.
Opening is measured in headless Chromium, by the page's own clock, from the start of navigation until the first sample is shown;
the median of the tries. `read_s` is when all samples are in (DOMContentLoaded), `cpu_s` the processor time of all of Chromium's
processes until then: what a loaded machine changes least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from harken.report.build import build_report

READY = "html[data-ready=yes] #b-item .words"
WATCH = """new MutationObserver(() => { if (document.documentElement?.dataset.ready) window.readyAt ??= performance.now(); })
  .observe(document, {attributes: true, subtree: true, attributeFilter: ["data-ready"]});"""


def make_runs(folder: Path, n: int) -> list[Path]:
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(2, 11))) for _ in range(5000)]
    weights = 1 / np.arange(1, 5001)
    weights /= weights.sum()

    def texts(length: int) -> list[str]:
        drawn = rng.choice(5000, (n, length), p=weights)
        return [" ".join(words[i] for i in row) for row in drawn]
    prompts, runs = texts(40), []
    for name in ("one", "two"):
        scores = rng.random(n).round(4)
        rows = [{"item": p, "prompt": p, "answer": a, "score": None if i % 97 == 0 else float(s), "topic": f"topic {i % 12}"}
                for i, (p, a, s) in enumerate(zip(prompts, texts(60), scores))]
        run = folder / name
        run.mkdir()
        (run / "config.json").write_text(json.dumps({"command": "eval truthful", "model": name}))
        (run / "result.json").write_text(json.dumps({
            "name": "truthful", "better": "higher", "samples": rows, "missing": 1,
            "value": {"value": 0.5, "low": 0.49, "high": 0.51, "n": n, "level": 0.95}}))
        runs.append(run)
    return runs


def cpu(session) -> float:
    return sum(p["cpuTime"] for p in session.send("SystemInfo.getProcessInfo")["processInfo"])


def measure(page_file: Path, tries: int, chromium: str) -> dict[str, float]:
    times: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        times.setdefault(name, []).append(seconds)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        session = browser.new_browser_cdp_session()
        for _ in range(tries):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.add_init_script(WATCH)
            page.goto("about:blank")
            before = cpu(session)
            page.goto(page_file.as_uri(), wait_until="load")
            page.wait_for_selector(READY)
            note("opened_s", page.evaluate("window.readyAt") / 1000)
            note("read_s", page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") / 1000)
            note("cpu_s", cpu(session) - before)
            start = time.perf_counter()
            page.locator("#b-order").select_option("apart")
            page.wait_for_selector("#b-row-0")
            note("sorted_s", time.perf_counter() - start)
            start = time.perf_counter()
            page.locator("#b-find").fill("qqqq no such words")
            page.wait_for_selector(".row.none", timeout=60_000)
            note("searched_s", time.perf_counter() - start)
            page.close()
        browser.close()
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="5,000 samples, opened once")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    n, tries = (5_000, 1) if args.quick else (args.samples, args.tries)
    with tempfile.TemporaryDirectory() as folder:
        runs = make_runs(Path(folder), n)
        start = time.perf_counter()
        out = build_report(runs, Path(folder) / "report.html")
        made = time.perf_counter() - start
        found = {"samples": n, "made_s": made, "megabytes": out.stat().st_size / 1e6, **measure(out, tries, args.chromium)}
    print(json.dumps({k: round(v, 2) for k, v in found.items()}))


if __name__ == "__main__":
    main()
