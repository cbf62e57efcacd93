"""What Harken is installed with, pinned by hash and listed: the lock that a container installs from, and a bill of materials.

    python tools/supply.py lock      # requirements.lock: pip install --require-hashes -r requirements.lock
    python tools/supply.py sbom      # sbom.json, CycloneDX 1.6, of the same packages
    python tools/supply.py check     # whether what pyproject.toml asks for is explained, pinned and locked

pip resolves the lock for the Python and the platform it runs on, within constraints.txt: make it where it will be used.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXTRAS = "postgres"  # what a server needs beside the base
LOCK, SBOM = ROOT / "requirements.lock", ROOT / "sbom.json"


def resolved() -> list[dict[str, Any]]:
    """What pip would install for a server, as its own report says it: name, version, SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--report", report,
                        "-c", ROOT / "constraints.txt", f"{ROOT}[{EXTRAS}]"], check=True)
        packages = json.loads(report.read_text(encoding="utf-8"))["install"]
    return sorted(({"name": normal(p["metadata"]["name"]), "version": p["metadata"]["version"],
                    "sha256": p["download_info"]["archive_info"]["hashes"]["sha256"],
                    "license": p["metadata"].get("license_expression") or p["metadata"].get("license") or ""}
                   for p in packages if "archive_info" in p["download_info"]), key=lambda p: str(p["name"]))


def normal(name: str) -> str:
    """A package's name as registries compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock(packages: Iterable[dict[str, Any]]) -> str:
    """A requirements file that pip takes with `--require-hashes`."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    head = (f"# Made by tools/supply.py for CPython {python} on {sys.platform}.\n"
            "# pip install --require-hashes -r requirements.lock\n")
    return head + "".join(f"{p['name']}=={p['version']} \\\n    --hash=sha256:{p['sha256']}\n" for p in packages)


def read_lock(text: str) -> list[dict[str, Any]]:
    """The packages of a lock."""
    found = re.findall(r"^([a-z0-9-]+)==(\S+) \\\n\s+--hash=sha256:([0-9a-f]{64})$", text, re.M)
    return [{"name": n, "version": v, "sha256": h} for n, v, h in found]


def sbom(packages: Iterable[dict[str, Any]], version: str) -> dict[str, Any]:
    """CycloneDX 1.6: Harken, and every package with its version and hash."""
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
            "metadata": {"component": {"type": "application", "name": "harken", "version": version}},
            "components": [{"type": "library", "name": p["name"], "version": p["version"],
                            "purl": f"pkg:pypi/{p['name']}@{p['version']}", "bom-ref": f"pkg:pypi/{p['name']}@{p['version']}",
                            "hashes": [{"alg": "SHA-256", "content": p["sha256"]}]} for p in packages]}


ELSEWHERE = ("docs", "wandb", "trackio", "mlflow")
"""Extras that are installed by those who use them alone."""


def undeclared() -> list[str]:
    """What is wrong with how dependencies are written down, in words."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = sorted({normal(re.split(r"[\[<>=!~; ]", r)[0]) for r in asked})
    table = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {normal(n.strip()) for row in re.findall(r"^\| ([^|]+) \|", table, re.M) for n in row.split(",")}
    pinned = {normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    # What CI does not install: their versions are tried by nobody here.
    extras = project["optional-dependencies"]
    elsewhere = {normal(re.split(r"[\[<>=!~; ]", r)[0]) for extra in ELSEWHERE for r in extras.get(extra, ())}
    served = {normal(re.split(r"[\[<>=!~; ]", r)[0]) for r in (*project["dependencies"], *extras[EXTRAS])}
    locked = {p["name"] for p in read_lock(LOCK.read_text(encoding="utf-8"))}
    return [*(f"{n} stands in no line of docs/dependencies.md" for n in names if n not in explained),
            *(f"{n} is not pinned in constraints.txt" for n in names if n not in pinned | elsewhere),
            *(f"{n} is not in requirements.lock: make lock" for n in sorted(served - locked))]


def main(command: str) -> int:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if command == "lock":
        LOCK.write_text(lock(resolved()), encoding="utf-8")
    elif command == "sbom":
        packages = read_lock(LOCK.read_text(encoding="utf-8"))
        SBOM.write_text(json.dumps(sbom(packages, version), indent=1) + "\n", encoding="utf-8")
    elif command == "check":
        print("\n".join(wrong := undeclared()))
        return 1 if wrong else 0
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
