"""Cases of other tools' trackers that were met on a page, each in a real browser. The rest: `test_studio_cases.py`."""

import time

import pytest

from studio_browser import ANSWERS, PAIRS, PHONE, ranking_items, read_guide, stored, until

pytestmark = pytest.mark.slow
FRENCH = '{"prompt": "Où est le café né à Orléans ?", "completions": ["À côté.", "Désolé."]}\n'


def press(page, key, code, **more):
    """A key as a keyboard of another layout sends it."""
    page.evaluate("""([key, code, more]) => (document.activeElement ?? document.body).dispatchEvent(
        new KeyboardEvent("keydown", { key, code, bubbles: true, cancelable: true, ...more }))""", [key, code, more])


def test_case_1_the_page_sends_a_file_as_it_is(watched, served, tmp_path):
    project = served.project("compare", [])
    path = tmp_path / "latin1.jsonl"
    path.write_bytes(FRENCH.encode("latin-1"))
    page = watched.page()
    page.goto(f"{served.url}/lead/projects/{project}/settings")
    page.locator("#file").set_input_files(path)
    page.get_by_role("button", name="Import").click()
    page.locator(".message", has_text="1 item added").wait_for()
    assert "Windows-1252" in page.locator(".message").inner_text()
    page.goto(f"{served.url}/lead/projects/{project}/items")
    assert page.get_by_text("Où est le café né à Orléans ?").is_visible()


def test_case_8_a_refused_answer_is_copied_or_dropped_and_then_forgotten(troubled, served):
    project = served.project("compare", PAIRS)
    one = troubled.label(project)
    two = one.context.new_page()
    two.goto(f"{served.url}/label/{project}")
    until(two, "document.activeElement.closest('.task')")
    one.keyboard.press("1")
    two.keyboard.press("7")
    one.keyboard.press("Enter")
    stored(one)
    two.keyboard.press("Enter")
    failure = two.locator(".message.failure")
    failure.wait_for()
    assert failure.get_by_role("button").all_inner_texts()[:2] == ["Copy", "Discard"]
    assert "Go back" not in failure.inner_text()
    two.reload()
    two.locator(".message.failure", has_text="Not stored earlier").wait_for()
    two.locator(".message.failure").get_by_role("button", name="Close this message").click()
    two.reload()
    until(two, "document.activeElement.closest('.task')")
    assert two.locator(".message.failure").count() == 0


def test_case_9_my_answers_are_found_and_changed_alone(watched, served):
    project = served.project("compare", PAIRS[:3])
    page = watched.label(project)
    for _ in range(3):
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        stored(page)
    page.goto(f"{served.url}/label/{project}/answers")
    assert page.locator(".item-list li").count() == 3
    page.locator("#q").fill("beans? (0)")
    page.keyboard.press("Enter")
    page.locator(".item-list li").nth(0).wait_for()
    until(page, "document.querySelectorAll('.item-list li').length === 1")
    page.get_by_role("link", name="Change it").click()
    page.locator("[role=radio][aria-checked=true]").wait_for()
    assert "beans? (0)" in page.locator(".conversation").inner_text()
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    stored(page)
    rows = served.judgments(project)
    assert len(rows) == 3, "the two others stand as they were"


def test_case_10_11_leaving_gives_back_and_who_is_done_is_told(watched, served):
    project = served.project("compare", PAIRS[:2], overlap=2)
    page = watched.label(project)
    page.goto(f"{served.url}/")
    held = f"{served.url}/api/projects/{project}/held"
    end = time.monotonic() + 15
    while page.request.get(held).json()["items"]:
        assert time.monotonic() < end, "still held after leaving"
        page.wait_for_timeout(100)
    page.goto(f"{served.url}/label/{project}")
    until(page, "document.activeElement.closest('.task')")
    assert "0 done · about 2 open" in page.locator("#done").inner_text()
    for _ in range(2):
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        stored(page)
    page.get_by_role("heading", name="You have answered all").wait_for()
    assert "2 done · 0 open" in page.locator("#done").inner_text()
    assert page.evaluate("document.querySelector('#meter').value") == 1
    asked = []
    page.on("request", lambda r: asked.append(r.url) if r.url.endswith("/next") else None)
    page.wait_for_timeout(2500)
    assert asked == [], "it does not ask for ever"


