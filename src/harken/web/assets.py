"""Static files that may be cached for good: their address holds a hash over all of them."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

SHARED = Path(__file__).parent / "static"


class Assets:
    """The files of some folders, under one address; of two with one name the earlier folder's is served."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders

    @cached_property
    def files(self) -> dict[str, Path]:
        """Name → file, by name."""
        named = {p.relative_to(folder).as_posix(): p for folder in reversed(self.folders) for p in folder.rglob("*.*")}
        return dict(sorted(named.items()))

    @cached_property
    def version(self) -> str:
        digest = hashlib.sha256()
        for path in self.files.values():
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def address(self, name: str) -> str:
        """A file's address. The version is a folder, so that modules import each other under the same one."""
        return f"/static/{self.version}/{name}"

    def mount(self) -> Mount:
        return Mount("/static", _Versioned(self))


class _Versioned(StaticFiles):
    """Files under /static/VERSION/…, cached for a year; under another version they are gone (404)."""

    def __init__(self, assets: Assets) -> None:
        super().__init__(directory=assets.folders[0])
        self.all_directories = list(assets.folders)
        self.assets = assets

    def get_path(self, scope: Any) -> str:
        first, _, rest = super().get_path(scope).partition("/")
        return rest if first == self.assets.version else "-"

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
