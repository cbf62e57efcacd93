"""Every route of the description, asked by everybody: nobody reaches another's, and several servers share one database."""

import threading

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

from harken.serve.describe import description
from serve_site import Served
from studio_site import empty_postgres

KEYS = {"ada": "a" * 20, "bob": "b" * 20}
ROLES = {"nobody": {}, "stranger": {"Authorization": "Bearer wrong"}, "bob": {"Authorization": f"Bearer {KEYS['bob']}"},
         "ada": {"Authorization": f"Bearer {KEYS['ada']}"}}
ROUTES = [(method.upper(), path, operation) for path, methods in description("toy")["paths"].items()
          for method, operation in methods.items()]
BODIES = {"chat": {"model": "toy", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
          "completions": {"model": "toy", "prompt": "Hi", "max_tokens": 2}}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    found = Served(folder=tmp_path_factory.mktemp("roles"), keys=KEYS)
    yield found
    found.stop()


def adas(site):
    """A thumb of ada's: what gives and withdraws it."""
    got = site.chat("Hi", headers=ROLES["ada"], max_tokens=2)[1]
    right = {"id": got["id"], "choice": 0, "token": got["harken"]["feedback"][0], "kind": "thumb", "value": True}
    return right, site.call("POST", "/v1/feedback", right)[1]["id"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path", "operation"), ROUTES, ids=lambda v: v if isinstance(v, str) else "")
def test_every_route_for_every_role(site, method, path, operation, role):
    right, number = adas(site)
    body = {**BODIES, "give_feedback": {**right, "value": False}}.get(operation["operationId"])
    address = path.replace("{id}", str(number)).replace("{model}", "toy")
    status, answer, _ = site.call(method, address, body, **ROLES[role])
    name = operation["operationId"]
    if operation.get("security") == []:  # open: a token of the answer is the right, and a key that is sent must fit it
        expected = {"health": 200, "give_feedback": {"stranger": 401, "bob": 403}.get(role, 200)}[name]
    elif role in ("nobody", "stranger"):
        expected = 401
    elif name == "withdraw_feedback":
        expected = 200 if role == "ada" else 404
    else:
        expected = 200
    assert status == expected, answer
    assert str(expected) in operation["responses"]
    if status >= 400:
        assert set(answer["error"]) == {"message", "type", "param", "code"}
    if name == "list_feedback" and status == 200:
        assert (number in [row["id"] for row in answer["data"]]) == (role == "ada")
        assert all(row["rater"].split("/")[0] == role for row in answer["data"])
    kept = {r["id"]: r["counts"] for r in site.call("GET", "/v1/feedback?limit=500", **ROLES["ada"])[1]["data"]}
    touched = (role == "ada" and name in ("withdraw_feedback", "give_feedback")) or (role == "nobody" and name == "give_feedback")
    assert kept[number] != touched, "what ada said changes by her alone"


def test_every_route_that_exists_is_described_or_a_page(site):
    from harken.serve.app import create_app
    paths = {getattr(r, "path", "").replace("{number:int}", "{id}").replace("{model:path}", "{model}") for r in
             create_app(site.server).routes}
    assert paths - {path for _, path, _ in ROUTES} == {"/", "/chat", "/static", "/feedback", "/metrics", "/openapi.json"}


def judged_by_many(one, two, people=6, each=8):
    """Threads that chat with one server and judge at the other, each feedback sent twice, to either. Returns what was
    acknowledged."""
    given, failed = [], []

    def person(n):
        try:
            for turn in range(each):
                asked, told = (one, two) if turn % 2 else (two, one)
                got = asked.chat(f"{n} {turn}", max_tokens=2, user=f"u{n}")[1]
                said = {"id": got["id"], "choice": 0, "token": got["harken"]["feedback"][0], "kind": "thumb",
                        "value": bool(turn % 3), "client_id": f"{n}.{turn}"}
                answers = [site.call("POST", "/v1/feedback", said) for site in (told, asked)]
                assert [a[0] for a in answers] == [200, 200] and answers[0][1]["id"] == answers[1][1]["id"], answers
                given.append((f"me/u{n}", bool(turn % 3)))
        except Exception as error:
            failed.append(error)
    threads = [threading.Thread(target=person, args=(n,)) for n in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed, failed
    return sorted(given)


def stored(db):
    return sorted((j.labeler, j.payload["label"]) for j in db.judgments())


@pytest.mark.slow
def test_two_servers_share_a_database_and_nothing_is_lost_or_doubled(tmp_path):
    one, two = Served(folder=tmp_path), Served(folder=tmp_path)
    try:
        given = judged_by_many(one, two)
        assert len(given) == 48 and stored(one.server.db) == given
    finally:
        one.stop()
        two.stop()


@pytest.mark.slow
def test_two_servers_share_a_postgresql_database(postgres):
    with empty_postgres(postgres) as address:
        one, two = Served(address=address), Served(address=address)
        try:
            given = judged_by_many(one, two, people=3, each=4)
            assert len(given) == 12 and stored(one.server.db) == given
        finally:
            one.stop()
            two.stop()


@pytest.mark.slow
def test_lm_eval_over_http_scores_as_in_process(tmp_path):
    """lm-eval's `local-completions` against the server, and its own in-process model, on the same requests."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from harken.engines.toy import toy_model
    from serve_site import toy_sampler, weights
    sampler = toy_sampler()
    tokenizer = sampler.engine.template.tokenizer
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    pairs = [("The answer is", " yes"), ("The answer is", " no, it is not"), ("A cat", " sat"), ("One two three", " four five")]
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    site = Served([weights(sampler=sampler)])
    try:
        remote = LocalCompletionsAPI(base_url=f"{site.url}/v1/completions", model="toy", tokenizer=str(tmp_path / "tokenizer"),
                                     tokenizer_backend="huggingface", num_concurrent=1, max_length=256)
        over_http = remote.loglikelihood(requests, disable_tqdm=True)
    finally:
        site.uvicorn.force_exit = True  # lm-eval leaves its connection open
        site.stop()
    local = HFLM(pretrained=toy_model(seed=0).eval(), tokenizer=tokenizer, backend="causal", max_length=256)
    inside = local.loglikelihood(requests, disable_tqdm=True)
    for (a, greedy_a), (b, greedy_b) in zip(over_http, inside, strict=True):
        assert a == pytest.approx(b, abs=1e-4) and bool(greedy_a) == bool(greedy_b)
