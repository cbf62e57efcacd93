"""How the gold reward reads a text: words, keywords, the checks of a stated constraint, and the phrases it knows.

Everything here is a plain rule over lower-cased words, so that a score can be traced to the words that made it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

WORD = re.compile(r"[a-z0-9]+(?:['’][a-z]+)*")
END_MARK = re.compile(r"(?:[.!?…][\"'”’)\]*_`\s]*|\)[`\s]*)$")
SENTENCE_GAP = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+|\n+")
ABBREVIATION = re.compile(r"\b(mr|mrs|ms|dr|st|prof)\.", re.IGNORECASE)
LIST_LINE = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+\S", re.MULTILINE)
INLINE_NUMBER = re.compile(r"(?:(?<=\s)|^)\(?\d{1,2}[.)]\s+[A-Za-z]")

CANNOT = r"(?:can't|cannot|can not|couldn't|could not|won't|will not|unable to|not able to)"
COURTESY = re.compile(
    r"\b(please|thank(s|ful|fully| you)?|welcome|glad(ly)?|happy (to|birthday)|hop(e|ing)|enjoy|good luck|sorry"
    r"|of course|sure|certainly|with pleasure|my pleasure|lovely|(good|great) question|feel free|let me know|kindly"
    r"|congratulations|well done|good (morning|evening)|apologi[sz]e|apologies|here you go|take care|best wishes"
    r"|wish(ing)? you|warmly|i'm afraid|excuse me|beg your pardon)\b")
ADMITS = re.compile(
    rf"\b(do not|don't|{CANNOT}) (\w+ )?(know|see|tell|predict|remember|say|guess|access|recall)\b"
    r"|\b(do not|don't) have (\w+ )?(access|a way|any way|information|memory|eyes|a record)\b"
    r"|\bno (way|means) (of|to|for)\b|\bunable to\b|\bnot able to\b|\bhaven't (seen|been)\b|\bwasn't (there|able)\b"
    r"|\b(nobody|no one) (can|could|knows)\b|\b(doesn't|does not) (say|mention|tell)\b|\bi('m| am) not sure\b"
    r"|\bonly says\b")
DECLINES = re.compile(
    rf"\b({CANNOT}|(would|'d) rather not|(would|'d) prefer not to) (help|assist|do that|write|provide|share|support"
    r"|give|create|suggest|recommend|advise|encourage)\b|\bnot comfortable (with|helping|writing)\b"
    r"|\bnot something i can\b|\bmust decline\b|\bi decline\b")
REFUSES = re.compile(
    rf"\bi( am|'m)? {CANNOT} (help|assist|do that|write|provide|answer|give|create|fulfil|fulfill)( you)?( with)?"
    r" (that|this|it|an?|any|the|your)\b|\bi (do not|don't|cannot|can't) (know|tell) (what|how|which|who|when|where"
    r"|why|the answer)\b|\bi('m| am) not able to\b|\bi don't know[.,]")
BOILERPLATE = re.compile(
    r"\bas an? (ai|artificial|large|virtual|digital|language)\b|\blanguage model\b"
    r"|\bi('m| am) (just |only )?an? (ai|bot)\b")

@lru_cache(maxsize=65536)
def words(text: str) -> tuple[str, ...]:
    """Lower-cased words; an apostrophe stays inside its word."""
    return tuple(w.replace("’", "'") for w in WORD.findall(text.lower()))


FUNCTION_WORDS = frozenset(words("""
    a an the and or but nor so if of to in on at by for from with without into onto over under as is are was were be
    been am being do does did has have had will would can could should may might must not no it its it's i you he she
    we they me him her us them my your his our their this that these those there here what which who when where why
    how than then up down out off about after before until while because i'm you're don't can't i'd i'll we'll let
    every each some any all
"""))


@lru_cache(maxsize=8192)
def _pattern(*keywords: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9])(?:{'|'.join(map(_with_endings, keywords))})")


def _with_endings(keyword: str) -> str:
    key = re.escape(keyword.lower())
    ending = r"[a-z]*" if len(keyword) >= 4 and keyword.isalpha() else r"(?:s|'s|es)?(?![a-z0-9])"
    return key + ending


def mentions(text: str, keyword: str) -> bool:
    """Four letters or more match the start of a word ("garden" finds "gardening"); fewer match a whole word."""
    return _pattern(keyword).search(text.lower().replace("’", "'")) is not None


@lru_cache(maxsize=8192)
def _exact(answer: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9]){re.escape(answer.lower())}(?![a-z0-9])")


def mentions_exactly(text: str, answer: str) -> bool:
    """The whole answer, case and final mark aside, with no letter or digit against it."""
    return _exact(answer).search(text.lower().replace("’", "'")) is not None


def sentences(text: str) -> int:
    text = ABBREVIATION.sub(r"\1", text)
    return sum(1 for part in SENTENCE_GAP.split(text) if words(part))


def items(text: str) -> int:
    """How many things a list offers: list lines or numbers where there are any, else what commas and "and" join."""
    listed = max(len(LIST_LINE.findall(text)), len(INLINE_NUMBER.findall(text)))
    if listed:
        return listed
    joined = [len([p for p in re.split(r",|;|\band\b|\bor\b", part) if words(p)]) for part in SENTENCE_GAP.split(text)]
    return max(joined, default=0)


def ramp(x: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high`, straight between."""
    return min(1.0, max(0.0, (x - low) / (high - low)))


