"""Frozen weights of a split model: a piece or a matrix at a time, with the numbers of the whole."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")


@pytest.mark.slow
def test_what_is_gathered_has_the_numbers_of_the_whole():
    """Two processes with texts of different lengths, seven rows over two, pieces of two rows (gathers_parts.py)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        together = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    worker = str(Path(__file__).with_name("gathers_parts.py"))
    started = [subprocess.Popen([sys.executable, worker], env={**together, "RANK": str(rank)}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in range(2)]
    said = [p.communicate(timeout=300) for p in started]
    assert [p.returncode for p in started] == [0, 0], said
    for out, _ in said:
        result = json.loads(out.splitlines()[-1])
        assert all(result.pop(name) for name in ("rows", "whole", "exact")), result
        assert result.pop("most") < result.pop("all"), "no piece was the whole table"
        assert max(result.values()) < 1e-5, result
