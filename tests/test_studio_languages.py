"""The pages' languages: complete for labelers where they promise to be, with the same values, chosen as browsers ask."""

import re

import pytest

from harken.studio.languages import NAMES, catalogue, chosen
from studio_messages import STUDIO, messages

VALUES = re.compile(r"\{\w+\}")


def test_german_has_every_message_that_labelers_see():
    lacks = messages(labelers=True) - catalogue("de").keys()
    assert not lacks, f"studio/languages/de.json lacks {sorted(lacks)}"


def test_german_has_the_leads_pages_too_and_no_choice_sends_a_translation():
    """An option without a value sends its words: in another language the API would not know them."""
    assert messages() - catalogue("de").keys() == set()
    for path in sorted((STUDIO / "templates").glob("*.html")):
        assert not re.findall(r"<option>\{\{ _\(.{40}", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("code", [code for code in NAMES if code != "en"])
def test_a_translation_keeps_the_values_and_translates_what_there_is(code):
    for english, words in catalogue(code).items():
        assert sorted(VALUES.findall(english)) == sorted(VALUES.findall(words)), english
        assert words.strip(), english
    assert catalogue(code).keys() - messages() == set()


def test_arabic_has_what_stands_on_the_page_all_the_time():
    core = {
        "Submit",
        "Next",
        "Skip",
        "Unsafe",
        "Undo",
        "Guide",
        "My answers",
        "Prompt",
        "Notes",
        "{n} done",
        "Which answer is better?",
        "Answer {letter}",
        "Log in",
        "Projects",
        "My account",
    }
    assert core <= catalogue("ar").keys() and len(catalogue("ar")) > 200


@pytest.mark.parametrize(
    ("cookie", "accepted", "code"),
    [
        (None, "", "en"),
        (None, "de-CH,de;q=0.9,en;q=0.8", "de"),
        (None, "fr,ar;q=0.5", "ar"),
        ("ar", "de", "ar"),
        ("xx", "de", "de"),
        (None, "en;q=0.1,de;q=0.2", "de"),
        (None, "de;q=zzz, ar", "ar"),
        (None, "../../etc/passwd", "en"),
    ],
)
def test_the_language_is_what_somebody_chose_else_what_their_browser_asks_for(cookie, accepted, code):
    assert chosen(cookie, accepted) == code
