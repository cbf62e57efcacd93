"""Neighbours of the cases in `test_studio_case_pages.py`: the same kind of fault on another page or with another key."""

import pytest

from studio_browser import PAIRS, PHONE, ranking_items, stored, until

pytestmark = pytest.mark.slow
LONG = "Beurteilungsgrundlagenverordnungderkleingärtner und تقييم الإجابات"


def press(page, key, code="", **more):
    page.evaluate("""([key, code, more]) => (document.activeElement ?? document.body).dispatchEvent(
        new KeyboardEvent("keydown", { key, code, bubbles: true, cancelable: true, ...more }))""", [key, code, more])


def test_case_21_digits_of_other_scripts_caps_lock_and_a_key_held_down(watched, served):
    suggested = [{**pair, "suggestion": {"answer": {"preference": -3}}} for pair in PAIRS[:3]]
    project = served.project("compare", suggested, suggestions_after=0)
    page = watched.label(project)
    for key, digit in (("٣", "3"), ("۲", "2"), ("५", "5"), ("６", "6")):  # from keyboards on a screen, without a place
        press(page, key)
        assert page.locator("[role=radio][aria-checked=true] .digit").inner_text() == digit
    press(page, "S", "KeyS")  # Caps Lock
    page.locator("#skip[open]").wait_for()
    page.keyboard.press("Escape")
    until(page, "document.activeElement.closest('.task')")
    press(page, "Enter", "Enter")
    for _ in range(5):
        press(page, "Enter", "Enter", repeat=True)
    stored(page)
    page.wait_for_timeout(150)
    assert len(served.judgments(project)) == 1, "a key held down accepted suggestions that nobody read"
    press(page, "z", "KeyZ", repeat=True)
    page.wait_for_timeout(100)
    assert len(served.judgments(project)) == 1 and not watched.close()


def test_case_2_half_an_emoji_at_a_fields_end_is_stored_and_no_alarm(watched, served):
    project = served.project("demonstrate", [{"prompt": "q"}])
    page = watched.label(project)
    page.locator("#text").evaluate("e => { e.value = 'Fine \\ud83d'; e.dispatchEvent(new Event('input', {bubbles: true})); }")
    page.keyboard.press("Control+Enter")
    stored(page)
    assert page.locator(".message.failure").count() == 0
    ((payload, _, _),) = served.judgments(project)
    assert payload["completion"] == "Fine \ufffd" and not watched.close()


def test_case_11_an_empty_project_says_that_it_is_empty(watched, served):
    project = served.project("compare", [])
    page = watched.page()
    page.goto(f"{served.url}/label/{project}")
    page.get_by_role("heading", name="Nothing here yet").wait_for()
    page.goto(f"{served.url}/lead/projects/{project}")
    assert page.locator(".tiles div", has_text="Time left").locator("dd").inner_text() == "–"
    page.goto(f"{served.url}/join")
    page.get_by_text("This link is not whole").wait_for()
    assert not watched.close()


def test_long_names_and_the_order_stay_inside_a_phone(watched, served):
    project = served.project("rank", ranking_items(1, 5), name=LONG)
    page = watched.page(**PHONE)
    for path in ("/", f"/lead/projects/{project}", f"/lead/projects/{project}/items", f"/label/{project}/answers"):
        page.goto(served.url + path)
        wide = page.evaluate("[...document.querySelectorAll('h1, h2, h3, .tabs a')].filter(e => e.offsetParent &&"
                             " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.textContent)")
        assert wide == [], path
    page.goto(f"{served.url}/label/{project}")
    page.locator("#guide[open]").wait_for()
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('dialog[open]')")
    last = page.locator(".ranking .card").last
    tray = page.locator(".standing")
    assert last.bounding_box()["y"] + last.bounding_box()["height"] <= tray.bounding_box()["y"] + 1, "nothing lies on an answer"


