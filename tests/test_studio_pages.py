"""The labeling page in a real browser: every task by keyboard, by pointer and on a phone, and nothing said is lost."""

import json
import random

import pytest

from studio_browser import ANSWERS, PAIRS, PHONE, WRITTEN, as_shown, prompt, ranking_items, rate_all, stored, until

pytestmark = pytest.mark.slow

def dense(ranks):
    return [sorted(set(ranks)).index(r) + 1 for r in ranks]


@pytest.mark.parametrize("k", [2, 4, 5])
def test_f1_a_random_ranking_with_ties_is_stored_and_exported_as_on_screen(watched, served, k):
    rng = random.Random(k)
    project = served.project("rate_and_rank", ranking_items(3, k))
    page = watched.label(project)
    wanted = []
    for _ in range(3):
        ranks = [rng.randint(1, k) for _ in range(k)]
        overall = [8 - r for r in ranks]
        wanted.append(
            (prompt(page), ranks, overall, [page.locator(".rate .answer-text").nth(i).text_content() for i in range(k)])
        )
        rate_all(page, k, lambda at, overall=overall: page.keyboard.press(str(overall[at])))
        for rank in ranks:
            page.keyboard.press(str(rank))
        assert page.locator(".ranking .card [aria-checked=true]").all_inner_texts() == [str(r) for r in ranks]
        page.keyboard.press("Enter")
        stored(page)
    rows = served.judgments(project)
    assert len(rows) == 3
    for (payload, order, seconds), (_, ranks, overall, texts) in zip(rows, wanted):
        assert as_shown(payload, order) == dense(ranks)
        assert [payload["ratings"][i]["overall"] for i in order] == overall
        shown = [payload["completions"][i].replace("**", "") for i in order]
        assert shown == [t.strip() for t in texts]
        assert 0 <= seconds < 60
    exported = page.request.get(f"{served.url}/api/projects/{project}/export?what=comparisons").text()
    lines = [json.loads(line) for line in exported.splitlines()]
    assert [line["ranks"] for line in lines] == [payload["ranks"] for payload, _, _ in rows]
    assert [line["completions"] for line in lines] == [payload["completions"] for payload, _, _ in rows]


def test_flags_by_letter_and_a_flag_that_only_closed_domain_prompts_have(watched, served):
    project = served.project("rate_and_rank", ranking_items(1, 2))
    page = watched.label(project)
    assert not page.locator("[data-flag=hallucination]").first.is_visible()
    page.keyboard.press("q")
    page.get_by_label("Closed domain").check()
    page.locator("h1").first.click(force=True)
    assert page.locator("[data-flag=hallucination]").first.is_visible()
    page.locator(".rate:not([hidden]) .flag-list > summary").click()  # folded, the letters still tick
    page.locator("h1").first.click(force=True)
    for key in "5fh":
        page.keyboard.press(key)
    assert not page.locator("[data-flag=fails_task]").first.is_visible()
    assert page.locator(".rate:not([hidden]) .flag-list > summary").inner_text() == "Tick what is true of it · 2"
    page.keyboard.press("Enter")
    assert not page.locator(".rate:not([hidden]) [data-flag=fails_task]").is_visible()
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    stored(page)
    ((payload, order, _),) = served.judgments(project)
    flags = [payload["ratings"][i]["flags"] for i in order]
    assert {n for n, v in flags[0].items() if v} == {"fails_task", "hallucination"}
    assert {n for n, v in flags[1].items() if v} == set()
    assert None not in flags[0].values()
    assert payload["prompt_flags"] == ["closed_domain"]
    assert payload["ranks"] == [1, 1]


