"""The server: OpenAI's shapes as OpenAI's own client and others' tests see them, and the offline sampler's answers."""

import json
import math
import secrets
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

from harken.core.protocols import Tree
from harken.core.records import Message, Prompt
from harken.serve.errors import Refused
from harken.serve.shapes import NEUTRAL, read_chat, read_completion
from serve_site import Served, toy_sampler, weights

TEXTS = ("Hi", "Name three birds.", "Why is the sky blue?", "x")


@pytest.fixture(scope="module")
def site():
    found = Served()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def client(site):
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True)


@pytest.fixture(scope="module")
def sampler():
    return toy_sampler()


# --- the same answers ------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [
    *(pytest.param(settings, marks=pytest.mark.slow) for settings in ({"temperature": 0}, {"temperature": 1, "seed": 7})),
    {"temperature": 0.8, "top_p": 0.9, "seed": 3, "n": 3}])
def test_answers_are_the_offline_samplers_also_beside_others(site, sampler, settings):
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda text: site.chat(text, max_tokens=20, **settings)[1], TEXTS * 3))
    n = settings.get("n", 1)
    options = {k: v for k, v in settings.items() if k != "n"}
    for text, answer in zip(TEXTS * 3, got):
        expected = sampler.sample([Prompt.of(text)], n, max_tokens=20, **options)[0]
        assert [c["message"]["content"] for c in answer["choices"]] == [s.text for s in expected]
        assert [c["finish_reason"] for c in answer["choices"]] == ["stop" if s.finished else "length" for s in expected]
        assert answer["usage"]["completion_tokens"] == sum(len(s.ids) for s in expected)
        assert answer["usage"]["prompt_tokens"] == len(sampler.engine.template.prompt_ids(Prompt.of(text)))


def test_a_stream_says_what_the_whole_answer_says(site):
    options = {"seed": 5, "n": 3, "max_tokens": 20, "logprobs": True, "top_logprobs": 2}
    whole = site.chat("Hello there", **options)[1]
    chunks = site.stream("Hello there", stream_options={"include_usage": True}, **options)
    for choice in whole["choices"]:
        own = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == choice["index"]]
        assert "".join(c["delta"].get("content", "") for c in own) == choice["message"]["content"]
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == [choice["finish_reason"]]
        logged = [t for c in own if c["logprobs"] for t in c["logprobs"]["content"]]
        assert [t["token"] for t in logged] == [t["token"] for t in choice["logprobs"]["content"]]
        assert [t["logprob"] for t in logged] == pytest.approx([t["logprob"] for t in choice["logprobs"]["content"]], abs=1e-4)
    assert chunks[-1]["usage"] == whole["usage"] and chunks[-1]["choices"] == []


def test_a_stop_text_ends_the_answer_before_it(site, sampler):
    text = sampler.sample([Prompt.of("Tell me")], 1, max_tokens=40, seed=2)[0][0].text
    stop = text[10:13]
    answer = site.chat("Tell me", max_tokens=40, seed=2, stop=[stop, "never said"])[1]["choices"][0]
    assert answer == {"index": 0, "logprobs": None, "finish_reason": "stop",
                      "message": {"role": "assistant", "content": text[:text.index(stop)], "refusal": None, "annotations": []}}
    streamed = site.stream("Tell me", max_tokens=40, seed=2, stop=stop)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in streamed) == text[:text.index(stop)]


def test_echoed_log_probs_are_the_models(site, sampler):
    """What lm-eval's local-completions asks: a text's own log-probs, by token ids and by text."""
    engine = sampler.engine
    ids = engine.template.text_ids("The quick brown fox jumps.")
    for prompt in ("The quick brown fox jumps.", list(ids)):
        answer = site.call("POST", "/v1/completions", {"model": "toy", "prompt": prompt, "max_tokens": 1, "echo": True,
                                                       "logprobs": 1, "temperature": 0})[1]["choices"][0]
        logged = answer["logprobs"]
        assert logged["token_logprobs"][0] is None and len(logged["tokens"]) == len(ids) + 1
        expected = engine.forward([Tree(ids[:1], (ids[1:],))]).logps_N.tolist()
        assert logged["token_logprobs"][1:-1] == pytest.approx(expected, abs=1e-4)
        assert all(len(t) == 1 for t in logged["top_logprobs"][1:])
        assert "".join(logged["tokens"]) == answer["text"] and logged["text_offset"][2] == 2


