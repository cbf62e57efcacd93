"""The lead's pages in a real browser, and every page out of labeling under axe: nothing serious, nothing from elsewhere."""

import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harken.studio.client import Client
from harken.web import accounts
from studio_browser import KINDS, PHONE, Served, Watched, axe, overview, ranking_items, read_guide, stored, until
from studio_crowd import crowd

pytestmark = pytest.mark.slow

PICTURES = os.environ.get("HARKEN_PICTURES")  # a folder, docs/studio: the pictures of the docs are written into it
PEOPLE = {
    "Ada": {"noise": 0.4},
    "Ben": {"noise": 0.7},
    "Chloe": {"noise": 0.5},
    "Dan": {"guesses": 0.95},
    "Emil": {"noise": 0.5, "first": 0.6},
    "Fatima": {"noise": 0.9},
}
ASKED = (
    "How do I get rid of ants in the kitchen without poison?",
    "Explain to a child of six why the sky is blue.",
    "Write a polite letter that declines an invitation.",
    "Which plants grow well in the shade?",
    "Is it safe to eat rice that stood out overnight?",
    "How do I ask my landlord to repair the heating?",
)
SAID = (
    "Start with what you have at home.",
    "Ask the neighbours first; somebody has done it before.",
    "The short answer is yes, with one exception.",
    "It depends on the season, and on the soil.",
    "There are three ways, and the second is the cheapest.",
    "Nobody knows for certain.",
)


@pytest.fixture(scope="module")
def crowded(served):
    """A project that six people of known faults have half answered."""
    rng, worth, rows = random.Random(3), {}, []
    for n in range(60):
        texts = [" ".join(rng.choice(SAID) for _ in range(rng.randint(1, 4))) + f" ({n}.{j})" for j in range(4)]
        worth.update({t: rng.gauss(0, 1.2) for t in texts})
        rows.append(
            {
                "prompt": f"{ASKED[n % len(ASKED)]} ({n})",
                "completions": [{"text": t, "source": f"model {j}"} for j, t in enumerate(texts)],
            }
        )
    project = served.project("rate_and_rank", rows, name="Kitchen and garden", overlap=3, repeat_rate=0.1, repeat_minutes=0)
    crowd(served.studio, project, PEOPLE, worth.__getitem__, 170)
    return project


def picture(page, name, **options):
    """Writes docs/studio/NAME.png, in 128 colours, where pictures are wanted."""
    if not PICTURES:
        return
    from PIL import Image

    path = Path(PICTURES) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, **options)
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 150_000, f"{path} has {path.stat().st_size} bytes"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(watched, served, crowded, scheme):
    page = watched.page(color_scheme=scheme)
    item = served.studio.db.link
    with item.reading() as tx:
        from sqlalchemy import select

        from harken.store.studio_schema import items

        first = tx.execute(select(items.c.id).where(items.c.project_id == crowded).order_by(items.c.id)).scalar()
    paths = [
        "/",
        "/login",
        "/join",
        "/setup",
        "/account",
        "/lead/new",
        "/lead/people",
        "/lead/projects/999",
        f"/lead/items/{first}",
        *(f"/lead/projects/{crowded}{tail}"
          for tail in ("", "/items", "/items?list=disagree", "/answers", "/models", "/settings")),
        f"/label/{crowded}/answers",
    ]
    overview(page, served.url, crowded)  # its figures are there from now on
    for path in paths:
        page.goto(served.url + path)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert axe(page) == [], path
    watched.faults = [
        f for f in watched.faults if "404" not in f and "400" not in f
    ]  # the missing project, the missing invitation


def test_the_overview_finds_the_faults_that_were_planted(watched, served, crowded):
    page = watched.page(viewport={"width": 1360, "height": 850})
    overview(page, served.url, crowded)
    cells = {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts()
        for row in page.get_by_role("group", name="Labelers").locator("tbody tr").all()
    }
    assert set(cells) == set(PEOPLE)
    assert "may be guessing" in cells["Dan"][3]
    assert sum("may be guessing" in " ".join(c) for c in cells.values()) == 1
    gains = {name: float(c[4].replace("−", "-")) for name, c in cells.items()}
    assert max(gains, key=gains.get) == "Emil" and gains["Emil"] > 1
    tiles = page.locator(".tiles").inner_text()
    assert "of 60" in tiles and "of 180" in tiles
    assert page.locator("svg.interval").count() > 10 and page.locator("svg.bars rect").count() > 5


