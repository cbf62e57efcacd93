"""What is said on the labeling page arrives once and whole: offline, sent twice, undone, drafted, without a server."""

import pytest

from studio_browser import PAIRS, WRITTEN, Served, Watched, as_shown, prompt, ranking_items, rate_all, stored, until

pytestmark = pytest.mark.slow


def test_f1_a_double_submit_stores_once(watched, served):
    project = served.project("compare", PAIRS)
    page = watched.label(project)
    page.keyboard.press("2")
    page.evaluate("document.querySelector('#go').click(); document.querySelector('#go').click()")
    stored(page)
    page.wait_for_timeout(300)
    assert len(served.judgments(project)) == 1
    assert page.locator("#done").inner_text().startswith("1 done")


def test_an_answer_in_one_tab_moves_the_other_on(watched, served):
    project = served.project("compare", [{"prompt": f"q{n}", "completions": [f"a{n}", f"b{n}"]} for n in range(6)])
    one = watched.label(project)
    other = one.context.new_page()
    other.goto(f"{served.url}/label/{project}")
    other.locator(".compare").wait_for()
    for tab, last in ((one, other), (other, one)):
        now = tab.locator(".conversation").inner_text()
        tab.bring_to_front()
        tab.keyboard.press("1")
        tab.keyboard.press("Enter")
        stored(tab)
        until(last, "(now) => document.querySelector('.conversation')?.innerText !== now", now)
    assert len(served.judgments(project)) == 2
    assert not one.locator(".message.failure").count() and not other.locator(".message.failure").count()


def test_f21_answers_given_offline_arrive_exactly_once(troubled, served):
    project = served.project("compare", PAIRS)
    page = troubled.label(project)
    until(page, "document.querySelector('#done').textContent.includes('open')")
    page.context.set_offline(True)
    for key in "17":
        page.keyboard.press(key)
        page.keyboard.press("Enter")
    page.locator("#connection", has_text="2 waiting to be sent").wait_for()
    assert served.judgments(project) == []
    page.context.set_offline(False)
    stored(page, "B is better")
    page.wait_for_timeout(500)
    assert [as_shown(p, o) for p, o, _ in served.judgments(project)] == [[1, 2], [2, 1]]
    assert page.evaluate("Object.keys(localStorage).filter(k => k.includes(':out:'))") == []


def test_f21_without_a_server_the_page_can_be_loaded_again_and_closed_and_nothing_is_lost(browser, tmp_path):
    served = Served(tmp_path)
    project = served.project("compare", PAIRS)
    watched = Watched(browser, served.url)
    page = watched.label(project)
    until(page, "navigator.serviceWorker.controller && caches.open('harken').then(c => c.keys()).then(k => k.length > 20)")
    served.stop()
    seen = []
    for key in "17":
        seen.append(prompt(page))
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        page.reload()
        page.locator("#connection", has_text=f"{len(seen)} waiting to be sent").wait_for()
        page.locator(".task").wait_for()
    context = page.context
    page.close()
    page = context.new_page()
    page.goto(f"{served.url}/label/{project}")
    page.locator("#connection", has_text="2 waiting to be sent").wait_for()
    page.locator(".task").wait_for()
    assert prompt(page) not in seen
    served = Served(tmp_path, served.port)
    stored(page, "B is better")
    page.wait_for_timeout(500)
    assert [as_shown(p, o) for p, o, _ in served.judgments(project)] == [[1, 2], [2, 1]]
    assert prompt(page) not in seen and page.evaluate("Object.keys(localStorage).filter(k => k.includes(':out:'))") == []
    assert watched.close(("Failed to load resource", "net::ERR")) == []
    served.stop()


def test_f21_an_answer_whose_acknowledgement_was_lost_is_sent_again_and_stored_once(troubled, served):
    project = served.project("compare", PAIRS)
    page = troubled.label(project, service_workers="block")
    lost = []

    def lose(route):
        if lost:
            route.continue_()
        else:
            lost.append(route.fetch().status)
            route.abort()

    page.route("**/submit", lose)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    stored(page)
    assert lost == [200]
    assert len(served.judgments(project)) == 1


