"""Progress bars on stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from harken.core import processes

_BAR: ContextVar[bool] = ContextVar("bar", default=False)


Shown = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""What shows work of so many steps: `waiting`, or `silent`. As a context it gives `advance(n)`."""
PATIENCE = 2.0


def silent(label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Shows nothing: what libraries do unless told otherwise."""
    return nullcontext(lambda n: None)


def waiting(label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """A progress bar that comes after two seconds and goes with the work: for what is mostly quick."""
    return progress(label, total, after=PATIENCE)


@contextmanager
def progress(label: str, total: int, start: int = 0, *, quiet: bool | None = None,
             after: float = 0.0) -> Iterator[Callable[[int], None]]:
    """A rich progress bar on stderr; yields `advance(n)`. Inside another bar, or off a terminal, it shows nothing.

    With `after` it comes only once so many seconds have passed, and leaves no line behind.
    """
    if _BAR.get() or processes.started()[0] or (not sys.stderr.isatty() if quiet is None else quiet):
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())
    shown = _BAR.set(True)
    try:
        bar = Progress(*columns, console=Console(stderr=True), transient=after > 0)
        task = bar.add_task(label, total=total, completed=start)
        clock = threading.Timer(after, bar.start)
        clock.daemon = True
        clock.start() if after else bar.start()
        try:
            yield lambda n: bar.advance(task, n)
        finally:
            if after:
                clock.cancel()
                clock.join()
            bar.stop()
    finally:
        _BAR.reset(shown)
