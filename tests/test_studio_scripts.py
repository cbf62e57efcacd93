"""The pages' modules one by one, in the browser that runs them: differences, Markdown, time, the outbox, their size."""

import gzip
import json
import posixpath
import re

import pytest

from harken.studio.pages.frame import ASSETS
from harken.studio.tasks import KINDS
from studio_browser import ANSWERS, ranking_items, stored, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def module(browser, served):
    """Calls a function of a module: module("diff.js", "m => m.words('a b')")."""
    page = browser.new_page()
    page.goto(served.url + "/login")
    yield lambda name, body, arg=None: page.evaluate(f"async a => ({body})(await import('{ASSETS.address(name)}'), a)", arg)
    page.close()


COMPARE = "(m, [a, b]) => m.compare(a, b)"


def runs(sides):
    return [[(r["text"], r["kind"]) for r in side] for side in sides]


def test_differences_are_aligned_by_sentence_then_by_word(module):
    left, right = runs(module("diff.js", COMPARE, ["Sow in May. Water them daily. The end.", "Sow in June. The end. Have fun!"]))
    assert left == [("Sow in ", "same"), ("May", "changed"), (". ", "same"), ("Water them daily. ", "only"), ("The end.", "same")]
    assert right == [("Sow in ", "same"), ("June", "changed"), (". The end.", "same"), (" ", "changed"), ("Have fun!", "only")]


@pytest.mark.parametrize(
    "texts",
    [
        ["", ""],
        ["", "a"],
        ["same.", "same."],
        ["Ünïcode! 日本語。 x", "Ünïcode? 日本。 x"],
        ["a\n\nb\n- c", "a\nb\n- d"],
        ["Go to example.com now. Dr. Who", "Go to example.org now. Dr. Who?"],
    ],
)
def test_marked_texts_are_the_texts(module, texts):
    sides = module("diff.js", COMPARE, texts)
    assert ["".join(r["text"] for r in side) for side in sides] == texts
    if texts[0] == texts[1]:
        assert {r["kind"] for side in sides for r in side} <= {"same"}


def test_long_texts_are_compared_quickly(module):
    long = " ".join(f"Sentence number {n} speaks of {n * 7} things." for n in range(200))
    ms = module(
        "diff.js",
        "(m, t) => { const s = performance.now(); m.compare(t, t.replaceAll('7', '8')); return performance.now() - s; }",
        long,
    )
    assert ms < 1500


RENDER = "(m, t) => { const d = document.createElement('div'); d.append(m.render(t)); return d.innerHTML; }"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a *b* **c** `d*e*`", "<p>a <em>b</em> <strong>c</strong> <code>d*e*</code></p>"),
        ("one\ntwo", "<p>one<br>two</p>"),
        ("# Title\ntext", '<p class="heading level1">Title</p><p>text</p>'),
        ("- a\n- b\n  - c\n- d", '<ul dir="auto"><li>a</li><li>b<ul dir="auto"><li>c</li></ul></li><li>d</li></ul>'),
        ("3. a\n4. b", '<ol dir="auto" start="3"><li>a</li><li>b</li></ol>'),
        ("> quoted\n> more", "<blockquote><p>quoted<br>more</p></blockquote>"),
        ("<b>x</b> & y", "<p>&lt;b&gt;x&lt;/b&gt; &amp; y</p>"),
        ("![alt](http://x.invalid/a.png)", '<p><span class="image">[image: alt]</span></p>'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("snake_case_name and 2*3*4", "<p>snake_case_name and 2*3*4</p>"),
        ("\\*no\\*", "<p>*no*</p>"),
        ("***", "<hr>"),
        ("5 < 6 > 4", "<p>5 &lt; 6 &gt; 4</p>"),
    ],
)
def test_markdown(module, text, html):
    assert module("text.js", RENDER, text) == html


def test_markdown_code_and_tables(module):
    html = module("text.js", RENDER, "```python\na < b\n\n# no heading\n```\nafter\n\n| a | b |\n|---|:-:|\n| 1 | `x` |")
    assert "<code>a &lt; b\n\n<span" in html and "# no heading</span></code>" in html and "<p>after</p>" in html
    assert "<th>a</th>" in html and "<td><code>x</code></td>" in html


@pytest.mark.parametrize(
    "text", ["*" * 5000, "[" * 5000, "`" * 4999, "> " * 3000, "- " * 2000, "**a" * 3000, "_a_" * 3000, "|" * 5000 + "\n|-|"]
)
def test_markdown_of_hostile_text_ends_quickly(module, text):
    assert module("text.js", "(m, t) => { const s = performance.now(); m.render(t); return performance.now() - s; }", text) < 1000


CLOCK = """(m, steps) => {
  let now = 0;
  const page = Object.assign(new EventTarget(), { hidden: false });
  const clock = new m.Clock(() => now, page);
  clock.start();
  return steps.map(([seconds, what]) => {
    now += seconds * 1000;
    if (what === "hide" || what === "show") { page.hidden = what === "hide"; page.dispatchEvent(new Event("visibilitychange")); }
    else if (what) page.dispatchEvent(new Event(what));
    return clock.seconds;
  });
}"""


def test_time_on_task_leaves_out_hidden_and_idle_time(module):
    steps = [[10, "keydown"], [5, "hide"], [300, "show"], [5, "pointermove"], [59, "keydown"], [600, "keydown"], [10, None]]
    # 10 s, then 5 s, hidden for 300 s; 5 s; 59 s still counts; of 600 s without a sign only the first 60 count; 10 s
    assert module("clock.js", CLOCK, steps) == [10, 15, 15, 20, 79, 139, 149]


