"""What stands behind a server: several models under one name, other servers, samplers of whole answers, control tokens."""

import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.serve.backends import Endpoint, Whole
from serve_site import Served, toy_sampler, weights


@pytest.fixture(scope="module")
def site():
    found = Served()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def sampler():
    return toy_sampler()


@pytest.mark.slow
def test_two_models_under_one_name():
    samplers = [toy_sampler(0), toy_sampler(1)]
    site = Served([weights("old", samplers[0]), weights("new", samplers[1])], name="chat", arms=(0.5, 0.5))
    try:
        assert [m["id"] for m in site.call("GET", "/v1/models")[1]["data"]] == ["chat"]
        options = {"max_tokens": 9, "seed": 5}
        texts = [{s.sample([Prompt.of(f"Q{i}")], 1, **options)[0][0].text: k for k, s in enumerate(samplers)} for i in range(30)]
        said = []
        for i in range(30):
            first = site.chat(f"Q{i}", **options)[1]
            assert first["model"] == "chat"
            assert first["system_fingerprint"] == site.chat("x", max_tokens=1)[1]["system_fingerprint"]
            text = first["choices"][0]["message"]["content"]
            assert text == site.chat(f"Q{i}", **options)[1]["choices"][0]["message"]["content"]  # it stays
            said.append(texts[i][text])
            both = site.chat(f"Q{i}", n=2, **options)[1]["choices"]
            assert {c["message"]["content"] for c in both} == set(texts[i]) and len(texts[i]) == 2
        assert 5 <= sum(said) <= 25
        assert site.chat("x", model="new")[0] == 404
    finally:
        site.stop()


def test_any_server_behind_it_by_address(site):
    behind = Served([Endpoint("far", f"{site.url}/v1", "toy")])
    try:
        options = {"max_tokens": 9, "seed": 3, "n": 2, "logprobs": True, "top_logprobs": 1, "stop": "q"}
        near, far = site.chat("Hi there", **options)[1], behind.chat("Hi there", **options)[1]
        assert far["model"] == "far" and far["choices"] == near["choices"]
        status, answer, _ = behind.chat("Hi there", n=9)
        assert status == 400 and "n must be at most 8" in answer["error"]["message"]
        assert behind.call("POST", "/v1/completions", {"model": "far", "prompt": "x"})[0] == 400
    finally:
        behind.stop()
    gone = Served([Endpoint("far", "http://127.0.0.1:9/v1")])
    try:
        assert gone.chat()[0] == 502
    finally:
        gone.stop()


def test_a_sampler_of_whole_answers(sampler):
    class Own:
        def sample(self, prompts, n, **settings):
            return sampler.sample(prompts, n, **settings)

    site = Served([Whole("own", Own())])
    try:
        expected = sampler.sample([Prompt.of("Hi")], 2, max_tokens=7, seed=2)[0]
        assert [c["message"]["content"] for c in site.chat("Hi", n=2, max_tokens=7, seed=2)[1]["choices"]] == \
            [s.text for s in expected]
        assert site.chat("Hi", logprobs=True)[1]["error"]["param"] == "logprobs"
    finally:
        site.stop()


@pytest.mark.slow
def test_a_server_of_an_address_needs_no_torch():
    code = ("import sys, argparse, harken.cli.serve as s; p = argparse.ArgumentParser(); s.add_commands(p.add_subparsers());"
            "a = p.parse_args(['serve', '--model', 'http://localhost:9/v1#m']); from harken.serve.app import create_app;"
            "from harken.serve.server import Server; create_app(Server(s.open_arms(a)));"
            "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_model_with_control_tokens_is_served_in_the_mode_that_is_configured(tmp_path):
    """Good mode puts its tag at the start: the answers are `harken sample --mode good`'s, and no tag is in them."""
    from argparse import Namespace

    from harken.cli.serve import open_backend
    from harken.engines.scratch import make_new
    from harken.launch.policies import open_sampler
    from harken.serve.backends import Whole
    from harken.text.tags import steer
    made = tmp_path / "model"
    make_new(made, ["One two. Three four five! Six?"], architecture="llama", size="60K", vocabulary=280, context=160, seed=1,
             segmenter="sentence")
    args = Namespace(dtype="float32", template="", rows=4, context=0, max_tokens=12, timeout=30.0, mode="bad")
    texts = {}
    for mode in ("good", "bad"):
        args.mode = mode
        backend = open_backend("m", str(made), args)
        assert isinstance(backend, Whole)
        site = Served([backend])
        try:
            texts[mode] = site.chat("One", max_tokens=12, seed=3)[1]["choices"][0]["message"]["content"]
        finally:
            site.stop()
        sampler = open_sampler(str(made))
        steer(sampler, str(made), mode)
        expected = sampler.sample([Prompt.of("One")], 1, max_tokens=12, seed=3)[0][0].text
        control = backend.sampler.control
        assert texts[mode] == expected and "<|" not in expected
        assert backend.sampler.guide.steering.start == (control.good if mode == "good" else control.bad)
    with pytest.raises(UserError, match="knows no control tokens"):
        steer(toy_sampler(), "toy", "good")
