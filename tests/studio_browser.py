"""A studio served on a free port, and Debian's Chromium to look at it, for the tests of the pages."""

import os
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM = Path(os.environ.get("HARKEN_CHROMIUM", "/usr/bin/chromium"))
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
ANSWERS = (
    "Plant beans in May, after the last frost.",
    "Plant beans in **May**, once the frost is over. Water them.",
    "Sow them whenever you like.",
    "I am not sure.",
    "Ask your neighbour.",
)
WRITTEN = {
    "demonstrate": [{"prompt": f"When do I plant beans? ({n})"} for n in range(3)],
    "edit": [{"prompt": f"When do I plant beans? ({n})", "original": ANSWERS[0]} for n in range(3)],
    "write_prompt": [{"ask": {"text": f"Ask about gardens ({n})."}} for n in range(3)],
}
PAIRS = [{"prompt": f"When do I plant beans? ({n})", "completions": list(ANSWERS[:2])} for n in range(6)]


class Served:
    """A running studio."""

    def __init__(self, folder, port=0, **options):
        import uvicorn

        from harken.store.database import open_database
        from harken.studio.app import Studio, create_app

        self.studio = Studio(open_database(folder / "feedback.db"), **{"single_user": True, **options})
        config = uvicorn.Config(create_app(self.studio), port=port, log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)

    def write(self, work):
        return self.studio.writer.submit(work).result()

    def project(self, kind, items, **settings):
        """A project with items; returns its id."""
        from harken.studio.work import projects

        now = datetime.now(UTC)

        def make(tx):
            said = {"name": f"{kind} {time.monotonic_ns()}", "kind": kind, **settings}
            key = projects.create_project(tx, said, now, user_id=1, seed=7)
            projects.add_items(tx, key, items, now)
            return key

        return self.write(make)

    def judgments(self, project):
        """The stored answers: (payload, shown order, seconds), oldest first."""
        from sqlalchemy import select

        from harken.store.schema import judgments
        from harken.store.studio_schema import items, retractions

        gone = select(retractions.c.judgment_seq)
        query = (
            select(judgments)
            .join(items, items.c.id == judgments.c.item_id)
            .where(items.c.project_id == project, judgments.c.seq.not_in(gone))
            .order_by(judgments.c.seq)
        )
        with self.studio.db.link.reading() as tx:
            return [(row.payload, row.shown_order, row.seconds) for row in tx.execute(query)]


def ranking_items(count, k=4):
    return [{"prompt": f"When do I plant beans? ({n})", "completions": [f"{a} ({n})" for a in ANSWERS[:k]]} for n in range(count)]


@contextmanager
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; set HARKEN_CHROMIUM")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


class Watched:
    """Opens pages and gathers what must not happen: script errors, refused content, requests to other origins (F19)."""

    def __init__(self, browser, url):
        self.browser, self.url, self.contexts, self.faults, self.forgiven = browser, url, [], [], []

    def page(self, **options):
        context = self.browser.new_context(**options)
        context.set_default_timeout(20_000)
        self.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda e: self.faults.append(f"error: {e}"))
        page.on("console", lambda m: self.faults.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("request", self.request)
        return page

    def request(self, request):
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc and not request.url.startswith(("data:", "blob:")):
            self.faults.append(f"request: {request.url}")

    def label(self, project, **options):
        """The labeling page of a project, its guide read and its first item there."""
        page = self.page(**options)
        page.goto(f"{self.url}/label/{project}")
        read_guide(page)
        return page

    def close(self, forgive=()):
        for context in self.contexts:
            context.close()
        return [f for f in self.faults if not any(word in f for word in (*forgive, *self.forgiven))]


def read_guide(page):
    """Closes the guide that opens by itself, and waits until the first item has the focus."""
    page.locator("#guide[open]").wait_for()
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('dialog[open]') && document.activeElement.closest('.task, .warning')")


def overview(page, url, project):
    """Opens a project's overview and waits for its figures, which a slow machine works out while the page is shown."""
    page.goto(f"{url}/lead/projects/{project}")
    page.locator("#pace").wait_for(timeout=120_000)


def stored(page, words="Stored:"):
    """Waits for the server's echo of a stored answer, and reads it away."""
    end = time.monotonic() + 20
    while not page.locator(".message", has_text=words).count():
        assert time.monotonic() < end, f"not stored; the page says {page.locator('#messages, .bar, #stage').all_inner_texts()}"
        page.wait_for_timeout(20)
    page.evaluate("document.querySelectorAll('.message:not(.failure)').forEach(m => m.remove())")


def until(page, expression, arg=None, seconds=20):
    """Waits until a JavaScript expression holds. Playwright's own way needs eval in the page, which its policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, f"not within {seconds} s: {expression} {arg or ''}"
        page.wait_for_timeout(20)


def prompt(page):
    return page.locator(".conversation").inner_text()


def rate_all(page, k, press):
    for at in range(k):
        press(at)
        page.keyboard.press("Enter")


def as_shown(payload, order):
    return [payload["ranks"][i] for i in order]


KINDS = {
    "demonstrate": [{"prompt": "When do I plant beans?"}] * 1,
    "rate_and_rank": ranking_items(1, 5),
    "compare": [{"prompt": "When do I plant beans?", "completions": list(ANSWERS[:2])}],
    "edit": [{"prompt": "When do I plant beans?", "original": ANSWERS[0]}],
    "write_prompt": [{"ask": {"text": "Ask about gardens."}}],
    "rank": ranking_items(1, 3),
    "questions": [{"prompt": "When do I plant beans?", "completions": list(ANSWERS[:2])}],
}
"""An item or so of each form."""


def axe(page):
    """Serious and critical findings of axe."""
    found = pytest.importorskip("axe_playwright_python.sync_playwright").Axe().run(page)
    return [
        f"{v['id']} ({v['impact']}): {[n['html'][:160] for n in v['nodes']][:3]}"
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
