"""Two hosts on one machine: network namespaces joined by a cable, a node of one run in each; one is killed, and the run resumed.

    sudo python benchmarks/two_hosts.py [--quick] [--no-shard]

Each namespace has an address of its own and reaches the other by that alone. torchrun finds the nodes (c10d), gloo joins them,
--shard splits the model over both. First the run goes through; then it is started again elsewhere, the second node is killed
with all its processes once a checkpoint lies there, the first is to end by itself, and the same two commands continue. The final
weights must be the first run's, bit for bit. Linux, root (ip netns). --quick is fewer steps. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOSTS = {"harken-a": "10.77.0.1", "harken-b": "10.77.0.2"}
PORT = "29511"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def hosts() -> Iterator[None]:
    """Two namespaces with a cable between them, gone afterwards."""
    first, second = HOSTS
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
        for host, address in HOSTS.items():
            ip("-n", host, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", host, "link", "set", device, "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], stderr=subprocess.DEVNULL)


def start(command: list[str], log: Path) -> list[subprocess.Popen[bytes]]:
    """A node of the run in each host, in a process group of its own."""
    nodes = []
    for host, address in HOSTS.items():
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend",
                    "c10d", "--rdzv-endpoint", f"{next(iter(HOSTS.values()))}:{PORT}", "--rdzv-id", "two-hosts",
                    "--rdzv-conf", f"is_host={int(host == next(iter(HOSTS)))},read_timeout=300", "--local-addr", address]
        with log.with_suffix(f".{host}").open("w") as out:
            nodes.append(subprocess.Popen(
                ["ip", "netns", "exec", host, *torchrun, "-m", "harken", *command], stdout=out, stderr=out,
                start_new_session=True,
                env={**os.environ, "GLOO_SOCKET_IFNAME": "cable", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}))
    return nodes


def finish(nodes: list[subprocess.Popen[bytes]], log: Path, seconds: int = 600) -> list[int]:
    try:
        return [node.wait(seconds) for node in nodes]
    except subprocess.TimeoutExpired:
        raise SystemExit(f"The nodes did not end within {seconds} s; {log.parent} has what they said.") from None
    finally:
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)


def said(log: Path) -> str:
    return "".join(log.with_suffix(f".{host}").read_text()[-2000:] for host in HOSTS)


def weights(run: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted((run / "model").glob("*.safetensors"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-shard", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, hosts():
        folder, rows = Path(place), 24 if args.quick else 96
        data = folder / "data.jsonl"
        lines = [json.dumps({"prompt": f"Say {i}.", "completion": f"{i} and {i + 1}."}) + "\n" for i in range(rows)]
        data.write_text("".join(lines))

        def command(out: str) -> list[str]:
            return ["train", "sft", "--model", "toy", "--data", str(data), "--out", str(folder / out), "--epochs", "1",
                    "--batch-size", "4", "--checkpoint-seconds", "0", "--lora-rank", "0", *([] if args.no_shard else ["--shard"])]

        whole = finish(start(command("whole"), folder / "whole.log"), folder / "whole.log")
        if any(whole):
            raise SystemExit(said(folder / "whole.log"))
        nodes = start(command("killed"), folder / "killed.log")
        checkpoints, began = folder / "killed" / "checkpoints", time.monotonic()
        while not any(int(p.name[5:]) >= 2 for p in checkpoints.glob("step-*")):
            if any(node.poll() is not None for node in nodes) or time.monotonic() > began + 300:
                raise SystemExit(said(folder / "killed.log"))
            time.sleep(0.01)
        os.killpg(nodes[1].pid, signal.SIGKILL)  # torchrun starts its workers in sessions of their own
        subprocess.run(f"kill -9 $(ip netns pids {list(HOSTS)[1]})", shell=True, stderr=subprocess.DEVNULL)
        step = max(int(p.name[5:]) for p in checkpoints.glob("step-*"))
        ended = finish(nodes, folder / "killed.log")
        unfinished = not (folder / "killed" / "result.json").exists()
        resumed = finish(start(command("killed"), folder / "resumed.log"), folder / "resumed.log")
        if any(resumed):
            raise SystemExit(said(folder / "resumed.log"))
        same = weights(folder / "whole") == weights(folder / "killed")
        result = {"shard": not args.no_shard, "killed_at_step": step, "was_unfinished": unfinished,
                  "first_node_ended_with": ended[0], "same_weights": same}
    print(json.dumps(result))
    if not (same and unfinished):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
