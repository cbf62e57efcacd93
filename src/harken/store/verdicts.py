"""Stored votes on who wrote the better answer, in the layouts people have: rows to (prompt, model, model, who won).

    comparisons    {"prompt", "completions": [..], "ranks": [..], "model": ["a", "b"]}   the field that --by names
    pairs          {"prompt", "chosen", "rejected", "chosen_model", "rejected_model"}
    Arena, flat    {"question_id", "model_a", "model_b", "winner": "model_a" | "model_b" | "tie" | …}
    MT-bench       {"question_id", "model_1", "model_2", "g1_winner", "g2_winner"}          two orders; a contradiction is a tie
    AlpacaEval     {"instruction", "generator_1", "generator_2", "preference": 1 … 2}

A row without a verdict (null, "error", an unknown word) is counted, never a tie.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.store.files import read_rows

SIDES = (("model_a", "model_b"), ("model_1", "model_2"), ("left", "right"), ("generator_1", "generator_2"))
TEXTS = {"generator_1": "output_1", "generator_2": "output_2", "model_a": "answer_a", "model_b": "answer_b",
         "model_1": "answer_1", "model_2": "answer_2"}
LABELERS = ("labeler", "judge", "worker", "annotator")
PROMPTS = ("prompt", "question_id", "instruction", "question", "item", "id")
LAYOUT = 'Give rows like {"prompt": …, "completions": [two or more], "ranks": [1, 2], "model": ["base", "rloo"]}.'


@dataclass
class Votes:
    """`preference[n]` is how far b was preferred to a, from 0 to 1; a verdict is its side, 1/2 a tie. Lengths in characters, -1
    where the texts are not in the file."""

    prompts: list[str] = field(default_factory=list)
    a: list[str] = field(default_factory=list)
    b: list[str] = field(default_factory=list)
    preference: list[float] = field(default_factory=list)
    length_a: list[int] = field(default_factory=list)
    length_b: list[int] = field(default_factory=list)
    missing: int = 0
    """Rows without a verdict."""
    identical: int = 0
    """Votes between two models whose answers are one text: whoever judged texts merged the models there."""
    same_model: int = 0
    """Pairs of answers by one model: left out."""
    inconsistent: int = 0
    """Verdicts that changed with the order: ties."""
    repeated: int = 0
    """Votes of a labeler who had voted on that prompt and those two models before: all count."""
    _cast: set[Any] = field(default_factory=set, repr=False)

    @property
    def won(self) -> list[int]:
        """1: a was preferred, 0: tie, -1: b."""
        return [(p < 0.5) - (p > 0.5) for p in self.preference]

    @property
    def models(self) -> list[str]:
        """By number of votes, most first."""
        return [m for m, _ in Counter(self.a + self.b).most_common()]

    def _add(self, prompt: Any, a: Any, b: Any, preference: float, texts: tuple[Any, Any], labeler: Any = None) -> None:
        a, b = one_spelling(str(a)), one_spelling(str(b))
        if a == b:
            self.same_model += 1
            return
        self.prompts.append(one_spelling(prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)))
        self.a.append(a)
        self.b.append(b)
        if labeler is not None:
            vote = (one_spelling(str(labeler)), self.prompts[-1], frozenset(((a, texts[0]), (b, texts[1]))))
            self.repeated += vote in self._cast
            self._cast.add(vote)
        self.preference.append(preference)
        lengths = [len(t) if isinstance(t, str) else -1 for t in texts]
        self.length_a.append(lengths[0])
        self.length_b.append(lengths[1])
        self.identical += texts[0] is not None and texts[0] == texts[1]


def one_spelling(name: str) -> str:
    """Canonically equal spellings (é as one character or as two, NFC) made one: nobody sees a difference."""
    return unicodedata.normalize("NFC", name)


def read_votes(path: str | Path, by: str = "model") -> Votes:
    """Every vote of a file. Raises UserError naming the line for a row that does not say who wrote what, or no vote at all."""
    votes = Votes()
    for line, row in read_rows(path):
        try:
            _read(votes, row, by)
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}.", LAYOUT) from None
    if not votes.prompts:
        raise UserError(f"{path} holds no vote between two models ({votes.missing} rows without a verdict, "
                        f"{votes.same_model} pairs by one model).", LAYOUT)
    return votes


def _prompt(row: Mapping[str, Any]) -> Any:
    for name in PROMPTS:
        if row.get(name) is not None:
            return row[name]
    raise ValueError("no prompt, question_id, instruction or item says what was answered")


def _read(votes: Votes, row: Mapping[str, Any], by: str) -> None:
    authors = row.get(by, row.get(by + "s"))
    if "completions" in row or (isinstance(authors, Sequence) and not isinstance(authors, str) and "ranks" in row):
        _ranking(votes, row, by, authors)
        return
    chosen, rejected = row.get(f"chosen_{by}"), row.get(f"rejected_{by}")
    if chosen is not None and rejected is not None:
        votes._add(_prompt(row), chosen, rejected, 0.0, (row.get("chosen"), row.get("rejected")), _labeler(row))
        return
    for first, second in SIDES:
        if row.get(first) is not None and row.get(second) is not None:
            verdict = _verdict(votes, row, first, second)
            if verdict is None:
                votes.missing += 1
            else:
                votes._add(_prompt(row), row[first], row[second], verdict, (_answer(row, first), _answer(row, second)),
                           _labeler(row))
            return
    raise ValueError(f'neither "{by}" nor a pair like model_a and model_b says who wrote the answers')


def _labeler(row: Mapping[str, Any]) -> Any:
    return next((row[name] for name in LABELERS if row.get(name) is not None), None)


def _answer(row: Mapping[str, Any], side: str) -> Any:
    """The answer's text, or the last turn of Arena's conversation_a and conversation_b."""
    turns = row.get(f"conversation_{side[-1]}")
    if isinstance(turns, Sequence) and not isinstance(turns, str) and turns and isinstance(turns[-1], Mapping):
        return turns[-1].get("content")
    return row.get(TEXTS.get(side, ""))


def _ranking(votes: Votes, row: Mapping[str, Any], by: str, authors: Any) -> None:
    ranks, texts = row.get("ranks"), row.get("completions")
    if not isinstance(authors, Sequence) or isinstance(authors, str):
        raise ValueError(f'"{by}" must be a list: who wrote each of the completions')
    if ranks is None:
        votes.missing += 1
        return
    texts = texts if isinstance(texts, Sequence) else [None] * len(authors)
    if not len(authors) == len(ranks) == len(texts):
        raise ValueError(f'"{by}", ranks and completions have {len(authors)}, {len(ranks)} and {len(texts)} entries')
    for rank in ranks:
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int | float)):
            raise ValueError(f"ranks are numbers, 1 the best, found {json.dumps(rank)}")
    add_ranking(votes, _prompt(row), authors, ranks, texts, _labeler(row))


def add_ranking(votes: Votes, prompt: Any, authors: Sequence[Any], ranks: Sequence[Any], texts: Sequence[Any],
                labeler: Any = None) -> None:
    """A ranking as its pairs; a pair without a rank or an author is counted as missing."""
    for i, j in combinations(range(len(authors)), 2):
        if ranks[i] is None or ranks[j] is None or authors[i] is None or authors[j] is None:
            votes.missing += 1
            continue
        votes._add(prompt, authors[i], authors[j], 0.5 + 0.5 * ((ranks[i] > ranks[j]) - (ranks[i] < ranks[j])),
                   (texts[i], texts[j]), labeler)


def _verdict(votes: Votes, row: Mapping[str, Any], first: str, second: str) -> float | None:
    """How far the second was preferred; None where the row does not say."""
    if "preference" in row:
        value = row["preference"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
            return None
        return 0.5 if value == 0 else float(value) - 1  # AlpacaEval writes a draw as 0 or 1.5
    orders = [_side(row[name], row, first, second) for name in ("g1_winner", "g2_winner") if name in row]
    if orders:
        sides = [o for o in orders if o is not None]
        if len(sides) < len(orders):
            return None
        votes.inconsistent += len(set(sides)) > 1
        return sides[0] if len(set(sides)) == 1 else 0.5
    return _side(row.get("winner"), row, first, second)


def _side(word: Any, row: Mapping[str, Any], first: str, second: str) -> float | None:
    if not isinstance(word, str):
        return None
    low = word.strip().lower()
    if low.startswith("tie") or low in ("draw", "both", "neither"):
        return 0.5
    sides = ((0.0, first, ("a", "left", "1", "x")), (1.0, second, ("b", "right", "2", "y")))
    for value, side, _ in sides:  # a model's own name before the words for a side: a model may be called "x"
        if word == str(row[side]):
            return value
    return next((value for value, side, words in sides if low == side or low in words), None)
