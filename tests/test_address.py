"""What the studio prints and invites with can be opened by others."""

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import harken
from harken.web import address


def test_the_address_to_give_away(monkeypatch):
    monkeypatch.setattr(address, "lan_address", lambda: "192.168.7.5")
    assert address.public_address("0.0.0.0", 8765) == "http://192.168.7.5:8765"
    assert address.public_address("::", 1) == "http://192.168.7.5:1"
    assert address.public_address("127.0.0.1", 8765) == "http://localhost:8765"
    assert address.public_address("10.0.0.9", 80) == "http://10.0.0.9:80"
    assert address.public_address("fd00::1", 80) == "http://[fd00::1]:80"
    assert address.public_address("127.0.0.1", 8765, ("studio.example",)) == "https://studio.example"
    monkeypatch.setattr(address, "lan_address", lambda: None)
    assert address.public_address("0.0.0.0", 8765) == "http://0.0.0.0:8765"


@pytest.mark.slow
def test_a_team_server_prints_an_address_that_opens_and_warns(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(harken.__file__).parents[1])}
    command = [sys.executable, "-m", "harken"]
    (tmp_path / "p").write_text("a long enough secret\n")
    subprocess.run([*command, "users", "add", "ada", "--role", "lead", "--password-file", "p", "--db", "f.db"], check=True,
                   cwd=tmp_path, env=environment, capture_output=True)
    server = subprocess.Popen([*command, "studio", "--host", "0.0.0.0", "--port", "0", "--db", "f.db"], cwd=tmp_path,
                              env=environment, stdout=subprocess.PIPE, text=True)
    try:
        lines = [server.stdout.readline() for _ in range(4)]
        url = lines[0].split()[-1]
        assert re.fullmatch(r"http://[\d.:a-f\[\]]+", url) and "Plain HTTP" in lines[2]
        if address.lan_address():
            assert "0.0.0.0" not in url
        assert urllib.request.urlopen(f"{url}/login", timeout=20).status == 200
        from harken.studio.client import Client
        studio = Client(url)
        studio.login("ada", "a long enough secret")
        assert studio.call("POST", "/api/invitations", {})["url"].startswith(f"{url}/join#")
        studio.close()
    finally:
        server.terminate()
        server.wait()
