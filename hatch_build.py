"""The package index's page: README.md with links that work there, and the project's addresses.

    HARKEN_HOME=https://host/owner/harken python -m build

With HARKEN_HOME its relative links lead into that repository, at the version's tag; without it they become plain words, and
pictures are left out, so that no link is ever broken.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")


def index_readme(text: str, home: str, version: str) -> str:
    """README.md as an index shows it."""
    def link(match: re.Match[str]) -> str:
        picture, words, path = match.groups()
        if home:
            kind = "raw" if picture else "blob"
            return f"{picture}[{words}]({home}/{kind}/v{version}/{path})"
        return "" if picture else words
    return LINK.sub(link, text)


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        home = os.environ.get("HARKEN_HOME", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": index_readme(text, home, metadata["version"])}
        metadata["urls"] = {"Source": home, "Changelog": f"{home}/blob/main/CHANGELOG.md",
                            "Documentation": f"{home}/blob/main/docs/index.md", "Issues": f"{home}/issues"} if home else {}
