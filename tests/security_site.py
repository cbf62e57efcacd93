"""What the tests of a security review share: a site of either database, people and tokens, plain requests."""

import http.client
import json
from types import SimpleNamespace

import pytest

from harken.studio.client import Client, StudioError
from studio_site import PASSWORD, empty_postgres, new_site

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(params=BOTH)
def site(request, tmp_path):
    """A site of either database."""
    if request.param == "sqlite":
        with new_site(tmp_path) as site:
            yield site
        return
    with empty_postgres(request.getfixturevalue("postgres")) as address, new_site(tmp_path, address) as site:
        yield site


def refused(call, *arguments, code, **more):
    with pytest.raises(StudioError) as error:
        call(*arguments, **more)
    assert error.value.code == code, str(error.value)
    return error.value


def person(site, name):
    return next(u for u in site.lead.call("GET", "/api/users")["items"] if u["name"] == name)["id"]


def bearer(url, secret):
    client = Client(url)
    client._headers["Authorization"] = f"Bearer {secret}"
    return client


def token_of(site, who, *scopes):
    made = getattr(site, who).call("POST", "/api/tokens", {"name": "t", "scopes": list(scopes)})
    return bearer(site.url, made["token"]), made["id"]


def join(site, invitation, name):
    client = Client(site.url)
    return client.call("POST", "/api/join", {"invitation": invitation, "name": name, "password": PASSWORD, "consent": True})


def request(url, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection(url.split("//")[1], timeout=20)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"} | dict(headers))
    answer = connection.getresponse()
    cookies = dict(c.split(";")[0].split("=", 1) for c in answer.headers.get_all("Set-Cookie") or [])
    return SimpleNamespace(status=answer.status, cookies=cookies, data=answer.read())
