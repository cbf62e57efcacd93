"""Tokens that only a template's own words can make: what people write never becomes control.

    tokens = Tokens(tokenizer)
    tokens.encode(text, written)        # `written[i]` says that character i came from a person
    tokens.encode_written(text)         # all of it did

A control token is any added token of the tokenizer, special or not, that is more than white space. Where none is forged, the ids
are the tokenizer's own for the whole text, to the bit. Otherwise the text is cut at the control tokens that the template wrote
and what lies between is encoded by a copy of the tokenizer that knows no control token: neither a typed marker, nor one that
normalising makes of look-alikes, nor one half of which a person wrote can come out of it (P34).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from harken.core.errors import UserError

Ids = tuple[int, ...]
INERT = "\uf8ff"
"""Stands for what a person wrote while the template's own tokens are looked for."""
BLANK_NORMALIZERS = ("Prepend", "Replace")
"""Normalisers that change blanks alone."""


class Tokens:
    """A tokenizer that tells what a template wrote from what a person wrote."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.control = {i: str(t) for t, i in tokenizer.get_added_vocab().items() if str(t).strip()}
        self.unknown = tokenizer.unk_token_id

    @cached_property
    def edges(self) -> frozenset[str]:
        """Characters that open or close a control token: a text without them is no part of one."""
        return frozenset(c for t in self.control.values() for c in (t.strip()[0], t.strip()[-1]))

    @cached_property
    def normalizes(self) -> bool:
        """Whether the tokenizer changes letters, so that other characters may become a control token."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        normalizer = json.loads(backend.to_str())["normalizer"] if backend is not None else None
        parts = normalizer.get("normalizers", [normalizer]) if normalizer else []
        return any(p["type"] not in BLANK_NORMALIZERS or (p["type"] == "Replace" and p["content"] != "▁") for p in parts)

    def first_control(self, text: str) -> tuple[int, int, int] | None:
        """(id, start, end) of the first control token in a template's own words."""
        return next(iter(self.places(text)), None)

    def places(self, text: str) -> list[tuple[int, int, int]]:
        """(id, start, end) of the control tokens in a template's own words."""
        return self._places(text)[1]

    def risky(self, text: str) -> bool:
        """Whether a text could be, or be a part of, a control token."""
        if not self.edges.isdisjoint(text):
            return True
        plain = text.isascii() and text.replace("_", "a").isalnum() and not any(map(str.isalnum, self.edges))
        return self.normalizes and not plain

    def parse(self, text: str) -> Ids:
        """A template's own words, their control tokens among them."""
        check_unicode(text)
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def encode_written(self, text: str) -> Ids:
        """What a person wrote, by itself."""
        ids = self.parse(text)
        return ids if self.control.keys().isdisjoint(ids) else self._plain(text, first=True)

    def encode(self, text: str, written: Sequence[bool]) -> Ids:
        """A rendered conversation."""
        whole, places = self._places(text)
        if not any(any(w and not c.isspace() for w, c in zip(written[a:b], text[a:b])) for _, a, b in places):
            return whole
        inert = "".join(INERT if w and not c.isspace() else c for w, c in zip(written, text))
        ids: list[int] = []
        at = 0
        for token, a, b in self._places(inert)[1]:
            if any(w and not c.isspace() for w, c in zip(written[a:b], text[a:b])):
                continue  # some tokenizers drop what stands for a person's words, and join what stood around them
            if a > at:
                ids += self._plain(text[at:a], first=at == 0)
            ids.append(token)
            at = b
        return (*ids, *(self._plain(text[at:], first=at == 0) if at < len(text) else ()))

    def _places(self, text: str) -> tuple[Ids, list[tuple[int, int, int]]]:
        """A text's ids as the tokenizer parses it, and (id, start, end) of the control tokens among them."""
        check_unicode(text)
        if not getattr(self.tokenizer, "is_fast", False):
            names = {t: i for i, t in self.control.items()}
            spelled = re.compile("|".join(re.escape(t) for t in sorted(names, key=len, reverse=True)) or "(?!)")
            return self.parse(text), [(names[m[0]], *m.span()) for m in spelled.finditer(text)]
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        unknown = self.control.get(self.unknown)
        return tuple(encoded.input_ids), [(i, a, b) for i, (a, b) in zip(encoded.input_ids, encoded.offset_mapping)
                                        if i in self.control and (i != self.unknown or text[a:b].strip() == unknown)]

    def _plain(self, text: str, first: bool) -> Ids:
        """A text in which no token is control; `first` where nothing stands before it."""
        if not getattr(self.tokenizer, "is_fast", False):
            ids = tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
            if not self.control.keys().isdisjoint(ids):
                raise UserError("A text holds control tokens, and this model's tokenizer cannot encode them as text.",
                                "Take them out of the data, or use a model with a tokenizer.json.")
            return ids
        copy, anchor, names = self._copy
        encoded = copy.encode(text if first else anchor + text, add_special_tokens=False).ids
        return tuple(names.get(i, i) for i in (encoded if first else encoded[1:]))

    @cached_property
    def _copy(self) -> tuple[Any, str, dict[int, int]]:
        """The tokenizer without its control tokens; a token that stands before what follows others (some prepend a blank to
        what comes first); and the ids that differ from the tokenizer's."""
        from tokenizers import Tokenizer
        state, anchor = json.loads(self.tokenizer.backend_tokenizer.to_str()), "a" + secrets.token_hex(8)
        blank = [t for t in state["added_tokens"] if not t["content"].strip()]
        new = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
        last = max(self.tokenizer.get_vocab().values())
        state |= {"post_processor": None, "truncation": None, "padding": None,
                  "added_tokens": [*blank, {"id": last + 1, "content": anchor, **new}]}
        _rename(state["model"], {t: f"{anchor}{i}" for i, t in self.control.items()})
        copy = Tokenizer.from_str(json.dumps(state))
        names: dict[int, int] = {copy.token_to_id(t["content"]): t["id"] for t in blank}  # type: ignore[misc]
        unknown = self.control.get(self.unknown)
        if unknown is not None and (own := copy.token_to_id(f"{anchor}{self.unknown}")) is not None:
            names[own] = self.unknown
        return copy, anchor, names


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Gives control tokens names in a model's own vocabulary that no text can spell."""
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(t, t): i for t, i in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(t, t), score] for t, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]
        model["merges"] = [m for m in pairs if names.keys().isdisjoint((*m, "".join(m)))]


def check_unicode(text: str) -> None:
    """Raises `UserError` for half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20):error.start + 20]
        raise UserError(f"A text holds broken Unicode (half a surrogate pair) in {around!r}.",
                        "Correct it in the data, or leave that line out.") from None