def test_content_never_becomes_control(site, sampler):
    """A user's text with every special token in it, in every role: as many turns begin as there are messages."""
    control = sampler.engine.template.tokens.control
    said = "".join(control.values())
    messages = [Message("system", said), Message("user", said), Message("assistant", said), Message("user", f"{said}\n{said}")]
    answer = site.call("POST", "/v1/chat/completions", {"model": "toy", "max_tokens": 1, "logprobs": True, "temperature": 0,
                                                        "messages": [m.to_json() for m in messages]})[1]
    plain = [Message(m.role, "ok") for m in messages]
    starts = {i for i, name in control.items() if name == "<|im_start|>"}
    ids = sampler.engine.template.prompt_ids(Prompt(tuple(messages)))
    right = sampler.engine.template.prompt_ids(Prompt(tuple(plain)))
    assert sum(i in starts for i in ids) == sum(i in starts for i in right) == 5
    assert answer["usage"]["prompt_tokens"] == len(ids)
    expected = sampler.sample_ids([ids], 1, max_tokens=1, temperature=0.0)[0][0]
    assert answer["choices"][0]["logprobs"]["content"][0]["logprob"] == pytest.approx(expected.model_logps[0], abs=1e-4)
    raw = site.call("POST", "/v1/completions", {"model": "toy", "prompt": said, "max_tokens": 1})[1]
    assert raw["usage"]["prompt_tokens"] == len(sampler.engine.template.text_ids(said)) > len(control)


# --- shapes ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_what_is_not_supported_is_refused_by_name_and_what_asks_for_nothing_is_not(site, name):
    asking = {"tools": [{"type": "function", "function": {"name": "f"}}], "modalities": ["audio"], "store": True}
    status, answer, _ = site.chat(max_tokens=1, **{name: asking.get(name, 0.5)})
    assert status == 400 and answer["error"]["param"] == name and answer["error"]["type"] == "invalid_request_error"
    for neutral in (None, *NEUTRAL[name]):
        assert site.chat(max_tokens=1, **{name: neutral})[0] == 200


