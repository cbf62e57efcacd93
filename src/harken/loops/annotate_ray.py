"""The splits of an annotation dealt to the workers of a Ray cluster: the same plan, the same shards, the same bytes.

    annotate(["corpus/"], "annotated", partial(open_scorer, "pep8"), workers=8, ray="auto")

A worker is an actor that opens the scorer once and writes whole shards into the folder, which all machines must see under the
same path; the manifest is written by the caller alone. A worker that dies is started again and its split done anew. Ray's own
checkpoints are not used: a killed command continues from the manifest, on Ray or without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harken.core.errors import UserError


def work_on_ray(address: str, make: Callable[[], Any], todo: Sequence[int],
                workers: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The manifest lines of each split, as it is done. `make` gives an object with `do(split)` in each worker; `address` is that
    of a cluster, `auto` for the one of this machine, `local` to begin one. Raises `UserError` without Ray or a cluster."""
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed.", "pip install 'harken[scale]', or use --workers without --ray.") from None
    begun = not ray.is_initialized()
    if begun:
        try:
            ray.init(address=None if address == "local" else address, log_to_driver=False, configure_logging=False,
                     include_dashboard=False if address == "local" else None)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"No Ray cluster answers at {address}: {str(error).splitlines()[0][:200]}",
                            "Start one (ray start --head), name its address, or give --ray local.") from None
    actor: Any = ray.remote(max_restarts=-1, max_task_retries=-1)(_Worker)
    try:
        pool: list[Any] = [actor.remote(make) for _ in range(max(1, min(workers, len(todo))))]
        waiting = list(todo)
        running = {worker.do.remote(waiting.pop(0)): worker for worker in pool[:len(waiting)]}
        while running:
            (done,), _ = ray.wait(list(running))
            worker = running.pop(done)
            if waiting:
                running[worker.do.remote(waiting.pop(0))] = worker
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, UserError) else None
                raise cause or UserError(f"A worker failed: {error.cause}", "The same command continues.") from None
            except ray.exceptions.RayActorError:
                raise UserError("A worker was killed or could not start; is memory short?",
                                "The same command continues; fewer --workers need less.") from None
    finally:
        if begun:
            ray.shutdown()


class _Worker:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.work = make()

    def do(self, split: int) -> tuple[dict[str, Any], dict[str, Any]]:
        lines: tuple[dict[str, Any], dict[str, Any]] = self.work.do(split)
        return lines


def make_work(make: Callable[..., Any], folder: Path, column: Path, open_scorer: Callable[[], Any]) -> Any:
    """A worker's own: it opens the scorer itself."""
    return make(folder, column, open_scorer())
