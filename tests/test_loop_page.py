"""The loop's pages in a browser: `/loop` of a server by keyboard, and the page that `harken loop` writes."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

import test_loop
from harken.launch.loop import drive
from harken.launch.loop.turns import Loop
from harken.report.loop import build_loop
from harken.store.files import write_jsonl
from studio_browser import PHONE, Watched, until
from test_loop_gate import planted
from test_loop_real import Site

pytestmark = pytest.mark.slow
SIZES = [{"viewport": {"width": 1280, "height": 720}}, {**PHONE, "color_scheme": "dark"}]


def looped(folder):
    """A turn that was promoted, one that the gate closed, and one that waits."""
    with pytest.MonkeyPatch.context() as patch:
        test_loop.cheap(patch)
        estimate = {"value": 0.71, "low": 0.66, "high": 0.76, "n": 120, "level": 0.95}

        def verify(recipe, turn, place):
            gains = {"plain": 0.8, "gullible": -0.7 if turn.number == 2 else 0.5}
            write_jsonl(place / "scores.jsonl", planted(gains, turn.number))
            return {"figures": {"win_rate": estimate, "judge": {"new": estimate, "old": estimate}}, "prompts": 120, "answers": 2}
        patch.setitem(drive.STEPS, "verify", verify)
        test_loop.world.write_prompts(folder / "verify.jsonl", 5, 5)
        its = test_loop.recipe(folder, approve={}, gate={})
        for number in range(3):
            test_loop.say(its.db[0], [(f"u{i % 6}", "k", "r") for i in range(60)], first=100 * number)
            drive.drive(its)
            if number == 0:
                test_loop.decided(its)
                drive.drive(its)
    return its


@pytest.fixture
def site(tmp_path):
    its = looped(tmp_path)
    found = Site(its)
    yield found, its
    found.stop()


def faults(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [f"{v['id']}: {[(n['target'], n['failureSummary']) for n in v['nodes']]}" for v in found]


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def to(page, name):
    """Tab until the button of this name has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == name:
            return
    raise AssertionError(f"{name} cannot be reached by Tab")


@pytest.mark.parametrize("options", SIZES, ids=["desk", "dark phone"])
def test_a_turn_is_decided_on_by_keyboard(browser, site, options):
    served, its = site
    watched = Watched(browser, served.url)
    page = watched.page(bypass_csp=True, **options)
    page.goto(f"{served.url}/loop")
    page.get_by_role("heading", name="Turn 3: waits for approval").wait_for()
    assert page.locator("article h2").all_inner_texts()[1:] == ["Turn 2: ended", "Turn 1: serving"]
    assert faults(page) == [] and fits(page)
    to(page, "Approve turn 3")
    page.keyboard.press("Enter")
    page.get_by_text("Turn 3: approve, me.").wait_for()
    assert Loop(its.out).turn(3).facts("approval")["decision"] == "approve"
    to(page, "Roll back to start")
    page.keyboard.press("Enter")
    page.get_by_text("start is served again").wait_for()
    until(page, "document.querySelector('#rollback').disabled")
    assert Loop(its.out).pointer["serving"] == 0 and faults(page) == []
    assert watched.close() == []


@pytest.mark.parametrize("options", SIZES, ids=["desk", "dark phone"])
def test_axe_finds_nothing_in_the_written_page_and_it_fits(browser, tmp_path, options):
    out = build_loop(looped(tmp_path), tmp_path / "loop.html")
    page = browser.new_context(bypass_csp=True, **options).new_page()
    page.goto(out.as_uri())
    page.get_by_role("heading", name="Gates").wait_for()
    assert faults(page) == [] and fits(page)
    page.context.close()