def test_every_number_leads_to_the_items_behind_it(watched, served, crowded):
    page = watched.page()
    overview(page, served.url, crowded)
    shared = page.locator(".matrix td a").first
    address = shared.get_attribute("href")
    both = [n.split("=")[1] for n in address.split("?")[1].split("&")]
    shared.click()
    assert f"Answered by {both[0]} and {both[1]}" in page.locator("h2").inner_text()
    listed = page.locator("tbody tr").count()
    assert 0 < listed < 60
    page.locator("tbody th a").first.click()
    said = page.get_by_role("group", name="Ranks by labeler").inner_text()
    assert both[0] in said and both[1] in said
    overview(page, served.url, crowded)
    page.get_by_role("link", name="Krippendorff's alpha", exact=True).click()
    assert page.locator("tbody tr").count() > 5
    overview(page, served.url, crowded)
    assert page.locator(".tiles dd").count() == page.locator(".tiles dd a").count() == 6
    answers = int(page.locator("[data-field=last_hour]").inner_text().replace(",", ""))
    page.locator(".tiles a", has=page.locator("[data-field=last_hour]")).click()
    assert 0 < page.locator("tbody tr").count() <= answers
    overview(page, served.url, crowded)
    page.get_by_text("Numbers").first.click()
    page.locator("details[open] td a").first.click()
    assert "Answered from" in page.locator("h2").inner_text() and page.locator("tbody tr").count() > 0
    overview(page, served.url, crowded)
    for path in [a.get_attribute("href") for a in page.locator("main a").all()]:
        assert page.request.get(served.url + path if path.startswith("/") else page.url.split("?")[0] + path).status == 200, path


def test_f16_a_disagreement_is_read_and_every_label_stays(watched, served, crowded):
    before = served.judgments(crowded)
    page = watched.page()
    overview(page, served.url, crowded)
    first = page.locator(".item-list a").first
    address = first.get_attribute("href")
    first.click()
    page.get_by_label("Different values").check()
    for at, rank in enumerate("1223"):
        page.locator(f"#rank-{at}").fill(rank)
    page.get_by_label("Why").fill("Both readings are fair. <b>!</b>")
    with page.expect_navigation():
        page.get_by_role("button", name="Decide").click()
    assert "Different values, ranks 1, 2, 2, 3: Both readings are fair. <b>!</b>" in page.locator(".notice").inner_text()
    overview(page, served.url, crowded)
    assert address not in [a.get_attribute("href") for a in page.locator(".item-list a").all()]
    page.get_by_role("link", name="Decided", exact=True).click()
    assert [a.get_attribute("href") for a in page.locator("tbody th a").all()] == [address]
    assert served.judgments(crowded) == before


def test_a_lead_makes_a_project_imports_a_file_and_labels(watched, served, tmp_path):
    page = watched.page()
    page.goto(f"{served.url}/lead/new")
    page.get_by_label("Name").fill("Made in the browser")
    page.get_by_text("Compare two answers").click()
    page.get_by_label("at most").fill("4")
    page.get_by_role("button", name="Make the project").click()
    page.get_by_role("heading", name="Add items").wait_for()
    rows = tmp_path / "items.jsonl"
    rows.write_text(
        '{"prompt": "Beans?", "completions": ["a", {"text": "b", "source": "m"}]}\n'
        '{"prompt": "Peas?", "completions": ["c", "d"]}\n'
    )
    page.get_by_label("File").set_input_files(rows)
    page.get_by_role("button", name="Import").click()
    page.locator(".message", has_text="2 items added").wait_for()
    rows.write_text('{"prompt": "Beans?", "completions": ["only one", "x"]}\n{"prompt": "Broken", "completions": ["a"]}\n')
    page.get_by_label("File").set_input_files(rows)
    with page.expect_response("**/import"):
        page.get_by_role("button", name="Import").click()
    until(page, "document.querySelector('form[data-file] .error').textContent.includes('Item 2')")
    page.get_by_text("Or write one here").click()
    page.get_by_label("Prompt", exact=True).fill("Kale?")
    page.get_by_label("Answers, with a line").fill("In spring.\n---\nIn autumn.")
    page.get_by_role("button", name="Add it").click()
    page.locator(".message", has_text="1 item added").wait_for()
    page.get_by_text("Or bring what people said elsewhere").click()
    rows.write_text('{"prompt": "Leeks?", "completions": ["a", "b"], "ranks": [2, 1], "labeler": "zoe"}\n')
    page.locator("#judged").set_input_files(rows)
    page.get_by_role("button", name="Store them").click()
    page.locator(".message", has_text="1 comparison stored").wait_for()
    page.get_by_role("link", name="Label").click()
    read_guide(page)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    stored(page)
    watched.faults = [f for f in watched.faults if "400" not in f]


