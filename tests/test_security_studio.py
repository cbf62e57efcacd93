"""What a security review of the studio found, each fault with its kind: what people reach, what is refused at the door."""

import itertools
import json
import logging
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

import security_site
from harken.cli.main import main
from harken.studio.api.declare import API
from harken.web.errors import ApiError
from harken.web.json_schema import DEPTH, bounded
from security_site import person, refused, request
from studio_site import PASSWORD, new_site, open_template

site = security_site.site


def test_somebody_taken_out_holds_nothing_and_reaches_nothing_there(site):
    task = site.ana.next(site.open)["tasks"][0]
    me, path = person(site, "ana"), f"/api/assignments/{task['assignment']}"
    before = site.lead.call("GET", f"/api/projects/{site.open}/progress")["held"]
    site.lead.call("PUT", f"/api/projects/{site.open}/members/{me}", {"member": False})
    assert before == 1 and site.lead.call("GET", f"/api/projects/{site.open}/progress")["held"] == 0
    said = {"client_id": str(uuid.uuid4())}
    answer = {"answer": {"preference": 1}, "form_version": task["form_version"], "instruction_hash": task["instruction_hash"]}
    for method, end, body in (("GET", "", None), ("POST", "/submit", said | answer),
                              ("POST", "/skip", said | {"reason": "other"}),
                              ("POST", "/unsafe", said | {"category": "other"}), ("POST", "/renew", {}),
                              ("PUT", "/draft", {"draft": {}, "version": 0})):
        refused(site.ana.call, method, path + end, body, code="not_found")
    for method, end, body in (("POST", "/undo", said), ("POST", "/leave", {}), ("GET", "/history", None),
                              ("POST", "/next", {"count": 1})):
        code = "not_found" if end != "/undo" else "nothing_to_undo"
        refused(site.ana.call, method, f"/api/projects/{site.open}{end}", body, code=code)
    site.lead.call("PUT", f"/api/projects/{site.open}/members/{me}", {"member": True})
    assert site.ana.next(site.open)["tasks"]


@pytest.mark.parametrize("change", [{"state": "disabled"}, {"role": "viewer"}])
def test_somebody_who_may_not_answer_any_more_gives_back_what_they_held(site, change):
    site.ana.next(site.open)
    site.lead.call("PATCH", f"/api/users/{person(site, 'ana')}", change)
    assert site.lead.call("GET", f"/api/projects/{site.open}/progress")["held"] == 0


def test_a_project_that_is_none_of_mine_has_no_history_and_nothing_to_leave(site):
    for project in (site.closed, 999):
        refused(site.bo.call, "GET", f"/api/projects/{project}/history", code="not_found")
        refused(site.bo.call, "POST", f"/api/projects/{project}/leave", {}, code="not_found")


