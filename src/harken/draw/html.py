"""Small builders of HTML text. Everything that comes from outside goes through `text`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from harken.core.protocols import Estimate

# Control characters and lone surrogates are not allowed in HTML; they become the replacement sign.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def text(value: object) -> str:
    """Escaped for element content and for quoted attributes."""
    return html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True)


def number(value: float, digits: int = 3) -> str:
    """`digits` significant digits, a real minus sign, no exponent between 1e-4 and 1e6."""
    if not math.isfinite(value):
        return "—" if math.isnan(value) else ("−∞" if value < 0 else "∞")
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    form = f".{digits - 1}e" if size >= 6 or size < -4 else f",.{max(0, digits - 1 - size)}f"
    return _tidy(f"{value:{form}}")


def compact(value: float) -> str:
    """Up to four significant digits without trailing zeros: 0.0001, 6e−7."""
    return _tidy(f"{value:.4g}")


def _tidy(shown: str) -> str:
    return re.sub(r"e([+-])0*", r"e\1", shown).replace("e+", "e").replace("-", "−")


def percent(value: float) -> str:
    return f"{100 * value:.1f}%".replace("-", "−") if math.isfinite(value) else number(value)


def span(e: Estimate, *, rate: bool = False) -> str:
    """The interval as `[low, high]`, its level unless 95%, or why there is none; plain text."""
    if math.isnan(e.low) or math.isnan(e.high):
        return "no interval"
    level = "" if math.isclose(e.level, 0.95) else f" at {100 * e.level:g}%"
    if rate:
        return f"[{percent(e.low).rstrip('%')}, {percent(e.high)}]{level}"
    places = _places(e)
    return f"[{_fixed(e.low, places)}, {_fixed(e.high, places)}]{level}"


def value(e: Estimate, *, rate: bool = False) -> str:
    """The number to the precision that its interval supports."""
    return percent(e.value) if rate else _fixed(e.value, _places(e))


def _places(e: Estimate) -> int:
    width = e.high - e.low
    if not math.isfinite(width) or width <= 0:
        width = abs(e.value) or 1.0
    return min(max(0, 1 - math.floor(math.log10(width))), 6)


def _fixed(x: float, places: int) -> str:
    return f"{x:,.{places}f}".replace("-", "−") if math.isfinite(x) else number(x)


def definitions(pairs: Mapping[str, object]) -> str:
    """A nested mapping as nested definition lists."""
    out = []
    for key, item in pairs.items():
        if isinstance(item, Mapping) and item:
            shown = definitions(item)
        elif isinstance(item, list | tuple) and any(isinstance(i, Mapping) for i in item):
            shown = "".join(definitions(i) if isinstance(i, Mapping) else f"<span>{text(i)}</span>" for i in item)
        else:
            none = item is None or item == {} or item == []
            shown = '<span class="none">none</span>' if none else f"<span>{text(item)}</span>"
        out.append(f"<div><dt>{text(str(key).replace('_', ' '))}</dt><dd>{shown}</dd></div>")
    return f"<dl>{''.join(out)}</dl>"


def data_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, summary: str = "Numbers") -> str:
    """A collapsed table with the numbers behind a chart; all arguments are plain text."""
    columns = "".join(f'<th scope="col">{text(h)}</th>' for h in head)
    body = "".join(f'<tr><th scope="row">{text(r[0])}</th>' + "".join(f"<td>{text(c)}</td>" for c in r[1:]) + "</tr>"
                   for r in rows)
    return (f'<details class="data"><summary>{text(summary)}</summary><div class="scroll" tabindex="0" role="region" '
            f'aria-label="{text(caption)}"><table class="plain"><caption>{text(caption)}</caption><thead><tr>{columns}'
            f"</tr></thead><tbody>{body}</tbody></table></div></details>")


def section(name: str, title: str, body: str, lead: str = "") -> str:
    """A page section; `body` and `lead` are HTML. Nothing at all when the body is empty."""
    if not body:
        return ""
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{text(title)}</h2>{lead}{body}</section>'