def _session_ends_while_writing(served, page, project):
    """Case 7: what is sent without a session waits in the page, and is stored after a login, nothing typed again."""
    read_guide(page)
    page.keyboard.press("1")
    page.context.clear_cookies(name="harken_session")
    page.keyboard.press("Enter")
    page.locator("#connection", has_text="Log in").wait_for()
    assert "1 waiting" in page.locator("#connection").inner_text() and served.judgments(project) == []
    other = page.context.new_page()
    other.goto(f"{served.url}/login")
    other.get_by_label("Name").fill("gustav")
    other.get_by_label("Password").fill("another password")
    other.get_by_role("button", name="Log in").click()
    other.get_by_role("heading", name="Projects").wait_for()
    end = time.monotonic() + 20
    while not served.judgments(project):
        assert time.monotonic() < end, page.locator("#connection").inner_text()
        page.wait_for_timeout(50)
    assert len(served.judgments(project)) == 1


def test_invitation_login_and_what_a_labeler_may_see(browser, tmp_path):
    served = Served(tmp_path)
    watched = Watched(browser, served.url)
    try:
        project = served.project("compare", KINDS["compare"])
        page = watched.page()
        page.goto(f"{served.url}/setup")
        page.get_by_label("Name").fill("lena")
        page.get_by_label("Password").fill("a long password")
        page.get_by_role("button", name="Make the account").click()
        page.get_by_role("heading", name="Projects").wait_for()
        page.goto(f"{served.url}/lead/people")
        page.get_by_role("button", name="Make a link").click()
        until(page, "document.querySelector('#link').value.includes('/join#')")
        link = page.locator("#link").input_value()
        assert link.startswith(served.url)

        page.goto(f"{served.url}/account")
        page.get_by_label("Name").fill("notebook")
        page.get_by_role("button", name="Make a token").click()
        until(page, "document.querySelector('#token').value.startsWith('hk_')")
        headers = {"Authorization": f"Bearer {page.locator('#token').input_value()}"}
        programs = watched.page().request
        assert programs.get(f"{served.url}/api/projects", headers=headers).status == 200
        page.reload()
        with page.expect_navigation():
            page.get_by_role("button", name="Withdraw notebook").click()
        assert programs.get(f"{served.url}/api/projects", headers=headers).status == 401

        guest = watched.page()
        guest.goto(f"{served.url}/label/{project}")
        assert "/login?next=" in guest.url
        guest.goto(link)
        guest.get_by_label("Name").fill("gustav")
        guest.get_by_label("Password").fill("another password")
        guest.get_by_label("I agree").check()
        guest.get_by_role("button", name="Join").click()
        guest.get_by_role("heading", name="Projects").wait_for()
        for path in (
            "/lead/people",
            "/lead/new",
            f"/lead/projects/{project}",
            f"/lead/projects/{project}/items",
            f"/lead/projects/{project}/settings",
            "/lead/items/1",
        ):
            assert guest.request.get(served.url + path).status == 404, path
        guest.locator("summary", has_text="gustav").click()
        guest.get_by_role("button", name="Log out").click()
        guest.get_by_role("heading", name="Log in").wait_for()
        guest.goto(f"{served.url}/login?next=//evil.invalid/")
        guest.get_by_label("Name").fill("gustav")
        guest.get_by_label("Password").fill("another password")
        guest.get_by_role("button", name="Log in").click()
        guest.get_by_role("heading", name="Projects").wait_for()
        assert guest.url == served.url + "/"
        guest.goto(f"{served.url}/label/{project}")
        guest.locator("#guide[open]").wait_for()
        assert "source" not in guest.locator("#data").text_content()
        _session_ends_while_writing(served, guest, project)
    finally:
        faults = watched.close(("status of 401", "status of 403", "status of 404"))  # 403: the session before's token, once
        served.stop()
    assert faults == []


