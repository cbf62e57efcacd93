"""Ends a run between two steps, as a power cut would after a checkpoint: what "stopped = unstopped" tests share (P22)."""

import contextlib

import pytest

from harken.core.run import Run


@contextlib.contextmanager
def stopped_after(last):
    """Within it a run must stop once the checkpoint of step `last` is written."""
    original = Run.checkpoint

    def stop(self, step, save, **options):
        original(self, step, save, **options)
        if step == last:
            raise RuntimeError("stopped")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(Run, "checkpoint", stop)
        yield