@pytest.mark.parametrize(("change", "param", "status"), [
    ({"model": None}, "model", 400), ({"model": "gpt-9"}, "model", 404), ({"messages": []}, "messages", 400),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     "messages[0].content[0].type", 400),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", 400),
    ({"messages": [{"role": "user", "content": "x", "audio": {"id": 1}}]}, "messages[0].audio", 400),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", 400),
    ({"n": 0}, "n", 400), ({"n": 9}, "n", 400), ({"n": True}, "n", 400), ({"temperature": 3}, "temperature", 400),
    ({"top_p": 0}, "top_p", 400),
    ({"stop": ["a"] * 5}, "stop", 400),
    ({"stop": [""]}, "stop", 400), ({"top_logprobs": 3}, "top_logprobs", 400), ({"logit_bias": {"x": 1}}, "logit_bias", 400),
    ({"logit_bias": {"99999": 1}}, "logit_bias", 400), ({"max_tokens": 5000}, "messages", 400),
    ({"stream_options": {"include_usage": True}}, "stream_options", 400), ({"top_k": 5}, "top_k", 400),
    ({"messages": [{"role": "user", "content": "\ud83d"}]}, "messages[0].content", 400),
    ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", 400), ({"stream": "yes"}, "stream", 400)])
def test_a_wrong_field_is_named(site, change, param, status):
    got, answer, _ = site.chat(**{"max_tokens": 1, **change})
    assert (got, answer["error"]["param"]) == (status, param) and set(answer["error"]) == {"message", "type", "param", "code"}


ODD = (True, False, 0, -1, 1.5, math.inf, 10**400, -10**400, "", "x", "\ud83d", "x" * 5000, [], [None], [0], ["x"] * 5, {},
       {"\ud83d": 1}, {"a": {"b": [1]}})
TAKEN = {"echo": (True, False), "stream": (True, False), "n": (), "logit_bias": ({},), "seed": (0, -1), "temperature": (0, 1.5),
         "stop": ("x", []), "user": ("", "x"), "safety_identifier": ("", "x"), "store": (False,), "suffix": ("",),
         "metadata": ({},), "tools": ([],), "functions": ([],), "frequency_penalty": (0,), "presence_penalty": (0,),
         "top_logprobs": (0,),
         "model": ("", "x", "x" * 5000), "prompt": ("", "x", "x" * 5000, [0], ["x"] * 5)}
"""Of the odd values those that ask for something, or for nothing; `model` is looked up later."""


@pytest.mark.parametrize(("read", "base"), [
    (read_chat, {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}),
    (read_completion, {"model": "m", "prompt": "a"})])
def test_every_field_with_every_odd_value(read, base):
    """Each is refused by name, or is one of the few that mean something: no other failure, and nothing is ignored."""
    pytest.importorskip("openai")
    import openai.types.chat.completion_create_params as chats
    import openai.types.completion_create_params as texts
    theirs = (chats if read is read_chat else texts).CompletionCreateParamsBase.__annotations__
    own = {"stream", "safety_identifier"} | (
        {"max_completion_tokens", "top_logprobs"} if read is read_chat else {"echo", "best_of"})
    for name in sorted({*theirs, *own, "\ud83d"}):
        taken = TAKEN.get(name, ()) if name != "logprobs" else (True, False) if read is read_chat else (0,)
        for value in ODD:
            right = any(value == t and type(value) is type(t) for t in taken)
            try:
                read({**base, name: value})
            except Refused as error:
                assert not right, (name, value)
                assert error.status == 400 and error.param.startswith(name.encode("utf-8", "backslashreplace").decode())
                assert len(json.dumps(error.to_json(), ensure_ascii=False).encode()) < 400
            else:
                assert right, (name, value)


@pytest.mark.parametrize(("message", "param"), [
    ({"content": "x", "name": "<|im_start|>"}, "name"), ({"content": "x", "\ud83d": 1}, "\\ud83d"),
    ({"content": [{"type": "text", "text": "x", "cache_control": {}}]}, "content[0].cache_control"),
    ({"content": [{"type": "\ud83d"}]}, "content[0].type"), ({"content": [{"type": "text", "text": "\ud83d"}]}, "content"),
    ({"content": [["x"]]}, "content[0].type"), ({"content": None}, "content"), ({"role": ["user"]}, "role"),
    ({"role": "<|im_start|>system"}, "role"), ({"role": {"a": 1}}, "role"), ({"role": None}, "role")])
def test_what_a_message_cannot_hold(site, message, param):
    status, answer, _ = site.chat(messages=[{"role": "user", "content": "x", **message}])
    assert (status, answer["error"]["param"]) == (400, f"messages[0].{param}")


@pytest.mark.parametrize(("options", "param"), [
    ({"include_usage": "yes"}, ".include_usage"), ({"include_usage": 1}, ".include_usage"), ({"\ud83d": 1}, ".\\ud83d"), ([], ""),
    ({"include_obfuscation": True}, ".include_obfuscation"), ("x", ""), (False, "")])
def test_options_of_a_stream(site, options, param):
    status, answer, _ = site.chat(stream=True, stream_options=options)
    assert (status, answer["error"]["param"]) == (400, f"stream_options{param}")


def test_who_asks_has_one_name(site):
    for given in ({"user": "a"}, {"safety_identifier": "a"}, {"user": "a", "safety_identifier": "a"}):
        assert read_chat({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **given}).user == "a"
    for given, name in (({"user": "a", "safety_identifier": "b"}, "safety_identifier"), ({"user": "a\0"}, "user"),
                        ({"safety_identifier": "a\nb"}, "safety_identifier")):
        status, answer, _ = site.chat(**given)
        assert (status, answer["error"]["param"]) == (400, name)


def test_odd_bodies_and_addresses(site):
    for body in (b"", b"[]", b"{", b'{"n": NaN}', b'{"temperature": %s}' % (b"9" * 5000), b'{"\\ud83d": 1}', b"\xff",
                 b"[" * 50_000):
        assert site.call("POST", "/v1/chat/completions", body)[0] == 400
    assert site.call("POST", "/v1/chat/completions", b"{}", Content_Type="text/plain")[0] == 415
    assert site.call("POST", "/v1/chat/completions", b" " * (5 << 20))[0] == 413
    assert site.call("GET", "/v1/nothing")[1]["error"]["type"] == "invalid_request_error"
    assert site.call("GET", "/v1/chat/completions")[0] == 405
    assert site.call("POST", "/v1/feedback", {"id": "x"})[0] == 404  # no database


def test_fields_read_alone():
    job = read_chat({"model": "m", "messages": [{"role": "developer", "content": [{"type": "text", "text": "Be "},
                    {"type": "text", "text": "brief."}]}, {"role": "user", "content": "Hi"}], "max_completion_tokens": 3.0,
                     "seed": -1, "logprobs": True, "stop": "x", "logit_bias": {"5": -100}})
    assert job.prompt == Prompt((Message("system", "Be brief."), Message("user", "Hi")))
    assert (job.max_tokens, job.top, job.stop, job.bias, job.n) == (3, 0, ("x",), ((5, -100.0),), 1)
    assert 0 <= job.seed < 2**63
    assert [(j.text, j.ids) for j in read_completion({"model": "m", "prompt": [[1, 2], [3]]})] == [("", (1, 2)), ("", (3,))]
    with pytest.raises(Refused, match="best_of"):
        read_completion({"model": "m", "prompt": "x", "best_of": 3})


def test_openais_client_with_strict_validation(client, site):
    answer = client.chat.completions.create(model="toy", messages=[{"role": "user", "content": "Hi"}], max_tokens=6, n=2, seed=1,
                                            logprobs=True, top_logprobs=2)
    assert len(answer.choices) == 2 and answer.choices[0].logprobs.content[0].top_logprobs[0].bytes
    stream = client.chat.completions.create(model="toy", messages=[{"role": "user", "content": "Hi"}], max_tokens=6, seed=1,
                                            n=2, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices and c.choices[0].index == 1) == \
        answer.choices[1].message.content
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens
    text = client.completions.create(model="toy", prompt=["ab", "cd"], max_tokens=3, logprobs=2, seed=1)
    assert len(text.choices) == 2 and len(text.choices[0].logprobs.top_logprobs[0]) == 2
    # OpenAI's own streams of texts have finish_reason null, which the client's type does not allow: strict off for these.
    loose = type(client)(base_url=client.base_url, api_key="none", max_retries=0)
    assert "".join(c.choices[0].text for c in loose.completions.create(
        model="toy", prompt="ab", max_tokens=3, stream=True, echo=True, seed=4)).startswith("ab")
    assert [m.id for m in client.models.list()] == ["toy"] and client.models.retrieve("toy").owned_by == "harken"
    import openai
    with pytest.raises(openai.BadRequestError, match="tools is not supported") as refused:
        client.chat.completions.create(model="toy", messages=[{"role": "user", "content": "Hi"}],
                                       tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
    assert refused.value.param == "tools"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.slow
def test_llm_comply_passes_all_that_is_text(monkeypatch):
    """Answers of a few tokens that end: a seed whose first three numbers are high and whose fourth takes the end."""
    pytest.importorskip("llm_comply")
    monkeypatch.setattr(secrets, "randbelow", lambda _: 1466)
    site = Served([weights(sampler=toy_sampler(ends=True), max_tokens=400)])
    command = [str(Path(sys.executable).with_name("llm-comply")), "--format", "openai-chat", "-u", f"{site.url}/v1", "-k", "none",
               "-m", "toy", "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout)
    tests = {t["name"]: t["status"] for t in found["results"]}
    refused = {name for name, status in tests.items() if status == "failed"}
    site.stop()
    assert refused == {"Tool Calling", "Image Input"} and list(tests.values()).count("passed") >= 6


# --- load, leaving, limits -------------------------------------------------------------------------

@pytest.mark.slow
def test_streams_are_neither_lost_nor_mixed_and_what_is_too_much_is_shed(sampler):
    site = Served([weights(rows=4)], queue=8)
    try:
        def ask(i):
            status, answer, headers = site.chat(f"Question {i}", max_tokens=30, seed=i)
            return i, status, answer, headers.get("Retry-After")
        with ThreadPoolExecutor(40) as pool:
            got = list(pool.map(ask, range(40)))
        served = [g for g in got if g[1] == 200]
        shed = [g for g in got if g[1] == 429]
        assert len(served) + len(shed) == 40 and len(served) >= 12 and shed
        assert all(int(g[3]) >= 1 and g[2]["error"]["type"] == "rate_limit_error" for g in shed)
        for i, _, answer, _ in served:
            expected = sampler.sample([Prompt.of(f"Question {i}")], 1, max_tokens=30, seed=i)[0][0]
            assert answer["choices"][0]["message"]["content"] == expected.text
        assert site.chat("Again", max_tokens=2)[0] == 200
        assert all(n == 0 for n in site.server._in_flight.values())
    finally:
        site.stop()


@pytest.mark.parametrize("stream", [True, False])
def test_when_the_client_leaves_its_row_is_free(site, stream):
    body = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "Go on"}], "max_tokens": 480, "stream": stream,
                       "logit_bias": {"3": -100}}).encode()
    sock = socket.create_connection(("127.0.0.1", site.port))
    sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                 + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    live = site.server.arms.backends[0].live
    until(lambda: site.server._in_flight["toy"] == 1 and site.server.arms.backends[0]._heard)
    sock.close()
    until(lambda: site.server._in_flight["toy"] == 0 and not site.server.arms.backends[0]._heard)
    assert 'harken_left_total{model="toy"}' in site.server.metrics.text()
    assert live._thread.is_alive()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_answer_that_takes_too_long_ends():
    site = Served(seconds=0.05)
    try:
        status, answer, _ = site.chat("Go on", max_tokens=480, logit_bias={"3": -100})
        assert status == 408 and answer["error"]["type"] == "timeout_error"
        last = site.stream("Go on", max_tokens=480, logit_bias={"3": -100})[-1]
        assert last["error"]["type"] == "timeout_error"
        until(lambda: site.server._in_flight["toy"] == 0)
    finally:
        site.stop()


