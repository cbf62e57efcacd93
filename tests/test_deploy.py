"""The container's entry script in a fresh prefix: a lead is made once, the studio answers, starting again changes nothing. No
container is built here: test machines have no container engine."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import harken

ROOT = Path(__file__).parents[1]


def test_the_compose_file_names_what_is_there():
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"proxy", "studio", "database"}
    assert (ROOT / services["studio"]["build"]["dockerfile"]).exists()
    used = {name for service in services.values() for name in service.get("secrets", [])}
    assert used == set(compose["secrets"]) and "ports" not in services["studio"] and "ports" not in services["database"]
    script = (ROOT / "deploy/entry.sh").read_text()
    given = {name for name in services["studio"]["environment"] if name.startswith("HARKEN_")}
    assert all(name in script for name in given)
    for line in (ROOT / "deploy/Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line


@pytest.mark.slow
def test_the_entry_script_twice(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "harken"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m harken "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "secret").write_text("a long enough secret\n")
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
                   "HARKEN_PASSWORD_FILE": str(tmp_path / "secret"),
                   "HARKEN_DB": str(tmp_path / "f.db"), "HARKEN_PORT": "0", "HARKEN_HOST": "0.0.0.0",
                   "HARKEN_NAME": "studio.example",
                   "PYTHONPATH": str(Path(harken.__file__).parents[1])}
    for _ in range(2):
        studio = subprocess.Popen(["sh", str(ROOT / "deploy/entry.sh")], env=environment, cwd=tmp_path, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        try:
            lines = []
            until = time.monotonic() + 60
            while not any("Harken studio" in line for line in lines) and time.monotonic() < until and studio.poll() is None:
                lines.append(studio.stdout.readline())
            assert any("https://studio.example" in line for line in lines), studio.stderr.read() if studio.poll() else lines
        finally:
            studio.terminate()
            studio.wait()
    listed = subprocess.run([str(command), "users", "list", "--db", str(tmp_path / "f.db")], env=environment, capture_output=True,
                            text=True, check=True).stdout
    assert listed.count("lead") >= 1 and len([line for line in listed.splitlines() if "lead" in line.split()]) == 1