def test_nothing_sent_to_a_labeler_tells_gold_from_tasks(site):
    project = site.lead.create_project("gold", "compare", gold_rate=0.5)["id"]
    rows = [{"prompt": f"t{i}", "completions": ["a", "b"]} for i in range(12)]
    gold = [{"prompt": f"g{i}", "completions": ["a", "b"], "role": "gold", "gold": {"ranks": [1, 2]}} for i in range(12)]
    site.lead.add_items(project, rows + gold)
    with site.db.link.reading() as tx:
        last_task = tx.execute(text("SELECT max(id) FROM items WHERE role = 'task'")).scalar()
    shown, opened, counted = [], set(), set()
    while len(shown) < 14:
        answer = site.bo.next(project)
        opened.add(answer["progress"]["open"])
        for task in answer["tasks"]:
            words = task["prompt"]["messages"][0]["content"]
            shown.append((words[0] == "g", task["item"]))
            counted.add(site.bo.submit(task, {"preference": 1})["counted"])
            assert site.bo.call("GET", f"/api/assignments/{task['assignment']}")["item"] == task["item"]
    assert {is_gold for is_gold, _ in shown} == {True, False}
    assert counted == {True} and len(opened) == 1  # the count did not move at a task and rest at gold
    ids = sorted(shown, key=lambda s: s[1])
    runs = sum(a[0] != b[0] for a, b in itertools.pairwise(ids))
    assert runs > 1 and all(number > last_task + 24 for _, number in shown)  # not in the order of adding
    lead = site.lead.next(project)["tasks"][0]
    assert site.lead.call("GET", f"/api/items/{lead['item']}")["id"] == lead["item"]  # leads see the numbers as they are


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_deep_and_infinite_values_are_refused_on_every_door(site, tmp_path):
    task = site.ana.next(site.open)["tasks"][0]["assignment"]
    deep, endless = json.dumps(nested(900)), "1e999"
    for value in (deep, endless, "-1e999", "NaN"):
        draft = f'{{"draft": {{"a": {value}}}, "version": 0}}'.encode()
        items = f'{{"items": [{{"prompt": "p", "completions": ["a", "b"], "meta": {{"a": {value}}}}}]}}'.encode()
        lines = f'{{"prompt": "p", "completions": ["a", "b"], "meta": {{"a": {value}}}, "warnings": []}}'.encode()
        for client, method, path, body, kind in (
                (site.ana, "PUT", f"/api/assignments/{task}/draft", draft, "json"),
                (site.lead, "POST", f"/api/projects/{site.open}/items", items, "json"),
                (site.lead, "POST", f"/api/projects/{site.open}/import", lines, "x-ndjson")):
            answer = request(site.url, method, path, body, client._headers | {"Content-Type": f"application/{kind}"})
            assert answer.status == 400, (value[:20], path, answer.data[:200])
    assert bounded(nested(DEPTH))
    site.ana.call("PUT", f"/api/assignments/{task}/draft", {"draft": {"a": nested(30)}, "version": 0})


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=20))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_passes_the_door_is_json(value):
    try:
        passed = bounded(value)
    except ApiError:
        return
    assert json.loads(json.dumps(passed, allow_nan=False)) == passed


@pytest.mark.parametrize("number", ["9" * 5000, "99999999999999999999999", "0", "-1", "x", "²", "%00", "1e3"])
@pytest.mark.parametrize("page", ["/label/{}", "/label/{}/answers", "/lead/projects/{}", "/lead/projects/{}/models",
                                  "/lead/projects/{}/items", "/lead/projects/{}/answers", "/lead/projects/{}/settings",
                                  "/lead/items/{}"])
def test_a_number_that_names_nothing_in_a_pages_address_is_a_page_that_does_not_exist(shared_lead, page, number):
    url, headers = shared_lead
    assert request(url, "GET", page.format(number).replace("²", "%C2%B2"), None, headers).status == 404
    query = {"/lead/projects/{}/items": "page", "/lead/projects/{}/answers": "page", "/label/{}/answers": "before"}.get(page)
    if query:
        address = f"{page.format(1)}?{query}={number.replace('²', '%C2%B2')}"
        assert request(url, "GET", address, None, headers).status == 404


@pytest.fixture(scope="module")
def shared_lead(tmp_path_factory):
    with new_site(tmp_path_factory.mktemp("pages")) as site:
        yield site.url, dict(site.lead._headers)


def test_one_request_writes_little_into_the_log(site, caplog, monkeypatch):
    def fall(depth=400):
        return fall(depth - 1) if depth else [][1] + "x" * 10**6
    monkeypatch.setitem(API.operations["list_users"].__dict__, "handler", lambda call: fall())
    with caplog.at_level(logging.ERROR):
        answer = request(site.url, "GET", "/api/users", None, site.lead._headers)
    words = caplog.text
    assert answer.status == 500 and "IndexError" in words and len(words) < 6000


def test_no_password_hash_stands_in_an_error(tmp_path, caplog):
    with open_template(tmp_path) as db:
        secret = "$argon2id$v=19$m=19456$secret"
        for statement in ("INSERT INTO users (name, name_key, password_hash, role) VALUES ('a', 'a', :h, 'lead')",
                          "INSERT INTO users (nothing) VALUES (:h)"):
            with pytest.raises(Exception) as error, db.link.writing() as tx:
                tx.execute(text(statement), {"h": secret})
            assert secret not in "".join(str(e) for e in chain(error.value))
    assert secret not in caplog.text


def chain(error):
    while error is not None:
        yield error
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


def test_adding_an_account_twice_is_a_sentence(tmp_path, capsys):
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    add = ["users", "add", "Öz", "--db", str(tmp_path / "t.db"), "--password-file", str(file)]
    assert main(add) == 0 and main(add) != 0
    words = capsys.readouterr()
    assert "taken" in words.err and "argon2" not in words.out + words.err and "Traceback" not in words.err
