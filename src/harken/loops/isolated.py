"""Code that a model wrote, run in a process of its own: without a network, with bounds on time, memory, files and processes.

    passed, why = run_isolated("assert add(1, 2) == 3", seconds=3)

It passes where it runs to its last line: code that ends early, with whatever status, has not. What is a boundary: a namespace
of its own takes the network away (where the machine gives none, nothing is run and the item is missing); limits of the system
bound CPU time, memory, the size of files and open files; the process group is ended afterwards. What is none: the process has
an empty environment and a folder that goes with it, but it can read, and delete, what its user can; a program that leaves its
process group may outlive it; processes are bounded for users other than root alone. For code you have reason to fear, run the
whole evaluation in a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
NO_SANDBOX = 97
"""The exit status of a child that got no network namespace."""
PROCESSES = 64


def run_isolated(code: str, *, seconds: float = 5.0, megabytes: int = 512) -> tuple[bool | None, str]:
    """(Whether it ran to its end, why not); None where it could not be run in isolation."""
    def confine() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        # Outside a user namespace only root may make a network namespace, so both are tried.
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) and libc.unshare(CLONE_NEWNET):
            os._exit(NO_SANDBOX)
        for kind, most in ((resource.RLIMIT_CPU, int(seconds) + 1), (resource.RLIMIT_AS, megabytes << 20),
                           (resource.RLIMIT_FSIZE, 1 << 20), (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_NPROC, PROCESSES),
                           (resource.RLIMIT_CORE, 0)):
            resource.setrlimit(kind, (most, most))

    # Its last line says a word drawn for this run: sys.exit(0) in front of the tests is no pass.
    word = secrets.token_hex(16)
    whole = f"{code}\n\nimport os\nos.write(1, b'\\n{word}')\n"
    with tempfile.TemporaryDirectory(prefix="harken-", ignore_cleanup_errors=True) as folder:
        said, wrong = Path(folder) / "out", Path(folder) / "err"  # files, so that their size is bounded too
        try:
            with said.open("wb") as out, wrong.open("wb") as err:
                process = subprocess.Popen([sys.executable, "-I", "-S", "-"], stdin=subprocess.PIPE, stdout=out, stderr=err,
                                           cwd=folder, env={}, preexec_fn=confine, start_new_session=True)
                try:
                    process.communicate(whole.encode("utf-8", "replace"), timeout=seconds)
                except subprocess.TimeoutExpired:
                    return False, f"it ran longer than {seconds:g} seconds"
                finally:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            ended = word.encode() in said.read_bytes()  # what it printed may follow: that waits in a buffer
            last = wrong.read_bytes().decode("utf-8", "replace").strip().splitlines()[-1:]
        except (OSError, subprocess.SubprocessError) as error:
            return None, f"it could not be started in isolation: {error}"
    if process.returncode == NO_SANDBOX:
        return None, "this machine gives no network namespace: code of models is not run"
    if process.returncode == 0 and ended:
        return True, ""
    return False, last[0][:200] if last else f"it ended early, with status {process.returncode}"