def test_cases_19_20_flags_of_any_script_have_names_and_keys(watched, served):
    project = served.project("rate_and_rank", ranking_items(1, 2))
    page = watched.page()
    page.goto(f"{served.url}/lead/projects/{project}/settings")
    labels = ["不真实", "有害", "离题", "Фактическая ошибка", "Factual error", "Unsafe code", "Unsafe code?"]
    page.locator("#form-flags").fill("\n".join(labels))
    with page.expect_navigation():  # the page loads itself again once the form is stored
        page.get_by_role("button", name="Save the form").click()
    until(page, "document.querySelector('#form-flags')?.value.includes('不真实')")
    form = page.request.get(f"{served.url}/api/projects/{project}").json()["form"]
    names = [f["name"] for f in form["rating"]["flags"]]
    assert len(set(names)) == 7 and names[4:6] == ["factual_error", "unsafe_code"]
    page.goto(f"{served.url}/label/{project}")
    read_guide(page)
    keys = page.locator(".rate:visible .flag kbd").all_inner_texts()
    assert len(set(keys)) == 7 and "" not in keys and not {"S", "U", "Q", "N", "Z", "R", "G"} & set(keys)
    page.keyboard.press(keys[0].lower())
    assert page.locator(".rate:visible .flag input").nth(0).is_checked()


def test_case_21_keys_of_other_layouts_and_moved_keys(watched, served):
    project = served.project("compare", PAIRS[:2])
    page = watched.label(project)
    chosen = "[role=radio][aria-checked=true] .digit"
    for key, code, digit in (("&", "Digit1", "1"), ("é", "Digit2", "2"), ("٣", "Digit3", "3"), ("4", "Numpad4", "4")):
        press(page, key, code)
        assert page.locator(chosen).inner_text() == digit
    press(page, "!", "Digit1", shiftKey=True)
    assert page.locator(chosen).inner_text() == "4", "a shifted sign is no digit"
    press(page, "ы", "KeyS")
    page.locator("#skip[open]").wait_for()
    page.keyboard.press("Escape")
    press(page, "τ", "KeyG")
    page.locator("#guide[open]").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.get_by_role("button", name="Another key for: skip, with a reason").click()
    page.keyboard.press("k")
    page.keyboard.press("Escape")
    assert page.locator("#skip-button kbd").inner_text() == "K"
    page.keyboard.press("s")
    assert page.locator("#skip[open]").count() == 0
    page.keyboard.press("k")
    page.locator("#skip[open]").wait_for()
    page.reload()
    until(page, "document.activeElement.closest('.task')")
    assert page.locator("#skip-button kbd").inner_text() == "K", "it is remembered"


def test_cases_22_23_24_lists_run_their_way_and_latex_keeps_its_marks(watched, served):
    text = "Since \\(a_1 \\neq 0\\) and $x_i * y_i$:\n\n\\[\nx_1 = \\frac{a}{b} \\\\\n\\]\n\n$$e^{i_1} * 2$$\n\nIt costs $5 " \
           "and $10.\n\n```python\nprint(1)\n```\n\n- أولا\n- ثانيا"
    project = served.project("compare", [{"prompt": "q", "completions": [text, "b"]}])
    page = watched.label(project)
    card = page.locator(".answer-text", has_text="Since")
    until(page, "document.querySelectorAll('.math math').length === 4")
    titles = " ".join(card.locator(".math").evaluate_all("spots => spots.map(s => s.title)"))
    assert "$5 and $10." in card.inner_text(), "two prices are no formula"
    page.keyboard.press("r")
    words = card.inner_text()
    for mark in ("\\(a_1 \\neq 0\\)", "$x_i * y_i$", "\\[", "x_1 = \\frac{a}{b} \\\\", "\\]", "$$e^{i_1} * 2$$", "$5 and $10."):
        assert mark in words and (mark in titles or "$5" in mark)
    page.keyboard.press("r")
    assert card.locator("em").count() == 0 and card.locator(".math").count() == 4
    assert page.evaluate("getComputedStyle(document.querySelector('.answer-text ul')).direction") == "rtl"
    assert card.locator("pre").get_attribute("data-language") == "python"


def test_rank_only_by_keyboard_and_on_a_phone(watched, served, tmp_path):
    project = served.project("rank", [{"prompt": f"q{i}", "completions": list(ANSWERS[:4])} for i in range(2)])
    page = watched.label(project, viewport={"width": 1280, "height": 720})
    for key in "2314":
        page.keyboard.press(key)
    assert page.locator("#status").inner_text() == "C > A > B > D"
    page.keyboard.press("Enter")
    stored(page)
    ((payload, order, _),) = served.judgments(project)
    assert [payload["ranks"][i] for i in order] == [2, 3, 1, 4]
    phone = watched.page(**PHONE)
    phone.goto(f"{served.url}/label/{project}")
    until(phone, "document.querySelector('#guide[open]') || document.querySelector('.task')")
    if phone.locator("#guide[open]").count():
        phone.keyboard.press("Escape")
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for at in range(4):
        phone.locator(".ranking .card").nth(at).get_by_role("radio").nth(at).click()
    phone.locator("#go").click()
    stored(phone)
    assert len(served.judgments(project)) == 2


