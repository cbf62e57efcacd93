"""What Harken is installed with is written down, pinned and hashed."""

import importlib.util
import json
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("supply", ROOT / "tools" / "supply.py")
supply = importlib.util.module_from_spec(spec)
spec.loader.exec_module(supply)


def test_every_dependency_is_explained_and_pinned():
    assert supply.undeclared() == []


@pytest.mark.parametrize("name", ["numpy", "cryptography", "uvicorn", "psycopg", "jinja2"])
def test_the_lock_pins_by_hash_what_the_constraints_say(name):
    text = supply.LOCK.read_text(encoding="utf-8")
    locked = {p["name"]: p for p in supply.read_lock(text)}
    pins = {supply.normal(line.split("==")[0]): line.split("==")[1]
            for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split() if "==" in line}
    assert text.count("--hash=sha256:") == len(locked) and locked[name]["version"] == pins[name]
    assert "://" not in text


def test_the_bill_of_materials_is_the_locks():
    packages = supply.read_lock(supply.LOCK.read_text(encoding="utf-8"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert json.loads(supply.SBOM.read_text(encoding="utf-8")) == supply.sbom(packages, version)


def test_a_lock_reads_as_it_was_written():
    packages = [{"name": "a-b", "version": "1.0", "sha256": "0" * 64}, {"name": "c", "version": "2", "sha256": "f" * 64}]
    assert supply.read_lock(supply.lock(packages)) == packages and supply.normal("A_b.C") == "a-b-c"
