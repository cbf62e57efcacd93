"""A pytest plugin that takes away the modules Windows lacks: `pytest -p hide_fcntl` in this folder's path."""

import sys

for name in ("fcntl", "termios", "resource", "pwd", "grp"):
    sys.modules[name] = None  # type: ignore[assignment]
