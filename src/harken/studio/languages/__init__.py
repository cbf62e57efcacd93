"""The words of the pages in several languages. English is the source and its own key; a language is a file beside this one.

    catalogue("de")["Submit"]        # "Absenden"

A message with values has them in braces: "{n} of {k} rated". What a language lacks stays English. Words of projects, of the
API's errors, of leads' scripts and of charts are not translated. tests/studio_messages.py lists what there is to translate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
NAMES = {"en": "English", "de": "Deutsch", "ar": "العربية"}
"""What the reader may choose. Every language but English has a file CODE.json here."""
RIGHT_TO_LEFT = frozenset(("ar", "he", "fa", "ur"))


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