def test_f10_ranking_by_arrows_by_buttons_and_by_dragging_ends_in_one_state(watched, served):
    project = served.project("rate_and_rank", ranking_items(1, 4))
    page = watched.label(project)
    rate_all(page, 4, lambda at: page.locator(".rate:visible").get_by_role("radio", name=None).nth(6 - at).click())
    page.locator(".ranking .card").nth(0).get_by_role("radio", name="Rank 2").click()
    page.locator(".chip", has_text="D").drag_to(page.locator('.cell[data-rank="1"]'))
    page.locator(".ranking .card").nth(1).locator("h2").click()
    page.locator('.cell[data-rank="4"] .place').click()
    page.keyboard.press("Alt+ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Alt+ArrowDown")
    assert page.locator("#status").text_content() == "D > A > B > C"
    until(page, "document.querySelector('#live').textContent.includes('rank 4')")
    page.locator("#go").click()
    stored(page, "Stored: D > A > B > C")
    ((payload, order, _),) = served.judgments(project)
    assert as_shown(payload, order) == [2, 3, 4, 1]


def test_nine_answers_without_ranks_leave_the_page_readable(watched, served):
    nine = {"prompt": "q", "completions": [f"answer {n}" for n in range(9)]}
    page = watched.label(served.project("rate_and_rank", [nine]))
    rate_all(page, 9, lambda at: page.keyboard.press("4"))
    assert page.locator(".standing").bounding_box()["height"] < 150
    tops = "(cells) => new Set(cells.map((c) => c.getBoundingClientRect().top)).size"
    assert page.locator(".cell:not(.pool)").evaluate_all(tops) == 1, "the ranks stand in one line"


def test_rank_changes_are_spoken(watched, served):
    page = watched.label(served.project("rate_and_rank", ranking_items(1, 3)))
    rate_all(page, 3, lambda at: page.keyboard.press("4"))
    for digit, words in (
        ("2", "Answer A: rank 2. 2 to go."),
        ("2", "Answer B: rank 2, tied with A. 1 to go."),
        ("1", "Answer C: rank 1. All are ranked."),
    ):
        page.keyboard.press(digit)
        until(page, "w => document.querySelector('#live').textContent === w", arg=words)


def test_f14_a_ranking_against_the_ratings_is_noticed_and_kept(watched, served):
    project = served.project("rate_and_rank", ranking_items(1, 2))
    page = watched.label(project)
    rate_all(page, 2, lambda at: page.keyboard.press("64"[at]))
    page.keyboard.press("2")
    page.keyboard.press("1")
    assert "You rated A 6 and B 4, but rank B above A" in page.locator(".task .notice").inner_text()
    page.keyboard.press("Enter")
    stored(page)
    ((payload, order, _),) = served.judgments(project)
    assert as_shown(payload, order) == [2, 1]
    assert payload["conflicts"]


def test_what_is_missing_is_said_and_nothing_is_sent(watched, served):
    project = served.project("rate_and_rank", ranking_items(1, 3))
    page = watched.label(project)
    page.keyboard.press("Enter")
    assert "Answer A needs an overall rating" in page.locator("#problem").inner_text()
    rate_all(page, 3, lambda at: page.keyboard.press("4"))
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    assert "Answer B has no rank" in page.locator("#problem").inner_text()
    assert served.judgments(project) == []


def test_compare_by_keys_and_by_pointer(watched, served):
    project = served.project("compare", PAIRS)
    page = watched.label(project)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    stored(page, "A is better")
    page.keyboard.press("t")
    page.keyboard.press("Enter")
    stored(page, "a tie")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    stored(page, "B is better")
    page.get_by_role("radio", name="A is slightly better").click()
    page.locator("#go").click()
    until(page, "document.querySelector('#done').textContent.startsWith('4 done')")
    stored(page, "A is better")
    rows = served.judgments(project)
    assert [(as_shown(p, o), p["strength"]) for p, o, _ in rows] == [([1, 2], 3), ([1, 1], 0), ([2, 1], 2), ([1, 2], 1)]


