"""Feedback on served answers: by whom it may be given, once, in time, as judgments, and taken back."""

from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from harken.serve import feedback
from harken.serve.errors import Refused
from harken.serve.tokens import Claim, read, sign
from harken.store import audit
from harken.store.serve_schema import served
from serve_site import Served

KEYS = {"ada": "a" * 20, "bob": "b" * 20}


class Clock:
    def __init__(self):
        self.now = datetime(2026, 11, 30, 12, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def site(tmp_path, clock):
    found = Served(folder=tmp_path, keys=KEYS, clock=clock, keep_hours=2)
    yield found
    found.stop()


def key(name):
    return {"Authorization": f"Bearer {KEYS[name]}"}


def answer(site, text="Hi", who="ada", n=1, **fields):
    """A served answer: its text, and what judges it ({id, choice, token}); with n > 1 lists."""
    got = site.chat(text, headers=key(who), n=n, max_tokens=9, **fields)[1]
    rights = [{"id": got["id"], "choice": i, "token": t} for i, t in enumerate(got["harken"]["feedback"])]
    texts = [c["message"]["content"] for c in got["choices"]]
    return (texts[0], rights[0]) if n == 1 else (texts, rights)


def give(site, right, kind, value, **more):
    status, body, _ = site.call("POST", "/v1/feedback", {**right, "kind": kind, "value": value, **more})
    return status, body


def kept(site):
    return list(site.server.db.judgments())


def test_each_kind_becomes_a_judgment(site):
    texts, rights = answer(site, "Name a colour.", n=2, seed=1, user="eve")
    text, right = texts[0], rights[0]
    assert give(site, right, "thumb", True, seconds=2.5, finished_reading=True, comment="Short.")[0] == 200
    assert give(site, right, "edit", "Blue.")[0] == 200
    assert give(site, right, "demonstration", "Red.")[0] == 200
    assert give(site, right, "use", "copy", consent=True)[0] == 200
    assert give(site, right, "preference", "other", over=rights[1], order=[1, 0])[0] == 200
    thumb, edit, shown, use, pair = kept(site)
    assert {j.labeler for j in kept(site)} == {"ada/eve"} and thumb.prompt.text == "Name a colour."
    assert (thumb.kind, thumb.payload["label"], thumb.payload["completion"], thumb.seconds) == ("thumb", True, text, 2.5)
    source = thumb.payload["served"]
    assert source["model"] == "toy" and source["decoding"]["seed"] == 1 and source["comment"] == "Short."
    assert source["weights"] == site.server.arms.backends[0].identity and source["finished_reading"] is True
    assert source["first_token_seconds"] <= source["seconds"]
    assert edit.demonstration().completion == "Blue." and edit.choice().options == ("Blue.", text)
    assert edit.choice().ranks == (1, 2)
    assert shown.demonstration().completion == "Red." and shown.choice() is None
    assert use.payload["signal"] == "copy" and use.choice() is None and use.demonstration() is None
    assert pair.choice().options == tuple(texts) and pair.choice().ranks == (2, 1) and pair.order == (1, 0)
    assert [c.ranks for c in site.server.db.comparisons()] == [(1, 2), (2, 1)]
    with site.server.db.link.reading() as tx:
        assert not audit.check(tx).problems


def test_a_toggle_is_a_new_record_and_the_history_stays(site):
    _, right = answer(site)
    first = give(site, right, "thumb", True)[1]
    assert give(site, right, "thumb", True) == (409, give(site, right, "thumb", True)[1])  # twice is refused
    second = give(site, right, "thumb", False)[1]
    assert second["replaces"] == first["id"] and [j.payload["label"] for j in kept(site)] == [False]
    third = give(site, right, "rating", 4)[1]  # a rating is a verdict, too
    assert third["replaces"] == second["id"] and [j.kind for j in kept(site)] == ["rating"]
    back = {"id": third["id"], "kind": "rating", "value": None, "stored": False, "replaces": third["id"]}
    assert give(site, right, "thumb", None) == give(site, right, "thumb", None) == (200, back)  # its answer may have been lost
    assert kept(site) == [] and give(site, right, "edit", None)[0] == 409
    assert site.call("DELETE", f"/v1/feedback/{first['id']}", X_Harken_Feedback=right["token"])[0] == 409  # replaced
    rows = site.call("GET", "/v1/feedback", **key("ada"))[1]["data"]
    assert [(r["kind"], r["counts"]) for r in rows] == [("rating", False), ("thumb", False), ("thumb", False)]


def test_a_comparison_is_one_whichever_answer_it_comes_from(site):
    _, (a, b) = answer(site, n=2)
    give(site, a, "preference", "this", over=b)
    again = give(site, b, "preference", "this", over=a)
    assert again[0] == 200 and again[1]["replaces"] and len(kept(site)) == 1
    assert give(site, a, "preference", "this", over=a)[0] == 403
    _, other = answer(site, "Another question")
    status, body = give(site, a, "preference", "this", over=other)
    assert status == 400 and body["error"]["param"] == "over"
    _, bobs = answer(site, who="bob")
    assert give(site, a, "preference", "tie", over=bobs)[1]["error"]["code"] == "wrong_answer"
    assert give(site, a, "preference", "tie", over={**b, "token": a["token"]})[1]["error"]["code"] == "wrong_answer"


def test_a_token_is_for_one_answer_rater_kind_and_time(site, clock):
    _, right = answer(site)
    _, other = answer(site)
    wrong = {"another's answer": ({**other, "token": right["token"]}, "wrong_answer"),
             "another choice": ({**right, "choice": 1}, "wrong_answer"),
             "changed": ({**right, "token": right["token"][:-2] + "xx"}, "bad_token"),
             "none": ({**right, "token": ""}, "bad_token"), "a list": ({**right, "token": ["x"]}, "bad_token")}
    for what, (sent, code) in wrong.items():
        status, body = give(site, sent, "thumb", True)
        assert (status, body["error"]["code"]) == (403, code), what
    claim = read(site.server.key, right["token"])
    narrow = sign(site.server.key, Claim(claim.answer, 0, claim.rater, ("edit",), claim.expires))
    assert give(site, {**right, "token": narrow}, "thumb", True)[1]["error"]["code"] == "kind_not_allowed"
    sent = site.call("POST", "/v1/feedback", {**right, "kind": "thumb", "value": True}, **key("bob"))
    assert sent[1]["error"]["code"] == "wrong_rater"  # a key that is another's
    clock.now += timedelta(hours=2, seconds=1)
    assert give(site, right, "thumb", True)[1]["error"]["code"] == "expired"
    assert kept(site) == []


def test_a_message_that_comes_twice_is_stored_once(site):
    _, right = answer(site)
    first = give(site, right, "thumb", True, client_id="c1")
    second = give(site, right, "thumb", True, client_id="c1")
    assert first[0] == second[0] == 200 and second[1]["already"] and second[1]["id"] == first[1]["id"] and len(kept(site)) == 1
    _, other = answer(site)
    assert give(site, other, "thumb", True, client_id="c1")[1]["error"]["code"] == "client_id_reused"
    assert give(site, right, "thumb", False, client_id="c1")[1]["error"]["code"] == "client_id_reused"  # nor stored
    assert [j.payload["label"] for j in kept(site)] == [True]
    assert give(site, right, "thumb", None, client_id="c1")[1]["stored"] is False and kept(site) == []


def test_an_address_is_kept_as_a_code_that_nobody_is_shown(site):
    _, right = answer(site)
    give(site, right, "thumb", True)
    key_ = site.server.key
    code = lambda address: feedback.address_code(key_, address)  # noqa: E731
    assert kept(site)[0].payload["address"] == code("127.0.0.1") != feedback.address_code(b"other", "127.0.0.1")
    rows = site.call("GET", "/v1/feedback", **key("ada"))[1]["data"]
    assert rows and not any("address" in row["said"] for row in rows)
    with pytest.raises(Refused, match="already"), site.server.db.link.writing() as tx:  # from elsewhere it is the same verdict
        feedback.give(tx, key_, {**right, "kind": "thumb", "value": True}, site.server.clock(), address="192.0.2.1")
    assert code("::ffff:127.0.0.1") == code("127.0.0.1") and code("2001:db8::1") == code("2001:db8::2") != code("2001:db8:0:1::1")
    assert code("192.0.2.1") != code("192.0.2.2") and code("testclient") == code("") == ""


def test_what_was_said_is_seen_and_taken_back_by_its_own_rater_alone_at_any_time(site, clock):
    _, right = answer(site, user="eve")
    number = give(site, right, "thumb", True)[1]["id"]
    _, bobs = answer(site, who="bob")
    path = f"/v1/feedback/{number}"
    assert site.call("GET", "/v1/feedback", **key("bob"))[1]["data"] == []
    assert site.call("GET", "/v1/feedback", **key("ada"))[1]["data"][0]["rater"] == "ada/eve"
    assert site.call("DELETE", path, **key("bob"))[0] == site.call("DELETE", path, X_Harken_Feedback=bobs["token"])[0] == 404
    assert site.call("DELETE", path)[0] == site.call("GET", "/v1/feedback")[0] == 401
    clock.now += timedelta(days=400)
    for _ in range(2):  # its answer may have been lost
        assert site.call("DELETE", path, X_Harken_Feedback=right["token"])[0] == 200
    assert kept(site) == [] and site.call("GET", "/v1/feedback", **key("ada"))[1]["data"][0]["counts"] is False


def test_answers_that_nobody_judged_are_deleted_in_time(site, clock):
    answer(site, "a secret")
    _, judged = answer(site, "judged")
    give(site, judged, "thumb", True)
    clock.now += timedelta(hours=3)
    with site.server.db.link.writing() as tx:
        assert feedback.forget(tx, clock.now) == 1
        assert [r.prompt["prompt"] for r in tx.execute(select(served))] == ["judged"]


def test_tensorzeros_shape(site):
    _, right = answer(site)
    tags = {"token": right["token"], "choice": "0"}
    sent = {"inference_id": right["id"], "tags": tags}
    assert site.call("POST", "/feedback", {**sent, "metric_name": "task_success", "value": True})[1]["kind"] == "thumb"
    assert site.call("POST", "/feedback", {**sent, "metric_name": "score", "value": 3.5})[1]["kind"] == "rating"
    assert site.call("POST", "/feedback", {**sent, "metric_name": "demonstration", "value": "Better."})[0] == 200
    assert site.call("POST", "/feedback", {**sent, "metric_name": "comment", "value": "x"})[1]["error"]["param"] == "metric_name"
    assert site.call("POST", "/feedback", {**sent, "metric_name": "a", "value": True, "episode_id": "x"})[0] == 400
    assert [j.kind for j in kept(site)] == ["rating", "demonstration"]


@pytest.mark.parametrize(("kind", "value", "more", "param"), [
    ("thumb", "yes", {}, "value"), ("rating", True, {}, "value"), ("rating", -1, {}, "value"), ("edit", " ", {}, "value"),
    ("edit", 3, {}, "value"), ("use", "laugh", {"consent": True}, "value"), ("use", "copy", {}, "consent"),
    ("preference", "this", {}, "over"), ("preference", "best", {"over": {"id": "x", "token": "y"}}, "value"),
    ("star", 1, {}, "kind"), ("thumb", True, {"seconds": -1}, "seconds"), ("thumb", True, {"comment": ""}, "comment"),
    ("thumb", True, {"extra": 1}, "extra"), ("thumb", True, {"choice": "0"}, "choice"), ("thumb", True, {"id": 5}, "id"),
    ("edit", "\ud83d", {}, "value"), ("edit", "a\0b", {}, "value"), ("rating", 10**400, {}, "value"),
    ("thumb", True, {"seconds": 10**400}, "seconds"), ("thumb", True, {"finished_reading": 0}, "finished_reading"),
    ("use", "copy", {"consent": 1}, "consent"), ("thumb", True, {"\ud83d": 1}, "\\ud83d"), ("\ud83d", True, {}, "kind"),
    ("use", ["copy"], {"consent": True}, "value"), ("preference", {"a": 1}, {"over": {"id": "x"}}, "value")])
def test_a_wrong_field_is_named(site, kind, value, more, param):
    _, right = answer(site)
    status, body = give(site, {**right, **more}, kind, value)
    assert status in (400, 403) and body["error"]["param"] == param and kept(site) == []


def test_the_text_as_it_is_is_no_edit(site):
    text, right = answer(site, seed=3)
    assert give(site, right, "edit", text)[1]["error"]["param"] == "value"


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_no_other_token_is_read(text):
    with pytest.raises(Refused):
        read(b"secret", text)
    token = sign(b"secret", Claim(text, 1, text, ("thumb",), 5))
    assert read(b"secret", token) == Claim(text, 1, text, ("thumb",), 5)
    with pytest.raises(Refused):
        read(b"other", token)


def test_processes_share_the_secret_and_the_answers(tmp_path):
    one, two = Served(folder=tmp_path), Served(folder=tmp_path)
    try:
        got = one.chat("Hi", max_tokens=3)[1]
        right = {"id": got["id"], "choice": 0, "token": got["harken"]["feedback"][0]}
        assert give(two, right, "thumb", True)[0] == 200
        assert [j.labeler for j in kept(one)] == ["me"]
    finally:
        one.stop()
        two.stop()


def test_streamed_answers_have_tokens_too(tmp_path):
    site = Served(folder=tmp_path)
    try:
        chunks = site.stream("Hi", max_tokens=3, n=2)
        tokens = next(c["harken"]["feedback"] for c in chunks if "harken" in c)
        assert len(tokens) == 2 and chunks[-1]["harken"]
        assert give(site, {"id": chunks[0]["id"], "choice": 1, "token": tokens[1]}, "thumb", False)[0] == 200
    finally:
        site.stop()
