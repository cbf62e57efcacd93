"""The chat page in a browser: by keyboard, on a phone, what the person says of answers stored and taken back."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

from serve_site import Served, toy_sampler, weights
from studio_browser import PHONE, Watched, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    found = Served([weights(sampler=toy_sampler(ends=True), max_tokens=60)], folder=tmp_path_factory.mktemp("serve"))
    yield found
    found.stop()


@pytest.fixture
def watched(browser, chat):
    found = Watched(browser, chat.url)
    yield found
    assert found.close() == []


def opened(watched, **options):
    page = watched.page(**options)
    page.goto(f"{watched.url}/chat")
    return page


def ask(page, text):
    page.locator("#question").fill(text)
    page.keyboard.press("Enter")
    page.locator("#send").wait_for()
    until(page, "!document.querySelector('[aria-busy=true]')")


def agree(page):
    page.locator("#consent[open]").wait_for()
    page.locator("#consent .go").press("Enter")


def kept(chat, since):
    return list(chat.server.db.judgments())[since:]


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_thumbs_toggle_and_are_taken_back(watched, chat, options):
    since = len(kept(chat, 0))
    page = opened(watched, **options)
    ask(page, "Hello")
    good, bad = page.get_by_label("Good answer"), page.get_by_label("Bad answer")
    good.press("Enter")
    agree(page)
    page.locator("[aria-label='Good answer'][aria-pressed=true]").wait_for()
    bad.press("Enter")
    page.locator("[aria-label='Bad answer'][aria-pressed=true]").wait_for()
    (thumb,) = kept(chat, since)
    assert thumb.payload["label"] is False and thumb.payload["served"]["consent"] is True and thumb.labeler == "me"
    assert thumb.prompt.text == "Hello" and thumb.seconds is not None
    page.locator("#mine").press("Enter")
    page.get_by_role("button", name="Take back: Bad answer").first.press("Enter")
    page.locator("#given li:first-child p.gone").wait_for()
    assert kept(chat, since) == []
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('[aria-pressed=true]')")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_which_of_two_is_better_by_key(watched, chat):
    since = len(kept(chat, 0))
    page = opened(watched)
    page.locator("#compare").check()
    ask(page, "Two, please")
    shown = [t.strip() for t in page.locator(".pair .prose").all_inner_texts()]
    page.keyboard.press("2")
    agree(page)
    page.locator(".verdict").wait_for(state="detached")
    (pair,) = kept(chat, since)
    at = list(pair.order)
    assert pair.choice().ranks[at[1]] == 1 and pair.choice().ranks[at[0]] == 2
    assert [" ".join(pair.payload["completions"][i].split()) for i in at] == [" ".join(t.split()) for t in shown]
    assert page.evaluate("document.activeElement.id") == "question"


def test_an_edited_answer_a_changed_question_and_the_way_back(watched, chat):
    since = len(kept(chat, 0))
    page = opened(watched)
    ask(page, "First")
    page.get_by_label("Improve this answer").press("Enter")
    page.get_by_label("Your version").fill("A better answer.")
    page.keyboard.press("Control+Enter")
    agree(page)
    page.get_by_text("improved by you").wait_for()
    page.get_by_label("Edit my message").press("Enter")
    page.get_by_label("Your version").fill("Second")
    page.keyboard.press("Control+Enter")
    page.get_by_text("2/2").wait_for()
    until(page, "!document.querySelector('[aria-busy=true]')")
    assert page.locator(".turn.user .said").inner_text() == "Second"
    page.get_by_label("Previous version").first.press("Enter")
    assert page.locator(".turn.user .said").inner_text() == "First"
    assert page.locator(".turn.assistant .prose").inner_text() == "A better answer."
    page.reload()
    assert page.locator(".turn.assistant .prose").inner_text() == "A better answer."
    (edit,) = [j for j in kept(chat, since) if j.kind == "edit"]
    assert edit.demonstration().completion == "A better answer." and edit.choice().ranks == (1, 2)


def test_signals_only_after_consent_and_answers_again(watched, chat):
    since = len(kept(chat, 0))
    page = opened(watched)
    ask(page, "Go")
    page.get_by_label("Answer again").press("Enter")
    page.get_by_text("2/2").wait_for()
    until(page, "!document.querySelector('[aria-busy=true]')")
    assert kept(chat, since) == []
    page.get_by_label("Good answer").press("Enter")
    page.locator("#consent[open]").wait_for()
    page.get_by_role("button", name="Not now").press("Enter")
    page.wait_for_timeout(100)
    assert kept(chat, since) == []
    page.get_by_label("Good answer").press("Enter")
    agree(page)
    page.locator("[aria-pressed=true]").wait_for()
    page.get_by_label("Answer again").press("Enter")
    page.get_by_text("3/3").wait_for()
    until(page, "!document.querySelector('[aria-busy=true]')")
    assert [(j.kind, j.payload.get("signal")) for j in kept(chat, since)] == [("thumb", None), ("use", "regenerate")]


def test_what_a_model_or_a_person_writes_never_runs(watched, chat):
    page = opened(watched)
    ask(page, "<img src=x onerror=alert(1)><script>alert(2)</script>")
    page.get_by_label("Improve this answer").press("Enter")
    page.get_by_label("Your version").fill("<img src=x onerror=alert(3)> **bold** [link](javascript:alert(4))")
    page.keyboard.press("Control+Enter")
    agree(page)
    page.locator(".prose strong").wait_for()
    assert page.locator("#talk img, #talk script, #talk a[href^=javascript]").count() == 0


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    sampler = toy_sampler(ends=True)
    sampler.engine.model.get_output_embeddings().bias.data[sampler.engine.template.end_id] = -50.0
    found = Served([weights(sampler=sampler, max_tokens=480)], folder=tmp_path_factory.mktemp("endless"))
    yield found
    found.stop()


def test_escape_stops_and_frees_the_row(browser, endless):
    watched = Watched(browser, endless.url)
    page = opened(watched)
    page.locator("#question").fill("Talk")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.writing .prose')?.textContent.length > 3")
    page.keyboard.press("Escape")
    page.get_by_text("stopped", exact=True).wait_for()
    until(page, "!document.querySelector('[aria-busy=true]')")
    for _ in range(200):
        if not endless.server._in_flight["toy"]:
            break
        page.wait_for_timeout(20)
    assert endless.server._in_flight["toy"] == 0
    assert watched.close() == []


@pytest.mark.parametrize("options", [{}, {**PHONE, "color_scheme": "dark"}], ids=["light", "dark phone"])
def test_axe_finds_nothing(watched, options):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(watched, bypass_csp=True, **options)
    ask(page, "Hello")
    page.locator("#compare").check()
    ask(page, "Two")
    found = axe.run(page).response["violations"]
    faults = [f"{v['id']}: {[(n['target'], n['failureSummary']) for n in v['nodes']]}" for v in found]
    assert faults == []