def test_demonstrate_edit_and_write_by_keyboard(watched, served):
    project = served.project("demonstrate", WRITTEN["demonstrate"])
    page = watched.label(project)
    page.keyboard.type("In May.\nAfter the frost. Z s u")
    page.keyboard.press("Escape")
    page.keyboard.press("q")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("w")
    page.keyboard.press("Control+Enter")
    stored(page, "8 words")
    ((payload, _, _),) = served.judgments(project)
    assert payload["completion"] == "In May.\nAfter the frost. Z s u" and payload["prompt_flags"] == ["ambiguous"]

    project = served.project("edit", WRITTEN["edit"])
    page = watched.label(project)
    page.keyboard.press("Control+Enter")
    stored(page)
    page.keyboard.press("Control+End")
    page.keyboard.type(" Water them.")
    assert page.locator(".changes ins").inner_text().strip() == "Water them."
    page.keyboard.press("Control+Enter")
    stored(page)
    first, second = [p for p, _, _ in served.judgments(project)]
    assert first["completion"] == ANSWERS[0] and "ranks" not in first
    assert second["completions"] == [ANSWERS[0] + " Water them.", ANSWERS[0]] and second["ranks"] == [1, 2]

    project = served.project("write_prompt", WRITTEN["write_prompt"])
    page = watched.label(project)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.type("Name the season.")
    for words in ("beans", "spring", None, "kale", "autumn"):
        page.keyboard.press("Tab")
        if words:
            page.keyboard.type(words)
    page.keyboard.press("Control+Enter")
    stored(page)
    ((payload, _, _),) = served.judgments(project)
    assert payload["kind"] == "few_shot" and payload["text"] == "Name the season."
    assert payload["examples"] == [{"query": "beans", "response": "spring"}, {"query": "kale", "response": "autumn"}]


SMALL = """[...document.querySelectorAll('button, input, select, summary, a')]
  .filter(n => n.checkVisibility() && !n.matches('.skip-link'))
  .map(n => [n.outerHTML.slice(0, 80), (n.closest('label') ?? n).getBoundingClientRect()])
  .filter(([, r]) => r.width < 24 || r.height < 24).map(([h]) => h)"""