def test_case_15_31_a_lead_sets_one_answer_aside_and_times_say_their_zone(watched, served):
    project = served.project("compare", PAIRS[:1])
    page = watched.label(project)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    stored(page)
    page.goto(f"{served.url}/lead/projects/{project}/items")
    page.locator("tbody a").first.click()
    page.get_by_placeholder("Why").fill("a slip")
    page.get_by_role("button", name="Set this answer aside").click()
    page.get_by_role("button", name="Really").click()
    page.get_by_text("a slip").first.wait_for()
    assert page.get_by_role("columnheader", name="When (UTC)").is_visible()
    assert page.get_by_text("What is this disagreement?").count() == 0, "nobody disagrees"
    assert served.judgments(project) == []


def test_the_guide_ends_inside_its_dialog(watched, served):
    project = served.project("compare", PAIRS[:1])
    for size in ({"width": 1280, "height": 720}, {"width": 1440, "height": 900}, PHONE["viewport"]):
        page = watched.page(viewport=size)
        page.goto(f"{served.url}/label/{project}")
        page.locator("#guide[open]").wait_for()
        inside = page.evaluate("""() => { const d = document.querySelector('#guide').getBoundingClientRect();
            const b = document.querySelector('#guide footer button').getBoundingClientRect();
            return b.bottom <= d.bottom - 4 && b.right <= d.right - 4 && b.top >= d.top; }""")
        assert inside, size


CODE = "```python\ndef f(x):  # square\n    return 'x' * 2\n```\n\n```\n" + "a" * 400 + "\n```"
FORMULA = r"As $a^2$ and \(b\) and $$\frac{1}{2}$$ and \unknown{x}, $\badmacro{$ and 5$ or 6$."


def test_case_24_code_is_coloured_named_and_scrolls(watched, served):
    project = served.project("compare", [{"prompt": "q", "completions": [CODE, "plain"]}])
    page = watched.label(project)
    block = page.locator("pre[data-language=python]")
    assert block.locator(".code-keyword").all_inner_texts() == ["def", "return"]
    assert block.locator(".code-comment").inner_text() == "# square" and block.locator(".code-string").inner_text() == "'x'"
    assert block.inner_text().strip().endswith("def f(x):  # square\n    return 'x' * 2"), "the pieces join to what was written"
    named = "getComputedStyle(document.querySelector('pre[data-language]'), '::before').content"
    assert page.evaluate(named) == '"python"'
    assert page.evaluate("(() => { const p = [...document.querySelectorAll('pre')].at(-1);"
                         " return p.scrollWidth > p.clientWidth && getComputedStyle(p).overflowX === 'auto'; })()")
    assert not watched.close()


def test_case_23_formulas_are_typeset_and_what_is_none_stays_as_written(watched, served):
    project = served.project("compare", [{"prompt": "q", "completions": [FORMULA, r"\[\begin{pmatrix}1&2\\3&4\end{pmatrix}\]"]}])
    page = watched.label(project)
    until(page, "document.querySelectorAll('math').length >= 4")
    assert page.locator("math mfrac").count() == 1 and page.locator("math mtd").count() == 4
    text = page.locator(".answer-text", has_text="As").inner_text()
    assert r"\unknown{x}" in text and r"$\badmacro{$" in text and "5$ or 6$" in text
    assert page.evaluate("[...document.querySelectorAll('math *')].every(e => !e.hasAttribute('style') || e.style.length)")
    page.keyboard.press("r")  # the source, marks and all
    assert "$a^2$" in page.locator("#stage").inner_text()
    assert not watched.close()


def test_cases_25_26_a_long_answer_is_folded_and_opens_where_the_focus_goes(watched, served):
    long = "\n\n".join(f"Paragraph {n} of a very long answer, see https://example.org/{n}." for n in range(1500))
    project = served.project("rank", [{"prompt": "q", "completions": [long, long + " More.", "Short."]}])
    page = watched.label(project)
    assert page.evaluate("document.documentElement.scrollHeight") < 4000
    more = page.get_by_role("button", name="Show all").first
    assert more.get_attribute("aria-expanded") == "false"
    more.click()
    until(page, "document.documentElement.scrollHeight > 20000")
    page.get_by_role("button", name="Show less").click()
    page.locator(".folded a").first.focus()
    until(page, "document.documentElement.scrollHeight > 20000")
    assert not watched.close()


