"""Which passwords are refused: those that are guessed first (NIST SP 800-63B, 5.1.1.2: length, and a list of common ones)."""

from __future__ import annotations

import re

from harken.store.names import name_key
from harken.web.errors import ApiError

SHORTEST = 10
LONGEST = 200
FEWEST_DIFFERENT = 5
ROWS = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "azertyuiop",
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p", "q1w2e3r4t5y6u7i8o9p0", "1q2w3e4r5t6y7u8i9o0p")
# Words that the lists of leaked passwords begin with; digits and signs around them do not make them better.
COMMON = frozenset((
    "password", "passwort", "passw0rd", "motdepasse", "contrasena", "senha", "parola", "wachtwoord", "letmein", "welcome",
    "willkommen", "bienvenue", "iloveyou", "iloveu", "loveyou", "lovely", "princess", "sunshine", "football", "baseball",
    "basketball", "superman", "batman", "spiderman", "pokemon", "starwars", "dragon", "monkey", "master", "shadow",
    "michael", "jennifer", "jessica", "ashley", "daniel", "charlie", "jordan", "michelle", "nicole", "liverpool", "chelsea",
    "arsenal", "barcelona", "realmadrid", "trustno", "whatever", "freedom", "killer", "mustang", "hello", "hellohello",
    "administrator", "admin", "root", "guest", "changeme", "changethis", "secret", "secretpassword", "mypassword",
    "yourpassword", "thepassword", "newpassword", "passwordpassword", "default", "test", "testtest", "testing", "computer",
    "internet", "samsung", "google", "facebook", "summer", "winter", "spring", "autumn", "january", "february", "october",
    "november", "december", "monday", "tuesday", "friday", "hannover", "schatz", "hallo", "ficken", "abcdef", "qwerty",
    "qwertyqwerty", "asdfasdf", "zxcvzxcv", "qazwsx", "qazwsxedc", "harken", "harkenstudio", "studio", "labeler",
    "labeling", "annotator", "feedback", "login", "access", "cheese", "coffee", "flower", "butterfly", "purple", "orange",
    "chocolate", "cookie", "soccer", "hockey", "ginger", "matrix", "maverick", "phoenix", "thunder", "tigger", "corvette",
    "correcthorsebatterystaple", "blink", "manchester", "america", "letmeinplease", "openup", "opensesame"))
LEET = str.maketrans("0134578@$!", "oieastbasi")


def check_password(password: str, name: str = "") -> None:
    """Raises `ApiError` for a password that is too short or would be among the first guessed."""
    if len(password) < SHORTEST:
        raise ApiError("bad_request", f"A password needs at least {SHORTEST} characters.", "Longer is better than odder.")
    if len(password) > LONGEST:
        raise ApiError("bad_request", f"A password may have up to {LONGEST} characters.")
    if reason := weakness(password, name):
        raise ApiError("bad_request", f"This password {reason}.", "Take four words that have nothing to do with each other.")


def weakness(password: str, name: str = "") -> str | None:
    """Why a password would be guessed early, or None."""
    plain = name_key(password).replace(" ", "")
    if len(set(plain)) < FEWEST_DIFFERENT:
        return "has too few different characters"
    if any(plain in (row + row, (row + row)[::-1]) or _runs(plain, row) for row in ROWS):
        return "is a row of the keyboard or the alphabet"
    if any(len(plain) % n == 0 and plain == plain[:n] * (len(plain) // n) for n in range(1, 6)):
        return "repeats one short piece"
    if name and name_key(name).replace(" ", "") in (plain, plain[::-1], _core(plain)):
        return "is the account's own name"
    if {_core(plain), _core(plain.translate(LEET)), _core(plain).translate(LEET)} & COMMON:
        return "is one of the most common ones"
    return None


def _runs(plain: str, row: str) -> bool:
    """Whether a text is made of few pieces of a row, forwards or backwards."""
    pieces, at = 0, 0
    both = (row + row, (row + row)[::-1])
    while at < len(plain):
        end = at + 1
        while end < len(plain) and any(plain[at:end + 1] in r for r in both):
            end += 1
        pieces, at = pieces + 1, end
    return pieces <= max(1, len(plain) // 5)


def _core(plain: str) -> str:
    """Without the digits and signs before and behind."""
    return re.sub(r"^[\W\d_]+|[\W\d_]+$", "", plain)
