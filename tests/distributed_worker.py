"""What each process of test_distributed.py runs: the training runs of a JSON file, one after another.

    torchrun --nproc-per-node 2 tests/distributed_worker.py jobs.json
"""

import json
import os
import sys
from pathlib import Path

from harken.core import processes
from harken.engines.distributed import joined
from harken.launch.find import find_method
from harken.launch.train import train as launch_train

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree"}


def only_read(folders):
    """Makes it an error of this process to change anything in these folders: the first process alone writes a run."""
    def check(event, args):
        changes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        writes = changes or event in CHANGES
        if writes and any(str(args[0]).startswith(folder) for folder in folders):
            raise AssertionError(f"process {processes.group().rank} writes: {event} {args}")
    sys.addaudithook(check)


if __name__ == "__main__":
    with joined():
        jobs = json.loads(Path(sys.argv[1]).read_text())
        if processes.group().rank:
            only_read([job["settings"]["out"] for job in jobs])
        for job in jobs:
            method = find_method(job["method"])
            launch_train(method, method.Config(**job["settings"]), quiet=True)
