"""Two answers and which is better: Harken's rankings, `chosen` and `rejected` in all forms, answers a and b with a verdict.

`chosen` is always the preferred completion. For Anthropic's harmless files this is the less
harmful one: labelers were asked for the *more* harmful one and the published files are already
turned round (arXiv 2204.05862); a copy that kept the original question must be turned first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from harken.core.formats import HUMAN_TURN, is_dialogue
from harken.core.records import Choice, JudgmentKind, Message
from harken.store.shapes.dialogue import answer_of, chatml, json_messages, messages, refuse_formats, shared
from harken.store.shapes.fields import VERDICT_IN_WORDS, Row, UnreadField, about_row, means_verdict
from harken.store.shapes.parts import (
    Turns,
    answer,
    begun,
    choice,
    number,
    parsed,
    question,
    transcript_pair,
    without_prompt,
)

PAIRS = (("chosen", "rejected"), ("chosen_response", "rejected_response"), ("chosen_answer", "rejected_answer"),
         ("response_chosen", "response_rejected"), ("answer_chosen", "answer_rejected"),
         ("preferred_output", "non_preferred_output"), ("response_j", "response_k"))
"""The better answer's field and the other's. `response_j` is the better one in lvwerra/stack-exchange-paired."""
OF_PAIRS = frozenset(name for pair in PAIRS for name in pair)
BESIDE = ("answer", "response", "completion", "output", "text", "summary")
A_AND_B = tuple((f"{word}{mark}{one}", f"{word}{mark}{other}") for word in BESIDE for mark in ("_", "")
                for one, other in (("a", "b"), ("A", "B"), ("0", "1"), ("1", "2")))
"""Two answers by letter or number: `completion_a` and `completion_b`, `response_0` and `response_1`, `output_1`, `output_2`."""
VERDICTS = ("preference", "winner", "preferred", "better", "choice", "verdict", "label", "better_response", "better_response_id",
            "preferred_response", "preferred_answer", "best", "chosen")
"""Where the verdict on a and b stands, the first of these that a row has."""
OWN_KINDS = ("ranking", "edit", "use")
SIGNS = re.compile(r"\[*([AB])\s*(<<?|>>?|=)\s*([AB])\]*")
"""`A>B`, `[[B>>A]]`, `A=B`: JudgeBench, Arena-Hard."""
SCORES = frozenset(f"{a}{mark}{b}" for what in ("score", "rating", "reward", "grade") for mark in ("_", "-")
                   for a, b in ((what, "chosen"), ("chosen", what)))
TIES = frozenset(("tie", "tied", "tie (bothbad)", "bothbad", "both_bad", "both bad", "both", "equal", "draw", "same", "neither",
                  "both_good", "tie (bothgood)"))


def own_comparison(row: Row) -> list[Choice]:
    """`{"prompt", "completions": [...], "ranks": [...]}`: Harken's own."""
    given, ranks = parsed(row.take("completions")), parsed(row.take("ranks"))
    if not isinstance(given, list):
        raise ValueError('"completions" must be a list of strings')
    options = [c if isinstance(c, str) else _single(c) for c in given]
    if ranks is None and "labels" in row:
        raise ValueError('"labels" for the "completions" are verdicts on steps, not a ranking')
    ranks = [number(r) if isinstance(r, float) else r for r in ranks] if isinstance(ranks, list) else ranks
    if not isinstance(ranks, list) or not all(type(r) is int and r >= 1 for r in ranks):
        raise ValueError('"ranks" must be a list of whole numbers, 1 the best')
    kind: JudgmentKind = row.take("judgment_kind", "ranking")
    if kind not in OWN_KINDS:
        raise ValueError(f'"judgment_kind" {kind!r} is not one of ranking, edit, use')
    if isinstance(row.get("scores"), list) and len(row["scores"]) == len(options):
        row.aside.add("scores")  # what harken score wrote: a reward called stored reads it, and the ranks say who won
    asked = _asked(row)
    if isinstance(row.get("prompt"), str) and HUMAN_TURN.match(row["prompt"]):
        asked, options = begun(asked, without_prompt(row["prompt"], options) or options)
    return [choice(row, asked, options, ranks, kind)]


def _single(value: object) -> str:
    if isinstance(value, list) or (isinstance(value, Mapping) and ("content" in value or "value" in value)):
        return answer_of(messages(value, "completions"), "completions")
    raise ValueError('"completions" must be a list of strings')


def _asked(row: Row) -> Turns:
    asked = question(row)
    if asked is None:
        raise ValueError('"prompt" is missing')
    return asked


