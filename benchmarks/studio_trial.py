"""Fifty items of each form by keyboard alone, as a labeler who closed the guide unread: keys and milliseconds an item.

    python benchmarks/studio_trial.py                      50 items of each form
    python benchmarks/studio_trial.py --code /path/to/another/checkout

`wait_ms` is from the key that submits to the next item on screen with the focus in it, the server's part included; `item_ms` is
all of an item, typed as fast as the browser takes keys; `cpu_ms` is what the page's main thread computed for an item, which
other load hardly changes. `--forms` names those that another
checkout has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHOWN = """(before) => { const item = document.querySelector('#stage .task');
    return item && item.innerText !== before && item.contains(document.activeElement)
      && !document.querySelector('dialog[open]') }"""
ENDED = "document.querySelector('#stage .task') === null"


def rated(press: Callable[[str], None]) -> None:
    for digit in "6352":
        press(digit)
        press("Enter")
    for digit in "1324":
        press(digit)
    press("Enter")


def ranked(press: Callable[[str], None]) -> None:
    for digit in "2314":
        press(digit)
    press("Enter")


def asked(press: Callable[[str], None]) -> None:
    for digit in "6262":  # how helpful, how it sounds, of each answer; marks are left out
        press(digit)
    press("Enter")


def compared(press: Callable[[str], None]) -> None:
    press("2")
    press("Enter")


def written(words: str) -> Callable[[Callable[[str], None]], None]:
    def write(press: Callable[[str], None]) -> None:
        for letter in words:
            press("Space" if letter == " " else letter)
        press("Control+Enter")
    return write


def prompts(n: int) -> list[dict[str, Any]]:
    return [{"prompt": f"When do I plant beans? ({i})"} for i in range(n)]


def answers(n: int, k: int) -> list[dict[str, Any]]:
    return [{**p, "completions": [f"Answer {c} to {p['prompt']}: plant them in May, after the last frost." for c in range(k)]}
            for p in prompts(n)]


FORMS: dict[str, tuple[Callable[[int], list[dict[str, Any]]], Callable[[Callable[[str], None]], None]]] = {
    "compare": (lambda n: answers(n, 2), compared),
    "rate_and_rank": (lambda n: answers(n, 4), rated),
    "demonstrate": (prompts, written("In May after the frost.")),
    "edit": (lambda n: [{**p, "original": "Plant beans in May."} for p in prompts(n)], written("Now. ")),
    "write_prompt": (lambda n: [{"ask": {"text": f"Ask about gardens ({i})."}} for i in range(n)], written("When to sow?")),
    "rank": (lambda n: answers(n, 4), ranked),
    "questions": (lambda n: answers(n, 2), asked),
}


def page_seconds(session: Any) -> dict[str, float]:
    """Seconds of CPU that the page's main thread spent so far: all, scripts, styles, layout."""
    found = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    return {"all": found["TaskDuration"], "scripts": found["ScriptDuration"], "styles": found["RecalcStyleDuration"],
            "layout": found["LayoutDuration"]}


def trial(served: Any, watched: Any, kind: str, n: int) -> dict[str, Any]:
    """Answers n items of one form, and looks that all are stored and that the page says so at the end."""
    from studio_browser import read_guide, until
    make, answer = FORMS[kind]
    project = served.project(kind, make(n))
    page = watched.page(viewport={"width": 1280, "height": 720})
    page.goto(f"{served.url}/label/{project}")
    read_guide(page)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # the page's own seconds of CPU, whatever else runs
    spent = page_seconds(session)
    keys, last = 0, 0.0
    waits: list[float] = []
    whole: list[float] = []

    def press(key: str) -> None:
        nonlocal keys, last
        keys += 1
        last = time.perf_counter()
        page.keyboard.press(key)

    for at in range(n):
        last = began = time.perf_counter()
        before = page.evaluate("document.querySelector('#stage .task').innerText")
        answer(press)
        if at + 1 < n:
            until(page, SHOWN, before)
            waits.append(1000 * (time.perf_counter() - last))
            whole.append(1000 * (time.perf_counter() - began))
    until(page, ENDED)
    end = page.locator("#stage").inner_text().split("\n")[0]
    until(page, "n => document.querySelector('#done').textContent.startsWith(`${n} done`)", n)
    for _ in range(200):  # the page moves on before the last answer is on the disk
        stored = len(served.judgments(project))
        if stored == n:
            break
        page.wait_for_timeout(20)
    assert stored == n, f"{kind}: {stored} of {n} stored"
    cpu = {name: round(1000 * (after - spent[name]) / n, 1) for name, after in page_seconds(session).items()}
    page.context.close()
    return {"cpu_ms": cpu,
            "keys": keys / n, "wait_ms": round(statistics.median(waits), 1), "item_ms": round(statistics.median(whole), 1),
            "wait_p95_ms": round(sorted(waits)[int(0.95 * len(waits))], 1), "end": end}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--code", type=Path, default=Path(__file__).parents[1], help="the checkout whose studio is tried")
    parser.add_argument("--forms", nargs="*", default=list(FORMS))
    parser.add_argument("--quick", action="store_true", help="5 items of each form")
    args = parser.parse_args()
    sys.path[:0] = [str(args.code / "src"), str(args.code / "tests")]
    from studio_browser import Served, Watched, chromium
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        served = Served(Path(folder))
        watched = Watched(browser, served.url)
        for kind in args.forms:
            result = trial(served, watched, kind, 5 if args.quick else args.items)
            print(json.dumps({"form": kind, **result}), flush=True)
        faults = watched.close()
        assert not faults, faults
        served.stop()


if __name__ == "__main__":
    main()