def test_keys(tmp_path):
    site = Served(keys={"ada": "k" * 20, "bob": "b" * 20})
    try:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
            status, answer, _ = site.chat(max_tokens=1, headers=headers)
            assert status == 401 and answer["error"]["type"] == "authentication_error"
            assert site.call("GET", "/v1/models", **headers)[0] == site.call("GET", "/metrics", **headers)[0] == 401
        assert site.chat(max_tokens=1, headers={"Authorization": f"Bearer {'k' * 20}"})[0] == 200
        assert site.call("GET", "/health")[0] == 200
    finally:
        site.stop()


def test_pages_of_other_sites_cannot_reach_it():
    site = Served(hosts=("127.0.0.1", "localhost"))
    try:
        assert site.chat(max_tokens=1, headers={"Host": "evil.example"})[1]["error"]["code"] == "host"
        assert site.chat(max_tokens=1, headers={"Origin": "https://evil.example"})[1]["error"]["code"] == "origin"
        assert site.chat(max_tokens=1, headers={"Origin": site.url})[0] == 200
    finally:
        site.stop()


def test_metrics_are_prometheus_text(site):
    site.chat(max_tokens=5)
    text = site.call("GET", "/metrics")[1]
    assert 'harken_requests_total{route="/v1/chat/completions",status="200"}' in text
    assert 'harken_first_token_seconds_bucket{model="toy",le="+Inf"}' in text and "harken_between_tokens_seconds_count" in text
    assert 'harken_rows{model="toy"} 8' in text
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


