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
    return min(min(_available(), _cgroup()) / max(1, local), _limit())


def _available() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _cgroup() -> float:
    """What the container may still take: cgroups of version 2, else of version 1."""
    for names in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            limit, used = (Path("/sys/fs/cgroup", name).read_text(encoding="utf-8").strip() for name in names)
            return float(limit) - float(used)
        except (OSError, ValueError):  # "max" is no number: there is no limit
            continue
    return float("inf")


def _limit() -> float:
    """What this process may still take by its own limit of private memory (`ulimit -d`)."""
    try:
        import resource
        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if limit == resource.RLIM_INFINITY:
            return float("inf")
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return float(limit) - next(float(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
    except (ImportError, OSError, StopIteration):
        return float("inf")