def chosen_rejected(row: Row) -> list[Choice]:
    """`chosen` and `rejected`: text, a message, messages or whole dialogues; without a prompt field, what both begin with."""
    names = next(pair for pair in PAIRS if pair[0] in row or pair[1] in row)
    for name in names:
        if name not in row:
            raise ValueError(f'"{name}" is {"null" if name in row.nulls else "missing"}')
    if isinstance(row[names[0]], str) and not row[names[0]].strip():  # a transcript may end in silence; a field may not
        raise ValueError(f'"{names[0]}" is empty')
    _note_scores(row)
    asked = question(row)
    given = row.get("prompt", row.get("query"))
    values = [_value(row.take(name), name) for name in names]
    if all(isinstance(v, str) for v in values):
        if asked is None:
            _no_other_prompt(row)
        asked, options = texts_compared(asked, given, [str(v) for v in values])
    elif not any(isinstance(v, str) for v in values):
        asked, options = _dialogues(asked, [v for v in values if not isinstance(v, str)], names)
    else:
        raise ValueError(f'"{names[0]}" and "{names[1]}" must both be strings or both messages')
    return [choice(row, asked, options, (1, 2))]


def _value(value: object, name: str) -> str | Turns:
    """Text, or messages where the value is messages, a message, JSON text of messages, or ChatML."""
    if isinstance(value, str):
        if not is_dialogue(value):
            return value
        return json_messages(value, name) or chatml(value) or value
    if not isinstance(value, (list, Mapping)):
        raise ValueError(f'"{name}" must be a string or messages, found {type(value).__name__}')
    return messages(value, name)


def texts_compared(asked: Turns | None, given: object, texts: list[str]) -> tuple[Turns, list[str]]:
    """Prompt and answers of two texts; `given` is the prompt as the row has it."""
    if asked is not None:
        options = without_prompt(given, texts) or texts
        if options is texts and all(HUMAN_TURN.match(text) and "\n\nAssistant:" in text for text in texts):
            inner, options = transcript_pair(texts)
            if inner[:len(asked)] != asked:
                raise ValueError("the transcripts do not begin with the prompt")
            asked = inner
        return begun(asked, options)
    if all(HUMAN_TURN.match(text) for text in texts):
        return transcript_pair(texts)
    cut = _shared_text(*texts)
    if not texts[0][:cut].strip():
        raise ValueError('there is no "prompt", and "chosen" and "rejected" share no beginning to take for one')
    return (Message("user", refuse_formats(texts[0][:cut], "chosen")),), [text[cut:] for text in texts]


def _dialogues(asked: Turns | None, both: list[Turns], names: Sequence[str]) -> tuple[Turns, list[str]]:
    """TRL's conversational form: the prompt given, or the turns both conversations begin with."""
    if asked is None or (min(map(len, both)) > 1 and _stands_in(asked, both)):
        cut = min(shared(*both), *(len(d) - 1 for d in both))
        asked, both = both[0][:cut], [d[cut:] for d in both]
    return asked, [answer_of(d, name) for d, name in zip(both, names)]


def _stands_in(asked: Turns, both: list[Turns]) -> bool:
    """Whether two conversations begin alike and hold the prompt in what they share: it is repeated there, with what is before."""
    same = both[0][:shared(*both)]
    return any(same[i:i + len(asked)] == asked for i in range(len(same) - len(asked) + 1))


def _no_other_prompt(row: Row) -> None:
    """What two texts begin with is taken for the prompt only where no other field may hold it."""
    others = sorted(n for n in row.keys() - row.used if isinstance(row[n], (str, list, Mapping)) and row[n] and not about_row(n)
                    and n.lower() not in SCORES)
    if others:
        raise UnreadField(f'there is no "prompt", and {", ".join(map(repr, others[:4]))} may hold it'.replace("'", '"'),
                          f"Name it: --field prompt={others[0]}. Where the prompt is what both answers begin with: "
                          f"--ignore {','.join(others)}.")


def one_of_two(row: Row) -> bool:
    """Whether `chosen` names an answer that stands in another field: `response_a`, `response_b`, `"chosen": "b"`."""
    return "rejected" not in row and "chosen" in row and any(a in row and b in row for a, b in A_AND_B)


def _note_scores(row: Row) -> None:
    """Scores of both answers do not change who won; where they say the opposite, that is noted."""
    for one, other in score_fields(tuple(row)):
        if one.lower() not in SCORES and not (_is_number(row.get(one)) and _is_number(row.get(other))):
            continue
        row.aside |= {one, other}
        if other not in row:
            continue
        good, bad = number(row[one]), number(row[other])
        if "rank" in one.lower():  # 1 is the best
            good, bad = bad, good
        if isinstance(good, (int, float)) and isinstance(bad, (int, float)) and good <= bad:
            row.notes.append(f"{other} is higher than {one}" if good < bad else f"{other} equals {one}")