def test_an_item_shows_how_much_better_and_what_was_changed(watched, served):
    client, page, shown = Client(served.url), watched.page(), []
    client.me()
    for kind, item, said in (
        ("compare", {"completions": ["a", "b"]}, {"preference": 3}),
        ("edit", {"original": "Plant 🌱 them in May."}, {"text": "Sow 🌱 them in May.", "use_case": "chat"}),
    ):
        (task,) = client.next(served.project(kind, [{"prompt": "Beans?", **item}]))["tasks"]
        client.submit(task, said)
        page.goto(f"{served.url}/lead/projects/{task['project']}")
        assert "Answers" in page.locator("main").inner_text()
        page.goto(f"{served.url}/lead/items/{task['item']}")
        shown.append(page.locator("section[aria-labelledby=said]").inner_text())
    assert "much better" in shown[0]
    assert page.locator("mark.gone").inner_text() == "Plant" and page.locator("ins").inner_text() == "Sow"
    assert "🌱 them in May." in shown[1] and "chat" in shown[1]


def test_a_withdrawal_says_what_it_reached(watched, served):
    page = watched.page()
    served.write(lambda tx: accounts.add_user(tx, "Wim", None, "labeler", datetime.now(UTC)))
    page.goto(f"{served.url}/lead/people")
    row = page.locator("tr", has_text="Wim")
    row.get_by_role("button", name="Withdraw").click()
    row.get_by_role("button", name="Really").click()
    page.locator(".message", has_text="0 answers of Wim leave all later snapshots. No snapshot holds any.").wait_for()
    assert "withdrawn" in row.inner_text()


def test_snapshots_and_members(watched, served, crowded):
    page = watched.page()
    page.goto(f"{served.url}/lead/projects/{crowded}/settings")
    page.locator("#snap-name").fill("first")
    with page.expect_navigation():
        page.get_by_role("button", name="Make a snapshot").click()
    row = page.get_by_role("group", name="Snapshots").locator("tbody tr").inner_text()
    assert "first" in row and "comparisons" in row
    with page.expect_navigation():
        page.get_by_role("button", name="Take out Dan").click()
    assert "taken out" in page.locator("tr", has_text="Dan").inner_text()


def test_f12_a_lead_changes_the_form_and_old_answers_keep_theirs(watched, served):
    project = served.project("rate_and_rank", ranking_items(1, 2))
    page = watched.page()
    page.goto(f"{served.url}/lead/projects/{project}/settings")
    before = page.request.get(f"{served.url}/api/projects/{project}").json()["form"]
    save = page.get_by_role("button", name="Save the form")
    with page.expect_event("load"):
        save.click()
    assert page.request.get(f"{served.url}/api/projects/{project}").json()["form"] == before, "nothing changed: the same version"
    flags = page.get_by_label("Flags of an answer")
    flags.fill(flags.input_value() + "\nToo long, or padded | Closed domain\n")
    page.get_by_label("Labelers may write notes").uncheck()
    with page.expect_event("load"):
        save.click()
    after = page.request.get(f"{served.url}/api/projects/{project}").json()["form"]
    new = {"name": "too_long_or_padded", "label": "Too long, or padded", "only": "closed_domain"}
    assert after["rating"]["flags"] == [*before["rating"]["flags"], new] and after["notes"] is False
    flags.fill("One | No such flag")
    save.click()
    page.get_by_text("must name one of the prompt flags").wait_for()
    watched.faults = [f for f in watched.faults if "400" not in f]


def test_the_guide_shows_new_instructions_by_themselves(watched, served):
    project = served.project("compare", KINDS["compare"])
    page = watched.label(project)
    page.goto(f"{served.url}/lead/projects/{project}/settings")
    page.get_by_label("Markdown").fill("# New words\n\nBe **kind**.")
    with page.expect_navigation():
        page.get_by_role("button", name="Save as a new version").click()
    assert page.get_by_role("heading", name="Instructions, version 2").count() == 1
    page.goto(f"{served.url}/label/{project}")
    page.locator("#guide[open]", has_text="Be kind.").wait_for()


