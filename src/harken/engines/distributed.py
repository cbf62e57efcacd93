"""Data over several processes: each computes its share, and all end with the sum (torch.distributed; gloo, on GPUs NCCL).

The weights of a loss are fixed over the whole batch before it is split, so a sum over processes is right where a mean of
means would not be (P7). Whatever a method decides on is gathered, never computed twice: the same numbers on all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from harken.core import processes
from harken.core.errors import UserError

T = TypeVar("T")
BUCKET = 4 << 20
"""Numbers summed in one message: 16 MB of float32."""
LOST = ("Connection closed", "Connection reset", "Broken pipe", "Timed out")
"""Found in gloo's errors when the process at the other end is gone."""
TIMEOUT = timedelta(hours=2)
"""How long a process waits for another: longer than any checkpoint or held-out evaluation takes."""


class Processes(processes.Group):
    """The processes that torch.distributed has joined."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.store = dist.distributed_c10d._get_default_store()

    def agree(self, value: T) -> T:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def add(self, numbers: Tensor) -> None:
        dist.all_reduce(numbers)

    def fails_first(self) -> bool:
        try:
            return int(self.store.add("harken/failed", 1)) == 1
        except RuntimeError:  # the store went with the process that kept it, which has spoken
            return False


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that a launcher started; a process on its own, or joined already, just goes on.

    Raises `UserError` if they do not find each other, or if one ends while the others need it. After an error they
    stay joined until the program ends, so that one of them tells of it (`fails_first`).
    """
    if processes.started()[1] == 1 or processes.group().size > 1:
        yield
        return
    _join()
    token = processes.GROUP.set(Processes())
    try:
        yield
        processes.group().agree(None)  # nobody leaves before the first has written the last file
    except RuntimeError as error:
        lost = [sign for sign in LOST if sign in str(error)]
        if lost or isinstance(error, dist.DistError):
            raise UserError(f"Another process of this run ended ({lost[0] if lost else str(error).splitlines()[0]}).",
                            "The same command continues from the last checkpoint.") from None
        raise
    processes.GROUP.reset(token)
    dist.destroy_process_group()


def _join() -> None:
    backend = "gloo"
    if devices := torch.cuda.device_count():
        local = int(os.environ.get("LOCAL_RANK", processes.started()[0]))
        torch.cuda.set_device(local % devices)
        if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) <= devices:  # NCCL wants a GPU a process; gloo shares one
            backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"The processes did not find each other: {str(error).splitlines()[0]}",
                        "Start them with torchrun (docs/processes.md), or unset RANK and WORLD_SIZE.") from None


def collect(results: Mapping[int, T], count: int) -> list[T]:
    """Items 0 … count - 1, of which every process brings some."""
    merged = {i: item for part in processes.group().gather(dict(results)) for i, item in part.items()}
    return [merged[i] for i in range(count)]


def collect_tensors(results: Mapping[int, Sequence[Tensor]], count: int) -> list[list[Tensor]]:
    """`collect` for lists of float32 tensors, which come back on the CPU; a process on its own keeps them where they are."""
    if processes.group().size == 1:
        return [list(results[i]) for i in range(count)]
    # As arrays: a pickled view of a tensor would bring the whole tensor along.
    arrays = collect({i: [x.cpu().numpy() for x in part] for i, part in results.items()}, count)
    return [[torch.from_numpy(x) for x in part] for part in arrays]


def total(metrics: Mapping[str, float]) -> dict[str, float]:
    """The sum of every metric over the processes, added in the order of their ranks; not all have them all."""
    sums: dict[str, float] = {}
    for part in processes.group().gather(dict(metrics)):
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Adds up the gradients of all processes. One that no process has stays None: its optimiser state must not begin."""
    group = processes.group()
    if group.size == 1:
        return
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
    group.add(has)
    wanted = [p for p, present in zip(parameters, has.tolist()) if present]
    for bucket in _buckets(wanted):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
        group.add(flat)
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket])):
            p.grad = part.view_as(p)


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one data type, up to `BUCKET` numbers together."""
    bucket: list[Tensor] = []
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or sum(q.numel() for q in bucket) + p.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket
