"""Code that a model wrote, run in a process of its own: without a network, with bounds on time, memory, files and processes.

    passed, why = run_isolated("assert add(1, 2) == 3", seconds=3)

A namespace of its own takes the network away; where the machine gives none, nothing is run and the item is missing. The
process has an empty environment and a folder that goes with it, but it can read what its user can read: for code you have
reason to fear, run the whole evaluation in a container.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import tempfile

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
NO_SANDBOX = 97
"""The exit status of a child that got no network namespace."""


def run_isolated(code: str, *, seconds: float = 5.0, megabytes: int = 512) -> tuple[bool | None, str]:
    """(Whether it ended well, why not); None where it could not be run in isolation."""
    def confine() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        # Outside a user namespace only root may make a network namespace, so both are tried.
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) and libc.unshare(CLONE_NEWNET):
            os._exit(NO_SANDBOX)
        for kind, most in ((resource.RLIMIT_CPU, int(seconds) + 1), (resource.RLIMIT_AS, megabytes << 20),
                           (resource.RLIMIT_FSIZE, 1 << 20), (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0)):
            resource.setrlimit(kind, (most, most))

    with tempfile.TemporaryDirectory(prefix="harken-") as folder:
        try:
            done = subprocess.run([sys.executable, "-I", "-S", "-"], input=code.encode("utf-8", "replace"), cwd=folder, env={},
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=seconds, preexec_fn=confine,
                                  start_new_session=True)
        except subprocess.TimeoutExpired:
            return False, f"it ran longer than {seconds:g} seconds"
        except (OSError, subprocess.SubprocessError) as error:
            return None, f"it could not be started in isolation: {error}"
    if done.returncode == NO_SANDBOX:
        return None, "this machine gives no network namespace: code of models is not run"
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return done.returncode == 0, "" if done.returncode == 0 else (last[0][:200] if last else f"status {done.returncode}")