def test_no_page_is_wider_than_a_phone(watched, served, crowded):
    page = watched.page(**PHONE)
    overview(page, served.url, crowded)
    for path in (
        "/",
        "/lead/new",
        "/lead/people",
        "/account",
        *(f"/lead/projects/{crowded}{t}" for t in ("", "/items", "/settings")),
    ):
        page.goto(served.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


PARTY = """My daughter turns nine in June. Suggest **ideas for her birthday party** in our garden, for about ten children. \
We would like to spend less than 100 euros."""
IDEAS = """Here are three ideas that cost little:

1. **A treasure hunt.** Hide clues in flower pots; the last one leads to the cake.
2. **A film night.** Hang a white sheet between two trees and borrow a projector.
3. **A small Olympics.** Sack race, egg and spoon, and medals made of gingerbread.

If it rains, the hunt works indoors as well."""
PARTIES = [
    IDEAS,
    IDEAS.replace("three ideas that cost little", "some ideas")
    .replace("borrow a projector", "rent a projector for 60 euros")
    .replace("If it rains, the hunt works indoors as well.", "All of them need dry weather."),
    "How lovely! You could rent a bouncy castle, book a magician and order a cake from a bakery. Children love all of these.",
    "A garden party is a party that takes place in a garden. Many children like them.",
]


@pytest.mark.skipif(not PICTURES, reason="HARKEN_PICTURES names no folder")
def test_pictures_for_the_docs(watched, served, crowded):
    # what labelers see is in a random order; here the pictures need one: the order of a task is drawn from project and item
    project = served.project(
        "rate_and_rank",
        [{"prompt": PARTY, "completions": PARTIES, "use_case": "brainstorming"}],
        name="Assistant answers, round 4",
    )
    wide = {"viewport": {"width": 1360, "height": 820}}
    page = watched.label(project, **wide)
    page.keyboard.press("6")
    picture(page, "rate")
    for _ in range(4):
        words = page.locator(".rate:visible .answer-text").inner_text()
        page.keyboard.press("6" if "three ideas" in words else "5" if "some ideas" in words else "3")
        page.keyboard.press("Enter")
    best = next(i for i in range(4) if "three ideas" in page.locator(".ranking .card").nth(i).inner_text())
    for _ in range(best):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("2")
    page.emulate_media(color_scheme="dark")
    page.evaluate("scrollTo(0, 0)")
    picture(page, "rank")
    project = served.project("compare", [{"prompt": PARTY, "completions": PARTIES[:2]}], name="Which is better?")
    page = watched.label(project, **wide)
    page.keyboard.press("d")
    page.keyboard.press("2")
    picture(page, "compare")
    project = served.project("edit", [{"prompt": PARTY, "original": PARTIES[1]}], name="Improve an answer")
    page = watched.label(project, **wide)
    page.locator("#text").fill(PARTIES[0])
    picture(page, "edit")
    project = served.project("rate_and_rank", [{"prompt": PARTY, "completions": PARTIES}], name="Assistant answers, round 5")
    phone = watched.label(project, **PHONE)
    phone.locator(".rate:visible .overall [role=radio]").nth(5).tap()
    picture(phone, "phone-rate")
    for at in range(4):
        phone.locator(".rate:visible .overall [role=radio]").nth(5 - at).tap()
        phone.locator("#go").tap()
    for at, rank in enumerate((0, 1, 1)):
        phone.locator(".ranking .card").nth(at).locator("[role=radio]").nth(rank).tap()
    picture(phone, "phone-rank")
    page = watched.page(**wide)
    overview(page, served.url, crowded)
    picture(page, "overview")
    page.locator("#matrix").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#matrix').scrollIntoView()")
    page.evaluate("scrollBy(0, -90)")
    picture(page, "labelers")
    page.locator("#queue").scroll_into_view_if_needed()
    page.locator(".item-list a").first.click()
    picture(page, "item")
    page.goto(served.url + "/")
    picture(page, "projects")
