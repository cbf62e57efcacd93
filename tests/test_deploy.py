"""The container's entry script in a fresh prefix: a lead is made once, the studio answers, starting again changes nothing. No
container is built here: test machines have no container engine."""

import http.client
import json
import os
import shutil
import socket
import ssl
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
    assert set(services) == {"proxy", "studio", "serve", "database"}
    assert (ROOT / services["studio"]["build"]["dockerfile"]).exists()
    used = {name for service in services.values() for name in service.get("secrets", [])}
    assert used == set(compose["secrets"]) and not any("ports" in services[name] for name in ("studio", "serve", "database"))
    script = (ROOT / "deploy/entry.sh").read_text()
    given = {name for name in services["studio"]["environment"] if name.startswith("HARKEN_")}
    assert all(name in script for name in given)
    for line in (ROOT / "deploy/Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line


def test_the_compose_file_serves_a_model():
    """Its command is one that harken takes, its health check asks where it listens, its image can serve, the proxy finds it."""
    import argparse

    from harken.cli.serve import add_commands
    service = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["serve"]
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    given = parser.parse_args([*service["entrypoint"][1:], *service["command"]])
    assert given.host == "0.0.0.0" and given.db.startswith("postgresql://") and given.keys == "/run/secrets/keys"
    assert f":{given.port}/health" in service["healthcheck"]["test"][-1] and service["deploy"]["replicas"] > 1
    assert f"serve {given.port}" in (ROOT / "deploy/Caddyfile").read_text() and service["restart"] == "unless-stopped"
    assert {"keys", "pgpass"} == set(service["secrets"]) and "train" in service["build"]["args"]["EXTRAS"]
    assert (ROOT / "deploy/Dockerfile").read_text().count("$EXTRAS") == 2


def entry_environment(tmp_path, **settings):
    """A folder with `harken` on the path, the lead's password in a file, and the settings."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "harken"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m harken "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    secret = tmp_path / "secret"
    secret.write_text("a long enough secret\n")
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HARKEN_PASSWORD_FILE": str(secret),
            "PYTHONPATH": str(Path(harken.__file__).parents[1]), **settings}


def started(environment, tmp_path, address):
    """The entry script's process, once it has printed the address."""
    studio = subprocess.Popen(["sh", str(ROOT / "deploy/entry.sh")], env=environment, cwd=tmp_path, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    lines, until = [], time.monotonic() + 60
    while not any("Harken studio" in line for line in lines) and time.monotonic() < until and studio.poll() is None:
        lines.append(studio.stdout.readline())
    if not any(address in line for line in lines):
        studio.kill()
        raise AssertionError(f"{lines}\n{studio.stderr.read()}")
    return studio


def stopped(process):
    process.terminate()
    process.wait(30)


@pytest.mark.slow
def test_the_entry_script_twice(tmp_path):
    environment = entry_environment(tmp_path, HARKEN_DB=str(tmp_path / "f.db"), HARKEN_PORT="0", HARKEN_HOST="0.0.0.0",
                                    HARKEN_NAME="studio.example")
    for _ in range(2):
        stopped(started(environment, tmp_path, "https://studio.example"))
    listed = subprocess.run(["harken", "users", "list", "--db", str(tmp_path / "f.db")], env=environment, capture_output=True,
                            text=True, check=True).stdout
    assert len([line for line in listed.splitlines() if "lead" in line.split()]) == 1


NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin")
HOST = "studio.example.org"


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed")
def test_the_entry_script_behind_nginx_with_postgresql(tmp_path, postgres):
    """TLS by deploy/nginx.conf, rows in PostgreSQL: the lead logs in, the cookie is for TLS only, another origin is refused."""
    from studio_site import empty_postgres
    studio_port, tls_port = free_ports(2)
    with empty_postgres(postgres) as database:
        environment = entry_environment(tmp_path, HARKEN_DB=database, HARKEN_NAME=HOST, HARKEN_HOST="127.0.0.1",
                                        HARKEN_PORT=str(studio_port))
        studio = started(environment, tmp_path, f"https://{HOST}")
        nginx = subprocess.Popen([NGINX, "-c", nginx_config(tmp_path, studio_port, tls_port), "-p", tmp_path])
        try:
            status, headers, page = over_tls(tls_port, "GET", "/login")
            assert status == 200 and "<form" in page and "strict-transport-security" in headers
            login = {"name": "lead", "password": "a long enough secret"}
            status, headers, text = over_tls(tls_port, "POST", "/api/login", login)
            assert status == 200 and "lead" in text and "Secure" in headers["set-cookie"], text
            assert over_tls(tls_port, "POST", "/api/login", login, origin="https://elsewhere.example")[0] == 403
            assert over_tls(tls_port, "GET", "/login", host="elsewhere.example")[0] in (400, 403, 421)
        finally:
            stopped(nginx)
            stopped(studio)


def nginx_config(folder, studio_port, tls_port):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={HOST}",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    server = (ROOT / "deploy/nginx.conf").read_text()
    for old, new in (("listen 443 ssl", f"listen 127.0.0.1:{tls_port} ssl"), ("127.0.0.1:8765", f"127.0.0.1:{studio_port}"),
                     (f"/etc/letsencrypt/live/{HOST}/fullchain.pem", f"{folder}/cert.pem"),
                     (f"/etc/letsencrypt/live/{HOST}/privkey.pem", f"{folder}/key.pem")):
        assert old in server
        server = server.replace(old, new)
    places = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root; " if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(f"{user}pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off;\nevents {{}}\n"
                      f"http {{ access_log off; {places}\n{server} }}\n")
    return config


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def over_tls(port, verb, path, body=None, host=HOST, origin=f"https://{HOST}"):
    """Status, headers (lower case) and text of one request to the proxy, which may still be starting."""
    until = time.monotonic() + 30
    while True:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=ssl._create_unverified_context(), timeout=30)
        try:
            connection.request(verb, path, json.dumps(body) if body else None,
                               {"Host": host, "Origin": origin, "Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
        except ConnectionRefusedError:
            assert time.monotonic() < until, "nginx does not answer"
            time.sleep(0.1)
        finally:
            connection.close()


def test_case_29_the_image_has_what_the_docs_promise_and_its_health_check_meets_a_studio(tmp_path):
    """No container is built here; what the Dockerfile names is there, and its health check runs against a studio."""
    import re
    import tomllib

    from studio_site import make_user, open_template, served
    words = (ROOT / "deploy/Dockerfile").read_text()
    extras = set(re.search(r"ARG EXTRAS=(\S+)", words)[1].split(","))
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    assert extras <= offered and {"postgres", "parquet", "excel", "sso", "stores"} <= extras
    assert re.search(r"^USER harken$", words, re.M), "not as root"
    code = re.search(r'HEALTHCHECK .* CMD python -c "(.*)"', words)[1]
    listens = re.search(r"HARKEN_PORT:-(\d+)", (ROOT / "deploy/entry.sh").read_text())[1]
    assert f"127.0.0.1:{listens}/" in code and f"EXPOSE {listens}" in words
    with open_template(tmp_path) as db:
        make_user(db)
        with served(db, public_names=("studio.example.org",), hosts=("127.0.0.1", "studio.example.org")) as (url, _):
            exec(code.replace(f"http://127.0.0.1:{listens}", url))  # raises where the answer is no 200