def test_case_30_a_lead_searches_jumps_and_goes_back(watched, served):
    project = served.project("compare", [{"prompt": f"Where is number {n}?", "completions": ["a", "b"]} for n in range(230)])
    page = watched.page()
    page.goto(f"{served.url}/lead/projects/{project}/items")
    assert page.locator("tbody tr").count() == 100
    page.get_by_label("Go to page").fill("3")
    page.get_by_role("button", name="Go", exact=True).click()
    page.wait_for_url("**page=3*")
    assert page.locator("tbody tr").count() == 30 and "Page 3 of 3" in page.locator(".pager").inner_text()
    page.get_by_role("link", name="Back").click()
    page.wait_for_url("**page=2*")
    page.get_by_label("Words, or #number").fill("number 217")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**q=number*")
    assert page.locator("tbody tr").count() == 1
    page.get_by_label("All on this page").check()
    page.get_by_role("button", name="Set aside").click()
    page.locator("tbody", has_text="set aside").wait_for()
    assert not watched.close()


def test_a_suggestion_is_accepted_or_seen_after_the_answer(watched, served):
    def items(n):
        return [{"prompt": f"q{i}", "completions": ["a", "b"], "suggestion": {"answer": {"preference": -3}}} for i in range(n)]
    page = watched.label(served.project("compare", items(2), suggestions_after=0))
    page.get_by_text("A model suggests this answer").wait_for()
    chosen = page.locator("[role=radio][aria-checked=true]").get_attribute("aria-label")
    assert "much better" in chosen
    page.keyboard.press("Enter")
    page.get_by_text("Stored:").wait_for()
    page.get_by_role("button", name="Begin with nothing").click()
    assert page.locator("[role=radio][aria-checked=true]").count() == 0
    page.context.close()
    page = watched.label(served.project("compare", items(1), suggestions_after=1))
    assert page.get_by_text("A model suggests").count() == 0 and page.locator("[aria-checked=true]").count() == 0
    page.keyboard.press("t")
    page.keyboard.press("Enter")
    page.get_by_text("A model had suggested:").wait_for()
    page.get_by_role("button", name="Change it").click()
    page.locator(".task").wait_for()
    assert not watched.close()


def test_own_questions_are_answered_by_keyboard(watched, served):
    project = served.project("questions", [{"prompt": "q", "completions": ["One. Two 🔵 three.", "Other."]}])
    page = watched.label(project)
    for key in ("6", "2", "3", "1"):
        page.keyboard.press("ArrowUp")
        while page.locator("fieldset.current legend").inner_text().startswith("Mark"):
            page.keyboard.press("ArrowDown")
        page.keyboard.press(key)
    page.evaluate("document.activeElement.blur()")
    while "still to answer" in page.locator("#status").inner_text():
        page.keyboard.press("ArrowDown")
        if page.locator("fieldset.current [aria-checked=true]").count() == 0:
            page.keyboard.press("1")
        assert page.locator("fieldset").count()
    card = page.locator("article.card", has_text="🔵").first
    card.get_by_label("Sentence to mark").select_option(index=2)
    card.get_by_role("button", name="Wrong fact").click()
    assert card.locator(".marks q").inner_text() == "Two 🔵 three."
    page.keyboard.press("Escape")
    page.locator("#go").click()
    page.get_by_text("questions answered").wait_for()
    ((payload, _, _),) = served.judgments(project)
    (marked,) = [m for one in payload["said"]["answers"] for m in one["errors"]]
    text = next(t for t in payload["completions"] if "🔵" in t)
    assert text[marked["from"]:marked["to"]] == "Two 🔵 three."
    assert not watched.close()


def test_the_pages_speak_german_and_run_from_right_to_left(watched, served):
    project = served.project("compare", [{"prompt": "q", "completions": ["a", "b"]}])
    page = watched.label(project, locale="de")
    assert page.locator("#go .label").inner_text() == "Absenden" and page.locator("html").get_attribute("lang") == "de"
    page.context.close()
    page = watched.label(project, locale="ar")
    assert page.locator("html").get_attribute("dir") == "rtl"
    assert page.evaluate("document.querySelector('.prompt').getBoundingClientRect().x > document.querySelector('.work')"
                         ".getBoundingClientRect().x"), "the prompt stands at the right"
    page.keyboard.press("ArrowRight")  # where A stands
    assert page.locator("[aria-checked=true]").get_attribute("aria-label").startswith("A ")
    page.locator("details.menu summary").click()
    page.get_by_label("اللغة").select_option("en")
    page.locator("#go .label", has_text="Submit").wait_for()
    assert not watched.close()