@lru_cache(1024)
def score_fields(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """The fields of a row that score the chosen answer, each with its partner."""
    pairs = [(n, n.replace("chosen", "rejected")) for n in names if "chosen" in n]
    return [(one, other) for one, other in pairs
            if one.lower() in SCORES or (means_verdict(one) and other in names and one not in OF_PAIRS)]


def _is_number(value: Any) -> bool:
    return isinstance(number(value), (int, float)) and not isinstance(value, bool)


def openai_preference(row: Row) -> list[Choice]:
    """OpenAI's fine-tuning by preference: `input.messages`, `preferred_output`, `non_preferred_output`."""
    given = parsed(row.take("input"))
    if not isinstance(given, Mapping):
        raise ValueError('"input" must be an object with "messages"')
    if given.get("tools"):
        row["tools"] = given["tools"]
    asked = messages(given.get("messages"), "input.messages")
    options = [answer(parsed(row.take(name)), name) for name in ("preferred_output", "non_preferred_output")]
    return [choice(row, asked, options, (1, 2))]


def a_and_b(row: Row) -> list[Choice]:
    """Two answers by letter or number and a verdict that names one of them or a tie."""
    names = next(pair for pair in A_AND_B if pair[0] in row and pair[1] in row)
    verdicts = [name for name in VERDICTS if name in row]
    others = [n for n in row if n not in verdicts and n != "tie" and n not in names and n.endswith("_id") and means_verdict(n)]
    if len(verdicts) + len(others) > 1:
        both = sorted(verdicts + others)
        raise UnreadField(f"the row holds more than one verdict: {', '.join(both)}",
                          f"Choose one, and leave the others unread on purpose: --ignore {','.join(both[1:])}.")
    tie = row.take("tie")
    if not verdicts and tie is None:
        null = next((n for n in (*VERDICTS, "tie") if n in row.nulls), None)
        raise ValueError(f'"{null}" is null: nobody said which is better' if null else
                         f'"{names[0]}" and "{names[1]}" come without a verdict on which is better')
    ranks = _ranks(row.take(verdicts[0]), verdicts[0], names) if verdicts else None
    if tie is not None and number(tie) in (True, 1, "true", "True"):
        if ranks not in (None, (1, 1)):
            raise ValueError(f'"tie" is true, and "{verdicts[0]}" names a winner')
        ranks = (1, 1)
    if ranks is None:
        raise ValueError('"tie" is false, and nothing says which is better')
    options = [answer(row.take(name), name) for name in names]
    if any(not text.strip() and rank == 1 for text, rank in zip(options, ranks)):
        raise ValueError("the preferred answer is empty")
    return [choice(row, _asked(row), options, ranks)]


def _ranks(verdict: Any, field: str, names: Sequence[str]) -> tuple[int, int]:
    """A verdict that names an answer by its field, its letter or number, or `model_a`; or a tie."""
    word = str(number(verdict)).strip()
    signs = SIGNS.fullmatch(word)
    if signs and {signs[1], signs[3]} == {"A", "B"} and [n[-1].upper() for n in names] == ["A", "B"]:
        first = signs[1] if ">" in signs[2] else signs[3]
        return (1, 1) if signs[2] == "=" else (1, 2) if first == "A" else (2, 1)
    marks = [name[-1] for name in names]
    for place, (name, mark) in enumerate(zip(names, marks)):
        if word == name or word.lower() in {mark.lower(), f"model_{mark}".lower(), f"response_{mark}".lower(),
                                            f"answer_{mark}".lower(), f"completion_{mark}".lower()}:
            return ((1, 2), (2, 1))[place]
    if marks == ["1", "2"] and field == "preference" and isinstance(share := number(verdict), float) and 1 < share < 2:
        return (1, 1) if share == 1.5 else (1, 2) if share < 1.5 else (2, 1)  # AlpacaEval: 1 + the chance of the second
    if word.lower() in TIES or (word == "1.5" and marks == ["1", "2"]):
        return (1, 1)
    raise UnreadField(f'"{field}" {word[:40]!r} names neither "{names[0]}", "{names[1]}" nor a tie', VERDICT_IN_WORDS)


def _shared_text(one: str, other: str) -> int:
    """Length of the common beginning, cut back to the end of a word."""
    cut = shared(one, other)
    inside = cut > 0 and any(cut < len(t) and not t[cut].isspace() for t in (one, other))
    while inside and cut > 0 and not one[cut - 1].isspace():
        cut -= 1
    return len(one[:cut].rstrip())
