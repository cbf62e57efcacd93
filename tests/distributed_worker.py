"""What each process of test_distributed.py runs: the training runs of a JSON file, one after another.

    torchrun --nproc-per-node 2 tests/distributed_worker.py jobs.json
"""

import json
import sys
from pathlib import Path

from harken import launch
from harken.engines.distributed import joined

if __name__ == "__main__":
    with joined():
        for job in json.loads(Path(sys.argv[1]).read_text()):
            method = launch.find_method(job["method"])
            launch.train(method, method.Config(**job["settings"]), quiet=True)
