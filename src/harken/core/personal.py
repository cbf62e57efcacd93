"""Personal data in a text, found by its form and masked: e-mail, telephone, payment card, IP address, US social security number,
IBAN.

    find("call 020 7946 0018")          # {"phone": ["020 7946 0018"]}
    mask("call 020 7946 0018")          # ("call [phone]", {"phone": 1})

Numbers with a checksum must pass it (cards: Luhn; IBAN: ISO 7064 mod 97), the others only look right, so order numbers may count
as telephones. Names, birthdays and street addresses are not found: that takes a model of language.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable


def luhn(number: str) -> bool:
    """ISO/IEC 7812: from the right every second digit doubled (less 9 if above 9), the sum a multiple of 10."""
    digits = [int(d) for d in reversed(number) if d.isdigit()]
    return sum(d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(digits)) % 10 == 0


def iban(number: str) -> bool:
    """ISO 13616: the first four characters moved to the end, letters read as 10 to 35, remainder 1 on division by 97."""
    compact = re.sub(r"\s", "", number)
    return 15 <= len(compact) <= 34 and int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def card(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    return 13 <= len(digits) <= 19 and luhn(digits) and len(set(digits)) > 1


def ip(text: str) -> bool:
    """A valid address that is not a version number's four small parts in a private or reserved range."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def ssn(number: str) -> bool:
    area, group, serial = number.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def phone(number: str) -> bool:
    return 7 <= len(re.sub(r"\D", "", number)) <= 15


KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}"), lambda _: True),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b"), iban),
    "ssn": (re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), ssn),
    "card": (re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]*\d)"), card),
    "ip": (re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)"
                      r"|(?<![\w:])(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{0,4}(?![\w:])", re.I), ip),
    "phone": (re.compile(r"(?<![\w.,$€£-])(?<!\d )(?:\+\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4}"
                         r"|\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}"
                         r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5})(?!\w|[ -]\d)"), phone),
}
"""In this order: what an earlier kind found is not found again."""


def find(text: str) -> dict[str, list[str]]:
    """What was found, by kind."""
    finds: dict[str, list[str]] = {}
    for kind, (pattern, valid) in KINDS.items():
        def take(match: re.Match[str], kind: str = kind, valid: Callable[[str], bool] = valid) -> str:
            if not valid(match[0]):
                return match[0]
            finds.setdefault(kind, []).append(match[0])
            return "\0"

        text = pattern.sub(take, text)
    return finds


def mask(text: str) -> tuple[str, Counter[str]]:
    """The text with each find as [kind], and how many there were of each kind. A masked text has nothing more to mask."""
    counts: Counter[str] = Counter()
    for kind, (pattern, valid) in KINDS.items():
        def put(match: re.Match[str], kind: str = kind, valid: Callable[[str], bool] = valid) -> str:
            if not valid(match[0]):
                return match[0]
            counts[kind] += 1
            return f"[{kind}]"

        text = pattern.sub(put, text)
    return text, counts
