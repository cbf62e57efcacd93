"""Small builders of HTML text. Everything that comes from outside goes through `text`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

# Control characters and lone surrogates are not allowed in HTML; they become the replacement sign.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def text(value: object) -> str:
    """Escaped for element content and for quoted attributes."""
    return html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True)


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