def test_f21_a_refused_answer_is_shown_and_comes_back_as_it_was(troubled, served):
    project = served.project("compare", PAIRS)
    page = troubled.label(project, service_workers="block")
    problem = {"error": {"code": "bad_answer", "message": "The form is another one now.", "hint": "Reload the page."}}
    page.route("**/submit", lambda route: route.fulfill(status=422, json=problem))
    words = prompt(page)
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    page.locator(".failure", has_text="The form is another one now.").wait_for()
    assert prompt(page) != words
    page.get_by_role("button", name="Go back to it").click()
    assert prompt(page) == words
    assert page.locator("[aria-checked=true] .digit").inner_text() == "6"
    page.unroute("**/submit")
    page.keyboard.press("Enter")
    stored(page)
    assert [as_shown(p, o) for p, o, _ in served.judgments(project)] == [[2, 1]]


def test_f21_a_full_disk_keeps_the_answer_waiting(troubled, served):
    project = served.project("compare", PAIRS)
    page = troubled.label(project, service_workers="block")
    problem = {"error": {"code": "storage", "message": "The disk is full.", "hint": "Free some space."}}
    page.route("**/submit", lambda route: route.fulfill(status=503, json=problem, headers={"Retry-After": "1"}))
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    page.locator("#connection", has_text="1 waiting").wait_for()
    page.unroute("**/submit")
    stored(page)
    assert len(served.judgments(project)) == 1


def test_f1_a_stored_answer_that_differs_from_the_screen_is_an_alarm(troubled, served):
    project = served.project("compare", PAIRS)
    page = troubled.label(project, service_workers="block")

    def falsify(route):
        answer = route.fetch().json()
        answer["answer"]["preference"] = 3
        route.fulfill(json=answer)

    page.route("**/submit", falsify)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.locator(".failure", has_text="something else than you sent (preference)").wait_for()


def test_f9_undo_takes_back_the_last_submit_with_its_answer_and_stores_the_corrected_one(watched, served):
    project = served.project("rate_and_rank", ranking_items(4, 3))
    page = watched.label(project)
    words = prompt(page)
    rate_all(page, 3, lambda at: page.keyboard.press("567"[at]))
    for digit in "122":
        page.keyboard.press(digit)
    page.keyboard.press("Enter")
    stored(page)
    assert prompt(page) != words
    page.keyboard.press("z")
    until(page, "w => document.querySelector('.conversation').innerText === w", arg=words)
    assert page.locator("#status").inner_text() == "A > B = C"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    page.locator(".message", has_text="A > B > C").wait_for()
    ((payload, order, _),) = served.judgments(project)
    assert as_shown(payload, order) == [1, 2, 3]
    page.reload()
    page.wait_for_selector(".task")
    page.keyboard.press("z")
    until(page, "w => document.querySelector('.conversation').innerText === w", arg=words)
    assert page.locator(".step .given").all_inner_texts() == ["5", "6", "7"]


def test_f9_backspace_discards_nothing_but_a_rank(watched, served):
    page = watched.label(served.project("compare", PAIRS))
    page.keyboard.press("3")
    for _ in range(3):
        page.keyboard.press("Backspace")
    assert page.locator("[aria-checked=true] .digit").inner_text() == "3"


def test_a_draft_survives_a_reload_and_another_browser(watched, served):
    project = served.project("demonstrate", WRITTEN["demonstrate"])
    page = watched.label(project)
    words = prompt(page)
    page.keyboard.type("Half an answer")
    with page.expect_response("**/draft"):
        pass
    page.reload()
    page.wait_for_selector("#text")
    assert prompt(page) == words and page.locator("#text").input_value() == "Half an answer"
    other = watched.label(project)
    other.wait_for_selector("#text")
    assert prompt(other) == words and other.locator("#text").input_value() == "Half an answer"
