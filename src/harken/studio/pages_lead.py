"""The lead's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute

if TYPE_CHECKING:
    from harken.studio.app import Studio


def routes(studio: Studio) -> list[BaseRoute]:
    return []
