"""Control tokens: <|good|> or <|bad|> before each segment, and text that can never become one.

A folder of a model that knows them holds `control.json`: their ids, and the segmenter whose segments they stand before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.text.control import Tokens
from harken.text.segments import check_segmenter, ends_segment, segments

GOOD, BAD = "<|good|>", "<|bad|>"
FILE = "control.json"


@dataclass(frozen=True)
class Control:
    """The two tokens' ids, what they stand before, and the mode to sample in unless told otherwise. A `deleted` bad token has
    an id that means nothing, and is never drawn. `routed` is how many neurons of each layer's MLP, its last, alone learnt bad
    segments (gradient routing); 0 is none."""

    good: int
    bad: int
    segmenter: str
    mode: str = "untagged"
    deleted: bool = False
    routed: int = 0

    @property
    def ids(self) -> tuple[int, int]:
        return self.good, self.bad

    def save(self, folder: Path) -> None:
        saved = {k: v for k, v in asdict(self).items() if k not in ("deleted", "routed") or v}
        (folder / FILE).write_text(json.dumps(saved) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Control | None:
        """What a model's folder says; None where it knows no control tokens."""
        if not (folder / FILE).is_file():
            return None
        try:
            control = cls(**json.loads((folder / FILE).read_text()))
            check_segmenter(control.segmenter)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder / FILE} is damaged: {error}.", "Copy the model again, or train it again.") from None
        return control


def end_of_text(template: Any) -> int:
    """The token that closes every document, and opens a text: the tokenizer's own, else the end of a turn."""
    own = template.tokenizer.eos_token_id
    return int(template.end_id if own is None else own)


def add_tokens(tokenizer: Any) -> tuple[int, int]:
    """Ids of the two tokens, which the tokenizer gets if it has not. Special: decoding leaves them out."""
    tokenizer.add_special_tokens({"additional_special_tokens": [GOOD, BAD]}, replace_extra_special_tokens=False)
    good, bad = tokenizer.convert_tokens_to_ids([GOOD, BAD])
    return int(good), int(bad)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text by itself. What looks like a control token is plain text: content cannot steer."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False).input_ids
    tokens = Tokens(tokenizer)
    return [row if tokens.control.keys().isdisjoint(row) else list(tokens.encode_written(text)) for row, text in zip(ids, texts)]


@dataclass(frozen=True)
class Steering:
    """How a sampler steers by control tokens: which it never draws, and which it puts after a segment's end.

    `start` follows the prompt's first token, `each` every segment that the sampled text completes; None puts none.
    """

    banned: tuple[int, ...]
    start: int | None
    each: int | None
    segmenter: str

    def after_prompt(self, ids: tuple[int, ...], begin: int, text: str) -> tuple[int, ...]:
        """A prompt's ids with its tags. `begin` is the end-of-text token that opens a text, `text` what the prompt says."""
        head = ids if ids[:1] == (begin,) else (begin, *ids)
        tagged = head[:1] + (() if self.start is None else (self.start,)) + head[1:]
        return (*tagged, self.each) if self.each is not None and text and self.ends(text) else tagged

    @property
    def ends(self) -> Callable[[str], bool]:
        return ends_segment(self.segmenter)


MODES = ("good", "bad", "untagged")


def steering(control: Control, mode: str = "", each: bool = True) -> Steering:
    """Steers into a mode (the model's own unless given): its tag at the start, and with `each` before every further segment.
    Neither tag is ever drawn."""
    mode = mode or control.mode
    if mode not in MODES:
        raise UserError(f"--mode {mode!r} is unknown.", f"Use one of {', '.join(MODES)}.")
    if mode == "bad" and control.deleted:
        raise UserError("The model has no bad mode: its token was deleted.", "Sample the model it was cut from.")
    tag: Mapping[str, int | None] = {"good": control.good, "bad": control.bad, "untagged": None}
    return Steering(control.ids, tag[mode], tag[mode] if each else None, control.segmenter)


def steer(sampler: Any, model: str, mode: str, tag: str = "each") -> None:
    """Steers a sampler whose `control` says what tokens its model knows: `mode` is good, bad or untagged, "" its own; `tag` is
    each (segment) or once (the start). Raises `UserError` where a mode is asked of a model that knows no control tokens."""
    if control := getattr(sampler, "control", None):
        sampler.steer(steering(control, mode, tag == "each"))
    elif mode:
        raise UserError(f"{model} knows no control tokens, so it has no {mode} mode.",
                        "Train one: harken train phf --objective conditional; or leave --mode out.")


@dataclass(frozen=True)
class Tagged:
    """A text as a model reads it: the end token, then each segment after its tag. `counted` says which of the tree's completion
    tokens are the text's own."""

    tree: Tree
    counted: tuple[bool, ...]

    def nll(self, logps: Any) -> float:
        """Nats of the text's own tokens, from one log-prob a completion token."""
        return -sum(float(x) for x, own in zip(logps, self.counted) if own)

    def windows(self, most: int) -> list[Tagged]:
        """Pieces of at most `most` tokens, the one that is given included: every token is predicted once, from its own piece."""
        ids = (*self.tree.prompt, *self.tree.completions[0])
        return [Tagged(Tree(ids[at:at + 1], (ids[at + 1:at + most],)), self.counted[at:at + most - 1])
                for at in range(0, len(ids) - 1, most - 1)]


def tagged(template: Any, text: str, steering: Steering | None) -> Tagged:
    """A text under a steering, or without."""
    ids, counted = [end_of_text(template)], []
    parts = [text] if steering is None else segments(text, steering.segmenter)
    for i, part in enumerate(encode(template.tokenizer, parts)):
        if steering is not None and (tag := steering.each if i else steering.start) is not None:
            ids.append(tag)
            counted.append(False)
        ids += part
        counted += [True] * len(part)
    return Tagged(Tree(tuple(ids[:1]), (tuple(ids[1:]),)), tuple(counted))


def text_nll(engine: Any, texts: Sequence[str], steering: Steering | None, most: int = 0) -> list[float]:
    """Nats of each whole text under a model, the tags not counted; read in windows of `most` tokens, at most the context."""
    limit = min(n for n in (most, engine.context, 1 << 30) if n)
    pieces = [tagged(engine.template, text, steering).windows(limit) for text in texts]
    logps = iter(engine.logprobs([p.tree for some in pieces for p in some]))
    return [sum(p.nll(next(logps)[0]) for p in some) for some in pieces]
