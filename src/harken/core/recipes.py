"""Settings from a file: JSON, TOML or YAML, by its name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import read_json

FLOAT = re.compile(r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)$|[-+]?\d[\d_]*\.\d*$|[-+]?\.\d+$")
"""Numbers of YAML 1.2: PyYAML's own rule takes 1e-4 for text."""


def read_settings(path: Path) -> dict[str, Any]:
    """An object of settings. Raises `UserError` where the file is missing, damaged or holds something else."""
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".yaml", ".yml"):
        return dict(read_json(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.", "Check the path.") from None
    if suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path} is no TOML: {error}.", "Correct it.") from None
    value = _yaml(path, text)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{path} holds a {type(value).__name__}, not settings by name.", "Write name: value, one a line.")
    return value


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise UserError(f"{path} is YAML, which needs the package pyyaml.",
                        "pip install 'harken[yaml]', or write TOML.") from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
    try:
        return yaml.load(text, Loader)  # SafeLoader's rules: no objects
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}.", "Correct it.") from None
