"""Names of people: when two are the same, and when one could be taken for another.

    name_key("Ünal") == name_key("ÜNAL")        # one account
    looks_like("аda") == looks_like("ada")      # two accounts that nobody could tell apart: the second is refused

`name_key` is stored (`users.name_key`) and is what every comparison of names uses: a change of it needs a migration.
"""

from __future__ import annotations

import re
import unicodedata

SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC")
# Letters that look like Latin ones in most fonts (Unicode Technical Standard 39, the pairs within SCRIPTS that matter for
# names), and the digits and capitals that pass for others.
TWINS = str.maketrans(
    "асеһіјӏорԛѕԝхүѵкмтвнгзАВСЕНІЈКМОРԚЅТԜХҮѴЗ"
    "αβγεζηικνορτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"
    "օսոհցաԼՕՍ"
    "ıȷɡɑ" "01I|",
    "acehijlopqswxuvkmtbhr3ABCEHIJKMOPQSTWXYV3"
    "aByezhiKvoptuxABEZHIKMNOPTYX"
    "ounhgwLOU"
    "ijga" "oll" "l")

NO_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))
"""They shape letters and emoji, and are seen no other way: names that differ by them alone are one."""
JOINED_NOTHING = re.compile("^[\u200c\u200d]|[\u200c\u200d](?=[\\s\u200c\u200d]|$)")


def plain(name: str) -> str:
    """A name as it is stored: compatible forms made one (NFKC), blanks single."""
    return " ".join(unicodedata.normalize("NFKC", name).split())


def name_key(name: str) -> str:
    """What makes a name unique: the same for every spelling that differs in case, form, blanks or joiners only."""
    return plain(plain(name).casefold()).translate(NO_JOINERS)


def legible(name: str) -> bool:
    """Whether every character can be seen, or joins two that can (Persian, Indic scripts, emoji)."""
    bare = name.translate(NO_JOINERS)
    return bool(bare.strip()) and bare.isprintable() and JOINED_NOTHING.search(name) is None


def looks_like(name: str) -> str:
    """The same for names that look alike."""
    return name_key(plain(name).translate(TWINS)).replace("rn", "m").replace("vv", "w").translate(TWINS)


def mixed_scripts(name: str) -> tuple[str, ...]:
    """The scripts of a word that mixes several which share letter shapes; empty for an honest name."""
    for word in plain(name).split():
        scripts = {unicodedata.name(c, "").split(" ")[0] for c in word if c.isalpha()} & set(SCRIPTS)
        if len(scripts) > 1:
            return tuple(sorted(scripts))
    return ()
