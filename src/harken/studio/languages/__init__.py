"""The words of the pages in several languages. English is the source and its own key; a language is a file beside this one.

    catalogue("de")["Submit"]        # "Absenden"
    messages()                       # every message that the pages and scripts show, to be translated

A message with values has them in braces: "{n} of {k} rated". What a language lacks stays English. Words of projects, of leads and of
the API's errors are not translated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
STUDIO = HERE.parent
NAMES = {"en": "English", "de": "Deutsch", "ar": "العربية"}
"""What the reader may choose. Every language but English has a file CODE.json here."""
RIGHT_TO_LEFT = frozenset(("ar", "he", "fa", "ur"))
_TEMPLATE = re.compile(r'\b_\("((?:[^"\\]|\\.)*)"\)')
_SCRIPT = re.compile(r'(?:\bt\(\s*|\bwords: )"((?:[^"\\]|\\.)*)"')
_SAYING = re.compile(r'^\s*(?:\w+: )?\[?"([A-Z](?:[^"\\]|\\.)*)",?(?: "((?:[^"\\]|\\.)*)")?\]?,?$', re.M)


@cache
def catalogue(code: str) -> Mapping[str, str]:
    """English → the language's words; empty for English and for languages that are not there."""
    path = HERE / f"{code}.json"
    if code not in NAMES or not path.exists():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")))


def chosen(cookie: str | None, accepted: str) -> str:
    """The reader's language: what they chose, else the first that their browser asks for and the studio has."""
    if cookie in NAMES:
        return str(cookie)
    asked = []
    for part in accepted.split(",")[:20]:
        name, _, weight = part.strip().partition(";q=")
        try:
            asked.append((-float(weight or 1), name.partition("-")[0].lower()))
        except ValueError:
            continue
    return next((name for _, name in sorted(asked, key=lambda one: one[0]) if name in NAMES), "en")


@cache
def messages(labelers: bool = False) -> frozenset[str]:
    """Every message of the pages; with `labelers` only of those that labelers see."""
    found: set[str] = set()
    for path in (STUDIO / "templates").glob("*.html"):
        if not (labelers and path.name.startswith(("lead", "table", "setup"))):
            found |= set(_TEMPLATE.findall(path.read_text(encoding="utf-8")))
    for path in (STUDIO / "static").rglob("*.js"):
        if path.name != "lead.js":
            found |= set(_SCRIPT.findall(path.read_text(encoding="utf-8")))
    screens = (STUDIO / "static" / "screens.js").read_text(encoding="utf-8").partition("export")[0]
    found |= {words for pair in _SAYING.findall(screens) for words in pair if words}
    return frozenset(words.replace('\\"', '"') for words in found | _labels(labelers))


def _labels(labelers: bool) -> set[str]:
    """Words that stand in tables of the program and are shown as they are."""
    from harken.studio.pages import label
    from harken.studio.tasks import PROMPT_FLAGS, TASKS, USE_CASES
    from harken.studio.tasks.rate_and_rank import FLAGS
    from harken.studio.work.mine import QUEUES
    found = {words for _, words in (*label.REASONS, *label.CATEGORIES, *label.SCOPES)} | set(QUEUES.values())
    found |= {words for words, _ in label.ORDERS.values()} | {task.title for task in TASKS.values()}
    found |= {*PROMPT_FLAGS.values(), *FLAGS.values(), "System", "User", "Assistant", "Tool", "Overall quality", "worst", "best"}
    found |= {{"open_qa": "open QA", "closed_qa": "closed QA"}.get(name, name.replace("_", " ")) for name in USE_CASES}
    if labelers:
        return found
    from harken.studio.api.review import READINGS
    from harken.studio.pages import table
    from harken.studio.work.table import ANSWER_STATES
    tables = (table.LISTS, table.ITEM_ORDER, table.ANSWER_ORDER, ANSWER_STATES, READINGS)
    return found.union(*(set(words.values()) for words in tables))
