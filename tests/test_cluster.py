"""Joining a Ray cluster: an address at which nothing listens is said at once, where Ray itself waits for minutes."""

import socket

import pytest

from harken.core import cluster
from harken.core.errors import UserError


@pytest.mark.parametrize("before", ["", "ray://"])
def test_an_address_without_a_cluster_is_one_message(monkeypatch, before):
    started = []
    ray = type("Ray", (), {"is_initialized": staticmethod(lambda: False), "init": staticmethod(lambda **_: started.append(1))})
    monkeypatch.setitem(__import__("sys").modules, "ray", ray)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"{before}127.0.0.1:{server.getsockname()[1]}"
        assert cluster.connect(there, "give ray:N alone") == (ray, True) and started == [1]
    with pytest.raises(UserError, match=f"No Ray cluster answers at {there}"):
        cluster.connect(there, "give ray:N alone")
    assert started == [1]