def test_the_log_holds_no_prompt_and_no_answer(site, caplog):
    caplog.set_level("INFO", logger="harken.serve")
    answer = site.chat("a secret of mine", max_tokens=12, seed=1)[1]
    line = json.loads(next(r.message for r in caplog.records if answer["id"] in r.message))
    assert line["status"] == 200 and line["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert "secret" not in caplog.text and answer["choices"][0]["message"]["content"] not in caplog.text


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    from harken.cli.main import main
    (tmp_path / "keys.txt").write_text("ada short\n")
    for options, words in ((["--model", "toy", "--host", "0.0.0.0"], "there are no keys"),
                           (["--model", "toy", "--keys", str(tmp_path / "keys.txt")], "line 1: not a name and a key"),
                           (["--model", "toy", "--model", "toy"], "Two models are called toy"),
                           (["--model", "toy", "--model", "b=toy", "--weights", "1"], "does not give a positive share"),
                           (["--model", "toy", "--rows", "0"], "--rows is 0"),
                           (["--model", str(tmp_path / "nothing")], "nothing")):
        assert main(["serve", *options]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_schemathesis_finds_no_fault(tmp_path, seed):
    """Whatever is sent to what is described: no 5xx, and answers as described."""
    site = Served(folder=tmp_path)
    try:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{site.url}/openapi.json", "--checks",
                   "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
                   "--max-examples", "25", "--seed", str(seed), "--phases", "examples,coverage,fuzzing"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
        assert found.returncode == 0, found.stdout[-6000:]
    finally:
        site.stop()
