"""A whole task by what a screen reader has of the page: roles, names, states and what is spoken."""

import pytest

from studio_browser import ranking_items, until

pytestmark = pytest.mark.slow


def hears(page, *words):
    """Waits until a live region holds all of these words; returns what is in it."""
    said = "(words) => [...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map((e) => e.textContent)"
    until(page, f"(words) => ({said})().some((one) => words.every((word) => one.includes(word)))", arg=list(words))


def chosen(group):
    return [radio.get_attribute("aria-label") or radio.inner_text() for radio in group.get_by_role("radio", checked=True).all()]


def press(control, key):
    """As somebody who cannot see does it: the control has the focus, then the key."""
    control.focus()
    control.press(key)


def test_a_whole_task_by_roles_names_and_what_is_spoken(watched, served):
    """From the list of projects to the stored answer and back to change it: rate two answers, rank them, submit, undo."""
    project = served.project("rate_and_rank", ranking_items(2, 2))
    page = watched.page()
    page.goto(f"{served.url}/")
    name = page.request.get(f"{served.url}/api/projects/{project}").json()["name"]
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name, exact=True))
    press(card.get_by_role("link", name="Label"), "Enter")
    guide = page.get_by_role("dialog", name="Guide")
    guide.wait_for()
    assert guide.evaluate("d => d.contains(document.activeElement)"), "the dialog has the focus"
    press(guide.get_by_role("button", name="Close").last, "Enter")
    guide.wait_for(state="hidden")
    main = page.get_by_role("main")
    assert name in main.get_by_role("heading", level=1).inner_text()
    for region in ("Prompt", "Your answer"):
        assert main.get_by_role("region", name=region, exact=True).count() == 1
    submit = page.get_by_role("contentinfo", name="Actions").get_by_role("button", name="Next")
    press(submit, "Enter")
    hears(page, "Answer A needs an overall rating")
    for letter, value in (("A", "6"), ("B", "3")):
        article = main.get_by_role("article", name=f"Answer {letter}", exact=True)
        scale = article.get_by_role("radiogroup", name=f"Overall quality of answer {letter}, 1 worst, 7 best")
        assert chosen(scale) == [] and scale.get_by_role("radio").count() == 7
        press(scale.get_by_role("radio", name=value, exact=True), "Space")
        assert chosen(scale) == [value]
        flag = article.get_by_role("checkbox", name="Gives harmful advice")
        press(flag, "Space")
        assert flag.is_checked()
        press(flag, "Space")
        press(page.get_by_role("button", name="Next"), "Enter")
    hears(page, "Rank all 2 answers")
    steps = main.get_by_role("navigation", name="Steps")
    assert steps.get_by_role("button", name="Rate answer A, rated 6").count() == 1
    assert steps.locator("[aria-current=step]").inner_text() == "Rank"
    for letter, rank in (("A", "Rank 1, best"), ("B", "Rank 2")):
        ranks = main.get_by_role("radiogroup", name=f"Rank of answer {letter}")
        press(ranks.get_by_role("radio", name=rank, exact=True), "Space")
        hears(page, f"Answer {letter}: rank {rank[5]}")
        assert chosen(ranks) == [rank]
    hears(page, "All are ranked")
    order = main.get_by_role("group", name="Order so far")
    assert order.get_by_role("button", name="Answer A, rank 1. Go to it").count() == 1
    press(page.get_by_role("button", name="Submit"), "Enter")
    hears(page, "Stored:", "A", "B")
    hears(page, "2 answers to judge")
    assert page.evaluate("document.activeElement.closest('article, section').getAttribute('aria-label')") == "Answer A"
    ((payload, shown, _),) = served.judgments(project)
    assert [payload["ranks"][i] for i in shown] == [1, 2] and [payload["ratings"][i]["overall"] for i in shown] == [6, 3]
    press(page.get_by_role("button", name="Undo"), "Enter")
    hears(page, "Undone. Your answer is back.")
    assert chosen(main.get_by_role("radiogroup", name="Rank of answer A")) == ["Rank 1, best"]
    assert served.judgments(project) == []
