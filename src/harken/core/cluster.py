"""Joining a Ray cluster, or beginning one of this machine."""

from __future__ import annotations

import os
import socket
from typing import Any

from harken.core.errors import UserError

ANSWER_SECONDS = 10.0
"""How long a cluster's head may take to accept a connection: Ray itself asks for minutes."""
START_SECONDS = "120"
"""Ray's own 30 are too few where the processor is busy."""


def connect(address: str, without: str) -> tuple[Any, bool]:
    """The module `ray`, and whether this call joined the cluster. `address` is HOST:PORT, ray://HOST:PORT, `auto` for the one of
    this machine, or `local` to begin one here; `without` says how to go on without one. Raises `UserError` without either."""
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed.", f"pip install 'harken[scale]', or {without}.") from None
    if ray.is_initialized():
        return ray, False
    local = address == "local"
    action = f"Start one (ray start --head) and name its address, HOST:6379, or {without}."
    os.environ.setdefault("RAY_raylet_start_wait_time_s", START_SECONDS)
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False if local else None)
    except Exception as error:  # Ray raises the bare class where a node does not come up in time
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"No Ray cluster answers at {'this machine' if local else address}: {reason}", action) from None
    return ray, True


def _reach(address: str) -> None:
    """Raises `OSError` where nothing listens at a HOST:PORT."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
