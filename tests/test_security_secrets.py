"""What a security review of the studio found, each fault with its kind: secrets on the disk and on the terminal."""

import os
import stat
from contextlib import contextmanager

import pytest

import security_site
from harken.cli.main import main
from harken.core.errors import UserError
from harken.store import backup
from harken.store.connection import masked
from harken.store.database import open_database
from harken.store.snapshots import snapshot
from security_site import refused
from studio_site import PASSWORD

site = security_site.site


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value):
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def test_databases_side_files_backups_and_snapshots_are_their_owners_alone(tmp_path):
    with umask(0o022):
        path = tmp_path / "f.db"
        (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
        with open_database(path) as db:
            db.import_file(tmp_path / "pairs.jsonl")
            backup.backup(db.link, tmp_path / "copy.db")
            snapshot(db, "comparisons", tmp_path / "snap.jsonl")
            modes = {p.name: mode(p) for p in tmp_path.iterdir() if p.name != "pairs.jsonl"}
        backup.restore(tmp_path / "copy.db", tmp_path / "again.db")
        assert mode(tmp_path / "again.db") == 0o600
        (tmp_path / "plain.txt").write_text("x")
    assert {"f.db", "f.db-wal", "copy.db", "snap.jsonl", "snap.jsonl.meta.json"} <= modes.keys()
    assert set(modes.values()) == {0o600} and mode(tmp_path / "plain.txt") == 0o644


def test_a_password_file_that_others_can_read_is_told(tmp_path, capsys):
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o644)
    main(["users", "add", "ada", "--db", str(tmp_path / "t.db"), "--password-file", str(file)])
    assert "can be read by other accounts" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["postgresql://u:p4ssw0rd@localhost:1/d", "postgresql://u:p4ssw0rd@x@localhost:1/d",
                                     "postgresql://:p4ssw0rd@localhost:1/d", "postgresql://u:p4ssw0rd@localhost:x/d"])
@pytest.mark.parametrize("command", [["users", "list"], ["snapshot", "comparisons", "--out", "x.jsonl"],
                                     ["backup", "--out", "x.db"], ["studio", "--port", "0"], ["audit"],
                                     ["export", "comparisons", "--out", "x.jsonl"]])
def test_no_command_shows_the_password_of_an_address(address, command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("psycopg")
    assert main([*command, "--db", address]) != 0
    words = capsys.readouterr()
    assert "p4ssw0rd" not in words.out + words.err
    assert "p4ssw0rd" not in masked(address)


def test_addresses_of_databases_stay_what_they_look_like(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("file:zz.db?x=1", "FILE:zz.db", "sqlite:///zz.db?mode=rw", "sqlite:///file:zz.db"):
        with pytest.raises(UserError):
            open_database(address)
    assert list(tmp_path.iterdir()) == []


def test_a_snapshots_name_is_checked_to_its_end(site):
    body = {"what": "comparisons", "name": "x\n"}
    refused(site.lead.call, "POST", f"/api/projects/{site.open}/snapshots", body, code="bad_request")
    task = site.ana.next(site.open)["tasks"][0]
    refused(site.ana.call, "POST", f"/api/assignments/{task['assignment']}/skip", {"client_id": "12345678\n", "reason": "other"},
            code="bad_request")
