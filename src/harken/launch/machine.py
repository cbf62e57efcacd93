"""What memory this machine, or the card of a process, has free."""

from __future__ import annotations

import os
from pathlib import Path

from harken.core.extras import import_extra


def free_memory(processes: int = 1) -> float:
    """Bytes that a process may still take: of its card, or its share of what this machine has free (cgroups heeded)."""
    import_extra("torch")
    import torch
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0]) / max(1, -(-processes // torch.cuda.device_count()))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    return min(_available(), _cgroup()) / max(1, local)


def _available() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _cgroup() -> float:
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="utf-8").strip() for name in ("max", "current"))
        return float(limit) - float(used)
    except (OSError, ValueError):  # "max" is no number: there is no limit
        return float("inf")
