"""Line icons as inline SVG, the same as the scripts draw (static/dom.js)."""

from __future__ import annotations

PATHS = {
    "undo": "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
    "guide": "M4 5a2 2 0 0 1 2-2h13v16H6a2 2 0 0 0-2 2zM4 21V5M8 7h7M8 11h5",
    "keys": "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M7 14h10",
    "skip": "M5 5l8 7-8 7zM19 5v14",
    "unsafe": "M12 3 2 20h20zM12 10v4M12 17h.01",
    "add": "M12 5v14M5 12h14",
    "remove": "M5 5l14 14M19 5 5 19",
}


def icon(name: str) -> str:
    """HTML of a decorative icon; the text beside it or an aria-label says what it means."""
    return f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="{PATHS[name]}"/></svg>'