@pytest.mark.parametrize("kind", ["demonstrate", "rate_and_rank", "compare", "edit", "write_prompt"])
def test_every_task_on_a_phone_by_touch(watched, served, kind):
    items = {"rate_and_rank": ranking_items(2, 5), "compare": PAIRS, **WRITTEN}[kind]
    project = served.project(kind, items)
    page = watched.label(project, **PHONE)
    if kind == "rate_and_rank":
        for at in range(5):
            page.locator(".rate:visible .overall [role=radio]").nth(at).tap()
            page.locator("#go").tap()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for at, rank in enumerate((1, 1, 2, 5, 3)):
            page.locator(".ranking .card").nth(at).locator("[role=radio]").nth(rank - 1).tap()
    elif kind == "compare":
        assert "arrows" not in page.locator("#status").inner_text(), "a phone has no keys"
        page.get_by_role("radio", name="B is much better").tap()
    else:
        assert page.locator("#text").bounding_box()["y"] < 700, "it is on the first screen"
        page.locator("#text").tap()
        page.locator("#text").fill("A text written on a phone.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(SMALL) == []
    assert page.locator("#status").bounding_box()["height"] < 40, "one line"
    page.locator("#go").tap()
    stored(page)
    ((payload, order, _),) = served.judgments(project)
    if kind == "rate_and_rank":
        assert as_shown(payload, order) == [1, 1, 2, 4, 3]


def test_skip_and_unsafe_by_keys(watched, served):
    project = served.project("compare", [{**p, "warnings": ["violence"]} if n == 1 else p for n, p in enumerate(PAIRS)])
    page = watched.label(project)
    seen = 0
    while not page.locator(".warning").count():
        seen += 1
        page.keyboard.press("s")
        page.keyboard.press("3")
        page.keyboard.press("Enter")
        until(page, "n => document.querySelector('#done').textContent.startsWith(`${n} done`)", arg=seen)
        assert seen < 6
    assert "violence" in page.locator(".warning").inner_text()
    assert page.locator(".task").count() == 0
    page.keyboard.press("u")
    with page.expect_response("**/unsafe"):
        page.keyboard.press("Enter")
    assert page.locator(".warning").count() == 0
    page.goto(f"{served.url}/account")
    assert page.get_by_label("Violence").is_checked()
    page.get_by_label("Violence").uncheck()
    page.get_by_role("button", name="Save").click()
    page.locator(".message", has_text="Saved").wait_for()


def test_the_next_item_is_on_screen_within_100_ms(watched, served):
    project = served.project("rate_and_rank", ranking_items(25, 4))
    page = watched.label(project)
    took = []
    for _ in range(20):
        rate_all(page, 4, lambda at: page.keyboard.press("4"))
        for digit in "1234":
            page.keyboard.press(digit)
        page.evaluate("delete document.documentElement.dataset.switchMs")
        page.keyboard.press("Enter")
        until(page, "document.documentElement.dataset.switchMs")
        took.append(float(page.evaluate("document.documentElement.dataset.switchMs")))
        page.wait_for_timeout(60)
    took.sort()
    print(f"\nnext item on screen: median {took[10]:.0f} ms, slowest {took[-1]:.0f} ms of {len(took)}")
    assert took[10] < 100
    page.wait_for_timeout(300)
    assert len(served.judgments(project)) == 20


EVIL = [
    '<img src=x onerror="window.pwned=1">',
    "<script>window.pwned=1</script>",
    "[x](javascript:window.pwned=1)",
    '<svg onload="window.pwned=1">',
    "![beacon](http://evil.invalid/b.png)",
    "<style>*{display:none}</style>",
    "</script><script>window.pwned=1</script>",
    '"><iframe srcdoc="<script>parent.pwned=1</script>">',
    "`<img src=x onerror=window.pwned=1>`",
    "```html\n<img src=x onerror=window.pwned=1>\n```",
]


def test_f20_what_models_and_people_write_never_runs(watched, served):
    text = "\n\n".join(EVIL)
    project = served.project("rate_and_rank", [{"prompt": text, "completions": [text, text + "!", text + "?"]}])
    page = watched.label(project)
    assert page.locator(".rate:visible .answer-text").inner_text().count("onerror") >= 2
    rate_all(page, 3, lambda at: page.keyboard.press("4"))
    page.keyboard.press("d")
    page.keyboard.press("r")
    for digit in "111":
        page.keyboard.press(digit)
    page.keyboard.press("n")
    page.keyboard.type(EVIL[0])
    page.keyboard.press("Control+Enter")
    stored(page)
    assert page.evaluate("window.pwned") is None
    assert page.locator("#stage img, #stage iframe, #stage script, #stage style").count() == 0
    assert page.locator('a[href^="javascript"]').count() == 0


def test_each_paragraph_runs_in_the_direction_of_its_script(watched, served):
    project = served.project("edit", [{"prompt": "שלום 👋\n\nLeft to right.", "original": "مرحبا بالعالم."}])
    page = watched.label(project)
    start = """(node) => { const range = document.createRange(); range.selectNodeContents(node);
      const [text, box] = [range.getBoundingClientRect(), node.getBoundingClientRect()];
      return text.left - box.left > box.right - text.right; }"""
    assert [p.evaluate(start) for p in page.locator(".prose p").all()][:3] == [True, False, True]
    assert page.locator("#text").evaluate("(area) => getComputedStyle(area).unicodeBidi") == "plaintext"


def test_single_key_shortcuts_can_be_turned_off(watched, served):
    page = watched.label(served.project("compare", PAIRS))
    page.keyboard.press("?")
    assert page.locator("#keys dt", has_text="Z").count() == 1
    page.get_by_label("Single-key shortcuts are on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    assert page.locator("[aria-checked=true]").count() == 0
    page.get_by_role("radio", name="A is better", exact=True).focus()
    page.keyboard.press("Space")
    assert page.locator("[aria-checked=true] .digit").inner_text() == "2"
