"""Offline HTML pages from the templates of this folder: one file each, which loads nothing.

    page("goals.html", title="…", style=STYLE, rows=…)

Values are escaped (`|text` also replaces characters that HTML forbids); what is HTML already is handed over as `Markup`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harken.draw import html

HERE = Path(__file__).parent


@cache
def templates() -> Environment:
    env = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
                      trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    env.filters["text"] = lambda value: Markup(html.text(value))
    env.globals["section"] = lambda *parts: Markup(html.section(*parts))
    return env


def page(template: str, *, style: str | None = None, **values: Any) -> str:
    """The page as text; `style` is its CSS, by default that of all reports."""
    css = (HERE / "style.css").read_text(encoding="utf-8") if style is None else style
    return templates().get_template(template).render(style=css, **values)
