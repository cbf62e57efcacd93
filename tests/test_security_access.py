"""What a security review of the studio found, each fault with its kind: who gets in."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

import security_site
from conftest import PASSWORD_COST
from harken.cli.main import main
from harken.store.database import open_database
from harken.store.names import looks_like, mixed_scripts, name_key
from harken.store.studio_schema import events, webhooks
from harken.studio.api.declare import API
from harken.studio.app import Studio
from harken.studio.client import Client
from harken.studio.pages import sso
from harken.web import accounts, patience
from harken.web.errors import ApiError
from harken.web.limits import Limits
from harken.web.passwords import weakness
from security_site import join, person, refused, request, token_of
from studio_site import PASSWORD, in_session, logged_in, make_user, open_template, served

site = security_site.site


@pytest.mark.parametrize("end", ["demoted", "disabled", "withdrawn", "demoted and raised again"])
def test_invitations_end_with_their_makers_rights(site, end):
    other = make_user(site.db, "second", "lead")
    made = in_session(site.url, site.db, "second").call("POST", "/api/invitations", {"role": "lead", "uses": 1000, "days": 365})
    assert site.lead.call("GET", "/api/invitations")["items"][-1]["made_by"] == "second"
    if end == "withdrawn":
        site.lead.call("POST", f"/api/users/{other.id}/withdraw", {})
    else:
        change = {"state": "disabled"} if end == "disabled" else {"role": "labeler"}
        site.lead.call("PATCH", f"/api/users/{other.id}", change)
    if "raised" in end:
        site.lead.call("PATCH", f"/api/users/{other.id}", {"role": "lead"})
    refused(join, site, made["token"], "come back", code="not_found")
    assert site.lead.call("GET", "/api/invitations")["items"][-1]["revoked"]
    own = site.lead.call("POST", "/api/invitations", {"role": "viewer"})
    assert join(site, own["token"], "welcome guest")["user"]["role"] == "viewer"


@pytest.mark.parametrize("end", [{"role": "labeler"}, {"role": "viewer"}, {"state": "disabled"}])
def test_webhooks_and_crowd_links_end_with_their_makers_rights(site, end):
    """A dismissed lead is told nothing more, and a link whose secret they know lets nobody in."""
    other = make_user(site.db, "second", "lead")
    theirs = in_session(site.url, site.db, "second")
    for lead in (theirs, site.lead):
        lead.call("POST", "/api/webhooks", {"url": "https://example.org/x", "kinds": ["submit"]})
        lead.call("POST", f"/api/projects/{site.open}/crowds", {"code": "C1", "answers": 2})
    site.lead.call("PATCH", f"/api/users/{other.id}", {"role": "lead"})
    assert len(site.lead.call("GET", "/api/webhooks")["items"]) == 2, "a lead who stays one keeps both"
    site.lead.call("PATCH", f"/api/users/{other.id}", end)
    assert len(site.lead.call("GET", "/api/webhooks")["items"]) == 1
    assert len(site.lead.call("GET", f"/api/projects/{site.open}/crowds")["items"]) == 1
    with site.db.link.reading() as tx:
        made = tx.execute(select(webhooks.c.made_by, webhooks.c.secret)).fetchall()
    assert {row.made_by: bool(row.secret) for row in made} == {other.id: False, site.lead.me()["user"]["id"]: True}


def test_a_name_from_a_provider_never_shuts_its_owner_out(tmp_path):
    """Taken, looking like a taken one, of mixed scripts, of nothing that can be seen: each gets a name of its own."""
    with open_template(tmp_path) as db, db.link.writing() as tx:
        made = []
        for wanted in ("ana", "Ana", "а́na", "аna", "", "​", "paul", "pau1", "PAUL"):
            name = sso._free_name(tx, wanted)
            made.append(accounts.add_user(tx, name, None, "labeler", datetime.now(UTC)).name)
    assert len(set(map(name_key, made))) == len(made) and made[0] == "ana"


@pytest.mark.parametrize("spelling", ["Ünal", "ünal", "ÜNAL", "U\u0308nal", " Ünal "])
def test_a_name_is_one_in_every_spelling(site, spelling):
    """Login, join, password: one key, whatever the database knows of capitals."""
    invitation = site.lead.call("POST", "/api/invitations", {"uses": 5})["token"]
    join(site, invitation, "Ünal")
    assert logged_in(site.url, spelling).me()["user"]["name"] == "Ünal"
    refused(join, site, invitation, spelling, code="conflict")
    with site.db.link.writing() as tx:
        accounts.set_password(tx, spelling, accounts.hash_password("some other words"), datetime.now(UTC))
    client = Client(site.url)
    client.login("Ünal", "some other words")


@given(st.text(min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_a_key_is_its_own_key(name):
    assert name_key(name_key(name)) == name_key(name) == name_key(f" {name}  ")


def test_passwords_are_hashed_at_the_cost_that_owasp_names_and_unknown_names_take_as_long(monkeypatch):
    assert PASSWORD_COST == {"iterations": 2, "lanes": 1, "memory_cost": 19 * 1024}
    monkeypatch.setattr(accounts, "COST", PASSWORD_COST)
    stored = accounts.hash_password(PASSWORD)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$") and accounts.right_password(PASSWORD, stored)
    assert stored.rsplit("$", 2)[0] == accounts.nobody().rsplit("$", 2)[0]
    assert not accounts.right_password(PASSWORD, accounts.nobody())


def test_a_name_that_looks_like_another_is_refused(site):
    invitation = site.lead.call("POST", "/api/invitations", {"uses": 9})["token"]
    join(site, invitation, "ada")
    refused(join, site, invitation, "аda", code="bad_request")  # a Cyrillic а before Latin letters
    join(site, invitation, "ace")
    refused(join, site, invitation, "асе", code="conflict")  # all Cyrillic
    join(site, invitation, "Иван")
    join(site, invitation, "Müller")
    join(site, invitation, "李雷")
    assert mixed_scripts("аda") and not mixed_scripts("Jürgen O'Neill-Łuk") and looks_like("l0rna") == looks_like("lorna")


def test_a_lead_gives_a_labeler_another_password_and_no_lead(site):
    """The old password, sessions, tokens end; it is shown once; the audit says who did it; other leads stay out of reach."""
    ana = person(site, "ana")
    token, _ = token_of(site, "ana", "label")
    told = site.lead.call("POST", f"/api/users/{ana}/password", {})
    assert told["name"] == "ana" and weakness(told["password"], "ana") is None
    refused(token.me, code="login_needed")
    refused(site.clients["ana"].me, code="login_needed")
    refused(lambda: logged_in(site.url, "ana"), code="bad_login")
    again = Client(site.url)
    again.login("ana", told["password"])
    again.call("POST", "/api/me/password", {"old": told["password"], "new": PASSWORD})
    with site.db.link.reading() as tx:
        event = tx.execute(select(events).where(events.c.kind == "password").order_by(events.c.seq)).first()
        assert (event.user_id, event.body["by"]) == (ana, site.lead.me()["user"]["id"])
        assert told["password"] not in str(tx.execute(select(events)).fetchall())
    make_user(site.db, "third", "lead")
    refused(lambda: site.lead.call("POST", f"/api/users/{person(site, 'third')}/password", {}), code="conflict")
    refused(lambda: logged_in(site.url, "ana").call("POST", f"/api/users/{ana}/password", {}), code="forbidden")
    site.lead.call("PATCH", f"/api/users/{ana}", {"state": "disabled"})
    refused(lambda: site.lead.call("POST", f"/api/users/{ana}/password", {}), code="conflict")
    site.lead.call("PATCH", f"/api/users/{ana}", {"state": "active"})


def test_tokens_end_with_what_ends_sessions(site):
    ana, bo = person(site, "ana"), person(site, "bo")
    first, _ = token_of(site, "ana", "label")
    first.me()
    site.lead.call("PATCH", f"/api/users/{ana}", {"state": "disabled"})
    site.lead.call("PATCH", f"/api/users/{ana}", {"state": "active"})
    refused(first.me, code="login_needed")  # enabled again is not let in again
    second, _ = token_of(site, "bo", "label")
    with site.db.link.writing() as tx:
        accounts.set_password(tx, "bo", accounts.hash_password("some other words"), datetime.now(UTC))
    site.studio.forget()
    refused(second.me, code="login_needed")
    site.clients["bo"] = in_session(site.url, site.db, "bo")
    kept, _ = token_of(site, "bo", "label")
    bob = site.clients["bo"]
    bob.call("POST", "/api/me/password", {"old": "some other words", "new": PASSWORD})
    kept.me()
    logged_in(site.url, "bo").call("POST", "/api/me/password", {"old": PASSWORD, "new": "and other words", "revoke_tokens": True})
    refused(kept.me, code="login_needed")
    make_user(site.db, "second", "lead")
    site.clients["second"] = in_session(site.url, site.db, "second")
    strong, _ = token_of(site, "second", "lead")
    weak, _ = token_of(site, "second", "label")
    second_id = person(site, "second")
    site.lead.call("PATCH", f"/api/users/{second_id}", {"role": "labeler"})
    site.lead.call("PATCH", f"/api/users/{second_id}", {"role": "lead"})
    refused(strong.me, code="login_needed")
    assert weak.me()["user"]["name"] == "second" and bo


@pytest.mark.parametrize("name", sorted(n for n, op in API.operations.items() if op.who == "user" and op.method != "GET"))
def test_no_token_changes_the_account_it_speaks_for(site, name):
    op = API.operations[name]
    for scopes in (("read",), ("label",), ("lead",), ("lead", "read", "label")):
        client, number = token_of(site, "lead", *scopes)
        body = {"logout": {}, "change_password": {"old": PASSWORD, "new": "and other words"},
                "create_token": {"name": "x", "scopes": ["lead"]}}.get(name)
        refused(client.call, op.method, op.path.replace("{token}", str(number)), body, code="forbidden")
        client.me()


def test_a_session_that_is_not_used_ends(tmp_path):
    now = datetime(2026, 1, 5, tzinfo=UTC)
    with open_template(tmp_path) as db:
        make_user(db, "ana", "labeler")
        with db.link.writing() as tx:
            user, _ = accounts.stored_password(tx, "ana")
            secret, _ = accounts.start_session(tx, user, now, 10)
        for hours, there in ((9, True), (18, True), (29, False)):
            with db.link.writing() as tx:
                found = accounts.by_session(tx, secret, now + timedelta(hours=hours), 10)
                assert (found is not None) is there
                if found:
                    accounts.mark_seen(tx, secret, now + timedelta(hours=hours))


def test_use_keeps_a_session_alive_without_a_write_at_each_request(site):
    later = [datetime.now(UTC)]
    site.studio.clock = lambda: later[0]
    before = site.db.link.engine
    for _ in range(10):  # ten days of use, each within the idle time
        later[0] += timedelta(hours=24)
        site.studio.forget()
        site.ana.me()
        site.studio.writer.submit(lambda tx: None).result()
    assert before is site.db.link.engine
    later[0] += timedelta(hours=accounts.IDLE_HOURS + 1)
    site.studio.forget()
    refused(site.ana.me, code="login_needed")


@pytest.mark.parametrize("password", ["aaaaaaaaaa", "1234567890", "qwertyuiop", "password123", "P@ssw0rd2024!", "abcabcabcabc",
                                      "Welcome2024", "annotator1", "9876543210", "1q2w3e4r5t"])
def test_passwords_that_are_guessed_first_are_refused(password):
    with pytest.raises(ApiError) as error:
        accounts.hash_password(password)
    assert password not in str(error.value.to_json())


def test_honest_passwords_are_taken_and_the_own_name_is_not():
    for password in (PASSWORD, "gurke lampe tisch", "Xk3!vv9-Qz", "das pferd frisst", "über den wolken"):
        assert weakness(password, "ada") is None
    assert weakness("adalovelace1815", "Ada Lovelace") and weakness("ecalevolada", "adalovelace")


def test_guesses_from_many_addresses_are_slowed_and_a_known_browser_gets_in():
    now = [0.0]
    limits = Limits()
    for buckets in vars(limits).values():
        buckets.clock = lambda: now[0]
    for n in range(30):
        limits.login(f"10.0.0.{n}", "Ada")
    with pytest.raises(ApiError) as slow:
        limits.login("10.9.9.9", "ADA")  # another address, another spelling
    assert slow.value.code == "slow_down"
    limits.login("10.9.9.9", "eve")
    for _ in range(10):
        limits.login("10.9.9.9", "ada", "the secret of her browser")
    with pytest.raises(ApiError):
        limits.login("10.9.9.9", "ada", "the secret of her browser")
    now[0] += 60
    limits.login("10.9.9.9", "ada")


def test_a_browser_is_known_again_after_a_login(tmp_path):
    """Behind a proxy without X-Forwarded-For everybody has one address: guesses do not shut the owner out."""
    with open_template(tmp_path) as db:
        make_user(db, "ada", "lead")
        with served(db, limits=Limits(logins=0.001, login_burst=3)) as (url, _):
            first = request(url, "POST", "/api/login", {"name": "ada", "password": PASSWORD})
            device = first.cookies["harken_device"]
            for _ in range(5):
                last = request(url, "POST", "/api/login", {"name": "ada", "password": "wrong words here"})
            assert first.status == 200 and last.status == 429
            assert request(url, "POST", "/api/login", {"name": "ada", "password": PASSWORD}).status == 429
            right = {"name": "ada", "password": PASSWORD}
            again = request(url, "POST", "/api/login", right, {"Cookie": f"harken_device={device}"})
            assert again.status == 200 and again.cookies["harken_device"] == device
            foreign = request(url, "POST", "/api/login", right, {"Cookie": "harken_device=made-up"})
            assert foreign.status == 429
            rows = db.link.engine.connect().execute(text("SELECT hash FROM devices")).scalars().all()
            assert rows == [accounts.digest(device)]  # the secret itself is not stored


def test_an_account_is_known_by_a_bounded_number_of_browsers(tmp_path):
    now = datetime(2026, 1, 5, tzinfo=UTC)
    with open_template(tmp_path) as db:
        user = make_user(db, "ada", "lead")
        with db.link.writing() as tx:
            secrets = [accounts.remember_device(tx, user, None, now + timedelta(hours=n)) for n in range(30)]
            assert [accounts.known_device(tx, "Ada", s) for s in secrets] == [n >= 10 for n in range(30)]
            assert accounts.remember_device(tx, user, secrets[-1], now) == secrets[-1]
            assert not accounts.known_device(tx, "eve", secrets[-1])



def config_of(monkeypatch, tmp_path, *options):
    """The studio that `harken studio` would serve."""
    made = {}

    class Server:
        def __init__(self, config):
            made["config"] = config

        def run(self, sockets):
            for sock in sockets:
                sock.close()

    import uvicorn
    monkeypatch.setattr(uvicorn, "Server", Server)
    original = Studio.__init__

    def keep(self, db, **more):
        made["options"] = more
        original(self, db, **more)

    monkeypatch.setattr(Studio, "__init__", keep)
    with open_database(tmp_path / "h.db") as db, db.link.reading() as tx:
        there = accounts.has_lead(tx)
    if not there:
        with open_database(tmp_path / "h.db") as db:
            make_user(db)
    main(["studio", "--db", str(tmp_path / "h.db"), "--port", "0", *options])
    return made


def test_named_hosts_are_checked_on_every_address(monkeypatch, tmp_path, capsys):
    made = config_of(monkeypatch, tmp_path, "--host", "127.0.0.2", "--public-name", "judge.example")
    assert "judge.example" in made["options"]["hosts"] and "evil.example" not in made["options"]["hosts"]
    assert made["config"].limit_concurrency == patience.MOST_CONNECTIONS and made["config"].http is patience.Patient
    assert capsys.readouterr().err == ""
    (tmp_path / "h.db").chmod(0o644)
    config_of(monkeypatch, tmp_path, "--host", "127.0.0.2")
    words = capsys.readouterr().err
    assert "any host name are answered" in words and "can be read by other accounts" in words
