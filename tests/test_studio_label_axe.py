"""Every form while somebody labels, its dialogs open too, under axe: nothing serious."""

import pytest

from studio_browser import KINDS, axe

pytestmark = pytest.mark.slow

SEEN = [(kind, scheme) for kind in KINDS for scheme in ("light", "dark") if kind not in ("rank", "questions") or scheme == "dark"]


@pytest.mark.parametrize(("kind", "scheme"), SEEN)
def test_axe_finds_nothing_serious_while_labeling(watched, served, kind, scheme):
    page = watched.label(served.project(kind, KINDS[kind]), color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert axe(page) == []
    if kind == "rate_and_rank":
        for _ in range(5):
            page.keyboard.press("5")
            page.keyboard.press("Enter")
        for key in "12d":
            page.keyboard.press(key)
        assert axe(page) == []
    if kind == "edit":
        page.locator("#text").fill("Another text. Entirely.")
        assert axe(page) == []
    page.keyboard.press("Escape")
    for key, dialog in (("?", "keys"), ("s", "skip"), ("u", "unsafe"), ("g", "guide")):
        page.locator("#go").focus()
        page.keyboard.press(key)
        page.locator(f"#{dialog}[open]").wait_for()
        assert axe(page) == [], dialog
        page.keyboard.press("Escape")
        page.wait_for_timeout(100)  # closing hands the focus back to the form
