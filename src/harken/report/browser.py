"""The sample browser's part of the page: its controls, and the samples themselves, compressed, unpacked as they are looked at.

Each set has an index (scores, groups, marks) and blocks of whole items in a random order, zlib streams in base64. What the first
screen shows, the first set's index and its first block, stands before the page's script as plain JSON; the rest behind it, where
it delays nothing: 50,000 samples open as fast as ten.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harken.draw.html import text
from harken.report.sets import Item, SampleSet

BLOCK = 200
"""Items a block: unpacking one takes a millisecond or two."""
SEED = 20221
"""Of the order in which samples lie and are shown first: the same page shows the same ones, and nobody chose them."""
OPENING = 90
"""Characters of a prompt that the list shows."""
LONGEST = 40_000
"""Characters of one text kept in the page."""


@cache
def script() -> str:
    return (Path(__file__).parent / "static" / "report.js").read_text(encoding="utf-8")


def script_hash() -> str:
    """What the page's content security policy names: no other script runs, not even one smuggled in by a sample."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()


def packed(value: Any) -> str:
    whole = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(whole.encode(), 6)).decode()


def browser(sets: Sequence[SampleSet]) -> tuple[str, str]:
    """(the controls with what the first screen shows, the rest of the data), as HTML; both empty without items."""
    if not sets:
        return "", ""
    first, rest, about = [], [], []
    for n, one in enumerate(sets):
        groups = sorted({item.group for item in one.items if item.group})
        marks = sorted({mark for item in one.items for mark in item.marks})
        place = {name: i for i, name in enumerate(groups)}
        order = np.random.default_rng(SEED).permutation(len(one.items)).tolist()
        items = [one.items[i] for i in order]
        index = {"groups": [place.get(item.group, -1) for item in items],
                 "scores": [[_short(item.scores[c]) for item in items] for c in range(len(one.columns))],
                 "marks": [[i for i, item in enumerate(items) if mark in item.marks] for mark in marks]}
        blocks = [[_whole(items[i], order[i]) for i in range(at, min(at + BLOCK, len(items)))]
                  for at in range(0, len(items), BLOCK)]
        opening = {f"set-{n}": index, f"set-{n}-0": blocks[0]}
        first += [_plain(*pair) for pair in opening.items() if n == 0]
        rest += [_held(*pair) for pair in opening.items() if n]
        rest += [_held(f"set-{n}-{b}", block) for b, block in enumerate(blocks) if b]
        rest.append(_held(f"set-{n}-order", order))
        about.append({"title": one.title, "columns": one.columns, "better": one.better, "n": len(items), "groups": groups,
                      "marks": marks})
    return CONTROLS + _plain("sets", {"sets": about, "block": BLOCK}) + "".join(first), "".join(rest)


def _held(name: str, value: Any) -> str:
    return f'<script type="text/plain" id="{name}">{packed(value)}</script>'


def _plain(name: str, value: Any) -> str:
    """Not compressed: unpacking has to wait for its turn beside the reading of the page, this has not."""
    whole = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="text/plain" data-plain id="{name}">{whole}</script>'


def _whole(item: Item, number: int) -> dict[str, Any]:
    """`n` is the item's place as recorded, `o` its line in the list."""
    row: dict[str, Any] = {"n": number, "o": _opening(item.prompt), "p": _prompt(item.prompt),
                           "a": [None if a is None else _cut(a) for a in item.answers]}
    if any(item.whys):
        row["w"] = [_cut(w) for w in item.whys]
    if item.details:
        row["d"] = {k: _cut(v) if isinstance(v, str) else v for k, v in item.details.items()}
    return row


def _prompt(value: Any) -> Any:
    if isinstance(value, list):
        return [[str(m.get("role", "")), _cut(str(m.get("content", "")))] for m in value if isinstance(m, dict)]
    return _cut(value) if isinstance(value, str) else ""


def _cut(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}… (and {len(words) - LONGEST:,} more characters)"


def _opening(prompt: Any) -> str:
    """The prompt's last line that says something: what comes before it is often the same in every item."""
    if isinstance(prompt, list):
        users = [str(m.get("content", "")) for m in prompt if isinstance(m, dict)]
        prompt = users[-1] if users else ""
    lines = [line.strip() for line in str(prompt or "").splitlines() if len(line.strip()) > 3]
    line = lines[-1] if lines else str(prompt or "").strip()
    if len(line) < 25 and len(lines) > 1:
        line = f"{lines[-2]} {line}"
    return line if len(line) <= OPENING else line[:OPENING - 1] + "…"


def _short(score: float | None) -> float | None:
    return None if score is None else float(f"{score:.5g}")


def options(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f'<option value="{text(value)}">{text(words)}</option>' for value, words in pairs)


ORDERS = (("random", "at random"), ("apart", "furthest apart first"), ("low", "lowest left score first"),
          ("high", "highest left score first"), ("recorded", "as recorded"))
SHOWN = (("all", "everything"), ("left", "left is better"), ("right", "right is better"), ("equal", "equal scores"),
         ("differ", "texts differ"), ("missing", "a score is missing"))

CONTROLS = f"""<div id="browser" class="browser" hidden>
<form class="controls" aria-label="Which samples">
<label>Samples <select id="b-set"></select></label>
<label>Left <select id="b-left"></select></label>
<label>Right <select id="b-right"></select></label>
<label>Group <select id="b-group"></select></label>
<label>Show <select id="b-show">{options(SHOWN)}</select></label>
<label>Order <select id="b-order">{options(ORDERS)}</select></label>
<label class="wide">Contains <input id="b-find" type="search" autocomplete="off" placeholder="words of prompt or answer"></label>
<label class="check"><input id="b-words" type="checkbox" checked> mark the words that differ</label>
</form>
<p id="b-count" class="count" role="status"></p>
<div class="panes">
<div id="b-list" class="list" role="listbox" tabindex="0" aria-label="Samples: arrow keys, Home and End move"></div>
<article id="b-item" class="sample item" tabindex="-1" aria-label="The chosen sample"></article>
</div>
</div>
"""