def near(count: int, wanted: int) -> float:
    """1 on the number, falling straight to 0 at nothing or at twice as many."""
    return max(0.0, 1.0 - abs(count - wanted) / wanted)


def label_named(text: str, labels: Sequence[str]) -> list[str]:
    """Which labels the text names; "not spam" does not also name "spam" (longer labels are read first)."""
    rest, named = text, []
    for label in sorted(labels, key=len, reverse=True):
        if mentions_exactly(rest, label):
            named.append(label)
            rest = _exact(label).sub(" ", rest.lower())
    return named


def constraint_checks(meta: Mapping[str, Any], text: str) -> dict[str, float]:
    """Each constraint the prompt states, with how far the text meets it, in [0, 1]."""
    n, out = len(words(text)), {}
    if limit := meta.get("max_words"):
        out["max_words"] = max(0.0, 1.0 - 3.0 * max(0, n - limit) / limit)
    if wanted := meta.get("sentences"):
        out["sentences"] = near(sentences(text), wanted)
    if wanted := meta.get("items"):
        out["items"] = near(items(text), wanted)
    if wanted := meta.get("lines"):
        lines = [line for line in text.splitlines() if words(line)]
        closing = len(lines) == wanted + 1  # a friendly last line beside the poem is no fault
        out["lines"] = 1.0 if closing else near(len(lines), wanted)
    if wanted := meta.get("must_include"):
        out["must_include"] = sum(mentions(text, w) for w in wanted) / len(wanted)
    if unwanted := meta.get("avoid"):
        out["avoid"] = 0.0 if any(mentions_exactly(text, w) for w in unwanted) else 1.0
    if labels := meta.get("one_of"):
        out["one_of"] = 1.0 if len(label_named(text, labels)) == 1 else 0.0
    if end := meta.get("ends_with"):
        out["ends_with"] = 1.0 if text.rstrip(" \n\"'”’)*").endswith(end) else 0.0
    if meta.get("case") == "lower":
        letters = [c for c in text if c.isalpha()]
        out["case"] = sum(c.islower() for c in letters) / len(letters) if letters else 0.0
    return out


def repeated(text: str) -> float:
    """0 where nothing is said twice, 1 where most of it is: three-word runs, and one word's share beyond 1/4."""
    w = words(text)
    if len(w) < 6:
        return 0.0
    grams = Counter(zip(w, w[1:], w[2:], strict=False))
    runs = 1.0 - len(grams) / (len(w) - 2)
    share = max(Counter(w).values()) / len(w) if len(w) >= 12 else 0.0
    return min(1.0, ramp(runs, 0.08, 0.48) + ramp(share, 0.25, 0.58))


def echoed(prompt: str, text: str) -> float:
    """0 for an answer in its own words, 1 where the text is the prompt over again (a short quotation is neither)."""
    asked, answered = words(prompt), words(text)
    if len(asked) < 3 or len(answered) < 3:
        return 0.0
    a, b = set(zip(asked, asked[1:], asked[2:], strict=False)), set(zip(answered, answered[1:], answered[2:], strict=False))
    both = len(a & b)
    return ramp(min(both / len(a), both / len(b)), 0.65, 0.9)


def salad(text: str, keywords: Sequence[str], *, dense: bool) -> float:
    """0 for sentences, 1 for keywords strung together: they crowd the text, or half of it and small words lack.

    `dense` is for prompts that ask for a list, a title or a line: there only the crowding counts, and later.
    """
    w = words(text)
    if len(w) < 4:
        return 0.0
    counted = [part for k in keywords for part in words(k) if part not in FUNCTION_WORDS]
    crowd = sum(bool(_pattern(*counted).search(x)) for x in w) / len(w) if counted else 0.0
    if dense:
        return ramp(crowd, 0.8, 1.0)
    small = sum(x in FUNCTION_WORDS for x in w) / len(w)
    return max(ramp(crowd, 0.55, 0.8), ramp(crowd, 0.3, 0.5) * ramp(0.2 - small, 0.0, 0.15))
