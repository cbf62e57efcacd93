"""The studio's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harken.studio.app import Studio


def routes(studio: Studio) -> list[Any]:
    """The pages' routes."""
    return []
