"""The sample browser's part of the page: its controls, and the samples themselves, compressed, unpacked as they are looked at.

Each set has an index (scores, groups, openings) and blocks of whole items, both zlib streams in base64. The page's script
unpacks the index of the set shown and the blocks of the items seen: 50,000 samples open as fast as ten.
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

from harken.draw.html import text
from harken.report.sets import Item, SampleSet

BLOCK = 250
"""Items a block: unpacking one takes a few milliseconds."""
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


def browser(sets: Sequence[SampleSet]) -> str:
    """The controls and the data, as HTML; nothing without items."""
    if not sets:
        return ""
    data, about = [], []
    for n, one in enumerate(sets):
        groups = sorted({item.group for item in one.items if item.group})
        place = {name: i for i, name in enumerate(groups)}
        index = {"groups": [place.get(item.group, -1) for item in one.items],
                 "scores": [[_short(item.scores[c]) for item in one.items] for c in range(len(one.columns))],
                 "openings": [_opening(item.prompt) for item in one.items]}
        blocks = [one.items[at:at + BLOCK] for at in range(0, len(one.items), BLOCK)]
        data.append(_held(f"set-{n}", index))
        data += [_held(f"set-{n}-{b}", [_whole(item) for item in block]) for b, block in enumerate(blocks)]
        about.append({"title": one.title, "columns": one.columns, "better": one.better, "n": len(one.items), "groups": groups})
    return CONTROLS + _held("sets", {"sets": about, "block": BLOCK}) + "".join(data)


def _held(name: str, value: Any) -> str:
    return f'<script type="text/plain" id="{name}">{packed(value)}</script>'


def _whole(item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {"p": _prompt(item.prompt), "a": [None if a is None else _cut(a) for a in item.answers]}
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