def test_a_leads_language_leaves_what_people_wrote(watched, served):
    project = served.project("edit", [{"prompt": "q", "original": "Close"}])
    page = watched.label(project)
    page.locator("#text").fill("Next")
    page.keyboard.press("Control+Enter")
    stored(page)
    german = watched.page(locale="de")
    german.goto(f"{served.url}/lead/projects/{project}/items")
    german.locator("tbody a").first.click()
    words = german.locator(".said .source")
    words.wait_for()
    assert "Next" in words.inner_text() and "Weiter" not in words.inner_text()


def test_case_32_the_time_is_that_of_attention_over_reloads_and_pauses(watched, served):
    """20 s at work, a reload, then eight minutes without a touch of which one counts, ten more seconds."""
    watched.forgiven.append("409 (Conflict)")  # minutes pass in an instant here: a draft may arrive after the answer
    project = served.project("compare", PAIRS[:1])
    page = watched.page()
    page.clock.install()
    page.goto(f"{served.url}/label/{project}")
    page.locator("#guide[open]").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.clock.run_for(20_000)
    page.keyboard.press("3")  # a draft is kept with its seconds
    page.clock.run_for(3_000)
    page.reload()
    page.locator("[role=radio][aria-checked=true]").wait_for()
    page.keyboard.press("4")
    page.clock.run_for(8 * 60_000)
    page.keyboard.press("5")
    page.clock.run_for(10_000)
    page.keyboard.press("Enter")
    page.clock.run_for(1_000)
    page.locator(".message", has_text="Stored:").wait_for()
    ((_, _, seconds),) = served.judgments(project)
    assert 88 <= seconds <= 97, seconds


def test_case_33_a_reload_or_another_tab_brings_the_same_items_and_none_twice(watched, served):
    project = served.project("compare", PAIRS[:3])
    page = watched.label(project)
    asked = page.locator(".conversation")
    first = asked.inner_text()
    page.keyboard.press("2")
    page.reload()
    page.locator("[role=radio][aria-checked=true]").wait_for()
    assert asked.inner_text() == first, "the item, with what was chosen"
    other = page.context.new_page()
    other.goto(f"{served.url}/label/{project}")
    until(other, "document.activeElement.closest('.task')")
    assert other.locator(".conversation").inner_text() == first
    seen = []
    for _ in range(3):
        until(page, "document.querySelector('.task')")
        seen.append(asked.inner_text())
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        stored(page)
    assert len(set(seen)) == 3 == len(served.judgments(project)) and seen[0] == first
    page.reload()
    page.get_by_role("heading", name="All done").wait_for()
    assert not watched.close()


def test_case_18_the_keys_are_those_of_the_forms_scale(watched, served):
    from harken.studio.work import projects
    from harken.studio.work.forms import default_form
    project = served.project("rate_and_rank", ranking_items(2, 2))
    form = default_form("rate_and_rank")

    def scale(most):
        changed = {**form, "rating": {**form["rating"], "scale": {**form["rating"]["scale"], "max": most}}}
        served.write(lambda tx: projects.set_form(tx, project, changed, served.studio.clock()))
    scale(5)
    page = watched.label(project)
    chosen = page.locator(".rate:visible [role=radio][aria-checked=true]")
    page.keyboard.press("7")
    assert chosen.count() == 0 and "0 of 2 rated" in page.locator("#status").inner_text(), "no grade that the form does not have"
    page.keyboard.press("Enter")
    assert "needs an overall rating, 1 to 5" in page.locator("#problem").inner_text()
    page.keyboard.press("5")
    assert chosen.inner_text() == "5"
    scale(9)
    page.context.close()
    page = watched.page()
    page.goto(f"{served.url}/label/{project}")
    until(page, "document.querySelector('.task')")
    if page.locator("#guide[open]").count():
        page.keyboard.press("Escape")
    page.keyboard.press("9")
    assert page.locator(".rate:visible [role=radio][aria-checked=true]").inner_text() == "9" and not watched.close()