@pytest.mark.parametrize(
    ("ranks", "dense"), [([1, 3, 3], [1, 2, 2]), ([2, 2, 2], [1, 1, 1]), ([9, 1, 5], [3, 1, 2]), ([None, 4], [None, 1])]
)
def test_ranks_without_gaps(module, ranks, dense):
    assert module("ranking.js", "(m, r) => m.dense(r)", ranks) == dense


def test_contradictions_are_those_of_rating_and_rank(module):
    assert module("ranking.js", "m => m.contradictions([6, 4, 4], [2, 1, 1])") == [[0, 1], [0, 2]]
    assert module("ranking.js", "m => m.contradictions([6, 4, null], [1, 1, 2])") == []


OUTBOX = """async (m, [storage, statuses]) => {
  const full = { setItem() { throw new DOMException("full", "QuotaExceededError"); }, getItem: () => null, removeItem() {} };
  for (const name of Object.keys(full)) Object.defineProperty(full, name, { enumerable: false });
  const box = storage === "full" ? full : localStorage;
  const asked = [], done = [], refused = [];
  const fetched = window.fetch;
  window.fetch = async (path, options) => {
    const status = statuses[Math.min(asked.length, statuses.length - 1)];
    asked.push(JSON.parse(options.body).client_id);
    if (status === 0) throw new TypeError("no network");
    const body = status === 200 ? {} : { error: { code: "x", message: "m", hint: "" } };
    return new Response(JSON.stringify(body), { status, headers: status === 503 ? { "Retry-After": "0.01" } : {} });
  };
  const out = new m.Outbox("test", { storage: box, stored: (e) => done.push(e.id), refused: (e) => refused.push(e.id) });
  out.add({ id: "a", path: "/a", body: { client_id: "a" } });
  out.add({ id: "b", path: "/b", body: { client_id: "b" } });
  for (let i = 0; i < 200 && done.length + refused.length < 2; i += 1) {
    await new Promise((r) => setTimeout(r, 20));
    if (statuses.includes(0) && i === 10) out.flush();
  }
  window.fetch = fetched;
  const left = out.waiting.map((e) => e.id);
  for (const id of refused) out.dismiss(id);
  return { asked, done, refused, left };
}"""


@pytest.mark.parametrize("storage", ["kept", "full"])
def test_f21_the_outbox_sends_in_order_and_again_until_stored(module, storage):
    assert module("outbox.js", OUTBOX, [storage, [200]]) == {"asked": ["a", "b"], "done": ["a", "b"], "refused": [], "left": []}
    assert module("outbox.js", OUTBOX, [storage, [503, 503, 200]]) == {
        "asked": ["a", "a", "a", "b"],
        "done": ["a", "b"],
        "refused": [],
        "left": [],
    }
    assert module("outbox.js", OUTBOX, [storage, [0, 200]]) == {
        "asked": ["a", "a", "b"],
        "done": ["a", "b"],
        "refused": [],
        "left": [],
    }
    assert module("outbox.js", OUTBOX, [storage, [422, 200]]) == {
        "asked": ["a", "b"],
        "done": ["b"],
        "refused": ["a"],
        "left": [],
    }


def test_scripts_of_a_page_are_under_60_kb_gzipped():
    def reached(name, seen):
        if name in seen:
            return seen
        seen.add(name)
        text = ASSETS.files[name].read_text(encoding="utf-8")
        imported = re.findall(r'from "(\.[^"]+)"', text)
        if name == "forms/index.js":  # it fetches the form of every kind
            imported += [f"./{kind}.js" for kind in KINDS]
        for other in imported:
            reached(posixpath.normpath(posixpath.join(posixpath.dirname(name), other)), seen)
        return seen

    for entry in ("label.js", "page.js", "lead.js", "join.js"):
        size = sum(len(gzip.compress(ASSETS.files[n].read_bytes(), 9)) for n in reached(entry, {"theme.js"}) | {"theme.js"})
        print(f"\n{entry}: {size / 1000:.1f} kB gzipped")
        assert size < 60_000


def test_f12_a_form_changed_meanwhile_is_fetched_and_answered_in_its_own_version(watched, served):
    from harken.studio.work import projects
    from harken.studio.work.forms import default_form

    project = served.project("rate_and_rank", ranking_items(6, 2))
    page = watched.label(project)
    form = default_form("rate_and_rank")
    form["rating"]["flags"].append({"name": "too_long", "label": "Is too long", "only": None})
    served.write(lambda tx: projects.set_form(tx, project, form, served.studio.clock()))
    for n in range(5):
        for _ in range(2):
            page.keyboard.press("4")
            page.keyboard.press("Enter")
        page.keyboard.press("1")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        stored(page)
        until(page, "n => document.querySelector('#done').textContent.startsWith(`${n} done`)", n + 1)
    flags = [sorted(payload["ratings"][0]["flags"]) for payload, _, _ in served.judgments(project)]
    assert "too_long" not in flags[0] and "too_long" in flags[-1]


def test_answers_left_by_a_closed_labeling_page_go_out_from_any_page(troubled, served):
    project = served.project("compare", [{"prompt": "Beans?", "completions": list(ANSWERS[:2])}])
    page = troubled.label(project, service_workers="block")
    page.route("**/submit", lambda route: route.fulfill(status=503, json={"error": {"code": "busy", "message": "b", "hint": ""}}))
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.locator("#connection", has_text="1 waiting").wait_for()
    page.unroute("**/submit")
    with page.expect_response("**/submit") as answer:
        page.goto(served.url + "/")
    assert json.loads(answer.value.text())["already"] is False
    until(page, "!Object.keys(localStorage).some(k => k.includes(':out:'))")
    assert len(served.judgments(project)) == 1
