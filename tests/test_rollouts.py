"""Completions from a server: whose weights spoke, and what corrects its numerics."""

import dataclasses
import json
import math
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch

from harken.core.config import CORRECTIONS
from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.protocols import Tree
from harken.core.records import Prompt
from harken.engines.openai import post
from harken.engines.sampler import HFSampler
from harken.engines.served import ServedRollouts
from harken.objectives.mismatch import correction, mismatch
from trials import run, weights

SETTINGS = {"reward": "gold", "lora_rank": 4, "max_tokens": 8, "steps": 2, "prompts_per_step": 3}


def test_truncated_importance_weights_by_hand():
    """Two completions of 2 and 1 tokens; the trainer's probabilities over the sampler's are 1.5, 2 and .5. The completions'
    ratios are 3 and .5. With the cap 2.5 the first completion is over it, no token is; with 1.75 the second token is."""
    trainer, sampler = torch.tensor([1.5, 2.0, 0.5]).log(), torch.zeros(3)
    by_hand = {("token_truncate", 2.5): [1.5, 2.0, 0.5], ("token_truncate", 1.75): [1.5, 1.75, 0.5],
               ("token_mask", 1.75): [1.5, 0.0, 0.5], ("sequence_truncate", 2.5): [2.5, 2.5, 0.5],
               ("sequence_mask", 2.5): [0.0, 0.0, 0.5], ("none", 2.5): [1.0, 1.0, 1.0]}
    for (kind, cap), wanted in by_hand.items():
        assert correction(trainer, sampler, [2, 1], kind, cap).tolist() == pytest.approx(wanted), kind
    assert {kind for kind, _ in by_hand} == set(CORRECTIONS)
    for wrong in (("token", 2.0), ("token_mask", 1.0)):
        with pytest.raises(ValueError, match="cap above 1"):
            correction(trainer, sampler, [2, 1], *wrong)


def test_the_figures_of_a_mismatch_by_hand():
    """Ratios 2 and 1 with the cap 1.5: weights 1.5 and 1. Gaps ln 2 and 0; KL (2 - 1 - ln 2 + 0) / 2; (2.5)² / (2 · 3.25)."""
    trainer = torch.tensor([2.0, 1.0]).log()
    found = mismatch(trainer, torch.zeros(2), correction(trainer, torch.zeros(2), [1, 1], "token_truncate", 1.5), 1.5)
    assert found == pytest.approx({"mismatch": math.log(2) / 2, "mismatch_max": math.log(2), "mismatch_kl": (1 - math.log(2)) / 2,
                                   "correction": 1.25, "correction_cut": 0.5, "correction_ess": 6.25 / 6.5})


@pytest.mark.parametrize("kind", CORRECTIONS)
def test_the_correction_is_exactly_one_where_both_agree(kind):
    logps = -torch.rand(64, generator=torch.Generator().manual_seed(0)) * 9
    assert bool((correction(logps, logps.clone(), [5, 59], kind) == 1.0).all())


def test_the_correction_recovers_an_expectation_under_the_trainer():
    """Planted: tokens are drawn from μ, f is a number of each. E_μ[w f] with a cap that none reaches is E_π[f]; without weights
    it is E_μ[f], which is another number."""
    generator = torch.Generator().manual_seed(1)
    sampler, trainer = (torch.randn(5, generator=generator).log_softmax(0) for _ in range(2))
    value = torch.arange(5.0)
    drawn = torch.multinomial(sampler.exp(), 200_000, replacement=True, generator=generator)
    w = correction(trainer[drawn], sampler[drawn], [1] * len(drawn), "token_truncate", 1e9)
    wanted, plain = float((trainer.exp() * value).sum()), float((sampler.exp() * value).sum())
    assert abs(wanted - plain) > 0.1
    assert float((w * value[drawn]).mean()) == pytest.approx(wanted, abs=0.03)
    assert float(value[drawn].mean()) == pytest.approx(plain, abs=0.03)


def trainers_own(monkeypatch, away=0.0):
    """The own sampler, which then says the trainer's own log-probs of its tokens, `away` from them."""
    original = HFSampler.sample_ids

    def sampled(self, prompts, n, **options):
        groups = original(self, prompts, n, **options)
        read = self.engine.logprobs([Tree(tuple(p), tuple(s.ids for s in g)) for p, g in zip(prompts, groups)],
                                    temperature=options["temperature"])
        return [[dataclasses.replace(s, logps=tuple((x + away).tolist())) for s, x in zip(g, r)] for g, r in zip(groups, read)]
    monkeypatch.setattr(HFSampler, "sample_ids", sampled)


@pytest.mark.parametrize("method", ["rloo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_server_that_agrees_changes_no_bit(files, tmp_path, monkeypatch, method):
    """Equal log-probs: weights 1, so losses and final weights are those of the path without a correction, to the bit."""
    trainers_own(monkeypatch)
    plain = run(method, files, tmp_path / "plain", **SETTINGS)
    monkeypatch.setattr(HFSampler, "foreign", True, raising=False)
    served = run(method, files, tmp_path / "served", **SETTINGS)
    rows = {name: read_jsonl(done.path / "metrics.jsonl") for name, done in (("plain", plain), ("served", served))}
    for before, after in zip(rows["plain"], rows["served"], strict=True):
        assert after["correction"] == 1.0 and after["mismatch"] == 0.0 and after["correction_cut"] == 0.0
        assert {n: v for n, v in before.items() if n != "seconds"} == {n: after[n] for n in before if n != "seconds"}
    first, second = weights(plain.path), weights(served.path)
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_a_mismatch_is_logged_weighs_and_can_end_the_run(files, tmp_path, monkeypatch):
    """A server that gives every token e^.1 of the probability it had: w = e^-.1 everywhere, and a rule may end the run."""
    trainers_own(monkeypatch, away=0.1)
    monkeypatch.setattr(HFSampler, "foreign", True, raising=False)
    rows = read_jsonl(run("rloo", files, tmp_path / "a", **SETTINGS).path / "metrics.jsonl")
    for row in rows:
        assert row["mismatch"] == pytest.approx(0.1, abs=1e-5) and row["correction"] == pytest.approx(math.exp(-0.1), abs=1e-5)
    done = run("rloo", files, tmp_path / "b", stop_when="mismatch>0.05", **SETTINGS)
    assert done.result["stopped"]["rule"] == "mismatch>0.05"


def test_another_model_behind_the_server_is_refused(files, tmp_path, monkeypatch):
    trainers_own(monkeypatch, away=1.5)
    monkeypatch.setattr(HFSampler, "foreign", True, raising=False)
    with pytest.raises(UserError, match="another model"):
        run("rloo", files, tmp_path / "r", **SETTINGS)


# --- a real server ---------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path):
    """`harken serve --model toy --adapters rollouts`, in a thread."""
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    from harken.serve.adapters import Adapters
    from serve_site import Served
    from serve_site import weights as backend
    folder = tmp_path / "rollouts"
    folder.mkdir()
    base = backend("toy", HFSampler(Engine(load("toy"), train=False)))
    found = Served([base], adapters=Adapters(base, folder))
    found.folder = folder
    yield found
    found.stop()


def learner(seed=0, away=0.0):
    """The toy model under an adapter, whose second factors are moved by `away`."""
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    engine = Engine(load("toy"), lora_rank=4, seed=seed)
    with torch.no_grad():
        for name, part in engine.parts.items():
            if "lora_B" in name:
                part += away * torch.randn(part.shape, generator=torch.Generator().manual_seed(seed))
    return engine


def test_a_server_speaks_with_the_learners_weights_and_says_its_tokens(site):
    """Log-probs of the tokens that the server drew are the learner's own, of weights that changed between two updates."""
    engine = learner(away=0.3)
    sampler = ServedRollouts(engine, f"{site.url}/v1", site.folder, wait=0.01)
    prompts = [engine.template.prompt_ids(Prompt.of(text)) for text in ("Hi", "Name three birds.")]
    read, names = {}, []
    for version in (1, 2):
        sampler.update(version)
        names.append(sampler.name)
        groups = sampler.sample_ids(prompts, 3, max_tokens=12, seed=5)
        own = engine.logprobs([Tree(p, tuple(s.ids for s in g)) for p, g in zip(prompts, groups)])
        for group, logps in zip(groups, own):
            for s, x in zip(group, logps):
                assert s.version == version and s.logps == pytest.approx(x.tolist(), abs=1e-4)
                assert s.finished == (s.ids[-1] in engine.template.stop_ids) and (s.finished or len(s.ids) == 12)
        read[version] = groups
        again = sampler.sample_ids(prompts, 3, max_tokens=12, seed=5)
        assert [[s.ids for s in g] for g in groups] == [[s.ids for s in g] for g in again]
        with torch.no_grad():
            for name, part in engine.parts.items():
                part += 0.2 * ("lora_B" in name)
    assert names[0] != names[1] and [p.name for p in site.folder.iterdir()] == [names[1]]
    assert [s.logps for g in read[1] for s in g] != [s.logps for g in read[2] for s in g]
    with pytest.raises(UserError, match="temperature 1"):
        sampler.sample_ids(prompts, 1, max_tokens=4, temperature=0.7)


def test_older_weights_are_never_sampled_from(site):
    """A server that forgot is given the weights again; one that answers for others, or has other weights, is refused."""
    engine = learner()
    sampler = ServedRollouts(engine, f"{site.url}/v1", site.folder, wait=0.01)
    prompts = [engine.template.prompt_ids(Prompt.of("Hi"))]
    sampler.update(1)
    first = sampler.name
    site.call("POST", "/v1/unload_lora_adapter", {"lora_name": first})  # as after a start
    status, _, _ = site.call("POST", "/v1/completions", {"model": first, "prompt": list(prompts[0])})
    assert status == 404
    assert sampler.sample_ids(prompts, 1, max_tokens=4)[0][0].version == 1
    answer = post(f"{site.url}/v1/completions", {"model": first, "prompt": list(prompts[0]), "logprobs": 0,
                                                 "return_token_ids": True}, 60, 0.01)
    for wrong, match in (({"model": "toy"}, "answered with toy"), ({"choices": []}, "did not give 1")):
        with pytest.raises(UserError, match=match):
            sampler._samples(answer | wrong, prompts[0], 1, 16)
    choice = answer["choices"][0]
    for wrong, match in (({"token_ids": None}, "no token ids"), ({"prompt_token_ids": [1]}, "another prompt"),
                         ({"token_ids": [10**6] * len(choice["token_ids"])}, "has not"),
                         ({"logprobs": {"token_logprobs": choice["logprobs"]["token_logprobs"][:-1]}}, "one log-prob for each")):
        with pytest.raises(UserError, match=match):
            sampler._samples(answer | {"choices": [choice | wrong]}, prompts[0], 1, 16)
    file = site.folder / first / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\x3f")
    with pytest.raises(UserError, match="other weights"):
        sampler._load(first)


def test_a_server_takes_adapters_of_its_own_model_and_folder_alone(site, tmp_path):
    engine = learner()
    ServedRollouts(engine, f"{site.url}/v1", tmp_path / "elsewhere", wait=0.01)._written()
    outside = next((tmp_path / "elsewhere").iterdir())
    load = lambda **body: site.call("POST", "/v1/load_lora_adapter", {"lora_name": "a", **body})  # noqa: E731
    assert load(lora_path=str(outside))[0] == 403
    assert load(lora_path=str(site.folder / "none"))[0] == 400 and load()[0] == 400
    inside = site.folder / "other"
    outside.rename(inside)
    (inside / "harken.json").write_text(json.dumps({"base_weights": "another"}))
    status, answer, _ = load(lora_path=str(inside))
    assert status == 400 and "another model" in answer["error"]["message"]
    assert site.call("GET", "/v1/models")[1]["data"][0]["id"] == "toy"  # it goes on with what it had


def full_learner(away):
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    engine = Engine(load("toy"))
    moved(engine, away)
    return engine


def moved(engine, away):
    with torch.no_grad():
        for part in engine.parts.values():
            part += away * torch.randn(part.shape, generator=torch.Generator().manual_seed(3))


def says_the_learners_own(engine, sampler):
    """Two updates of weights that move between them: each speaks, with the learner's log-probs, and only its folder is left."""
    prompts = [engine.template.prompt_ids(Prompt.of(text)) for text in ("Hi", "Name three birds.")]
    for version in (1, 2):
        moved(engine, 0.02)
        sampler.wake()
        sampler.update(version)
        groups = sampler.sample_ids(prompts, 3, max_tokens=8, seed=5)
        sampler.sleep()
        own = engine.logprobs([Tree(p, tuple(s.ids for s in g)) for p, g in zip(prompts, groups)])
        for group, logps in zip(groups, own):
            for s, x in zip(group, logps):
                assert s.version == version and s.logps == pytest.approx(x.tolist(), abs=1e-4)
        assert [p.name for p in sampler.folder.iterdir()] == [sampler.name]


def test_a_server_reloads_the_whole_model_by_path_and_hash(site, tmp_path):
    engine = full_learner(0.01)
    sampler = ServedRollouts(engine, f"{site.url}/v1", site.folder, wait=0.01)
    says_the_learners_own(engine, sampler)
    assert site.call("GET", "/v1/models")[1]["data"][0]["id"] == sampler.name
    load = lambda **body: site.call("POST", "/v1/load_weights", {"name": "a", **body})[0]  # noqa: E731
    assert load(path=str(tmp_path)) == 403 and load(path=str(site.folder)) == 400 and load() == 400
    site.call("POST", "/v1/load_lora_adapter", {"lora_name": "b", "lora_path": str(tmp_path)})
    file = site.folder / sampler.name / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\x3f")
    with pytest.raises(UserError, match="other weights"):
        sampler._load(sampler.name)


@pytest.fixture
def vllm():
    from fake_vllm import FakeVLLM
    found = FakeVLLM()
    yield found
    found.stop()


def test_vllm_reloads_a_whole_model_in_place_and_sleeps_between(vllm, tmp_path):
    engine = full_learner(0.01)
    says_the_learners_own(engine, ServedRollouts(engine, vllm.url, tmp_path / "w", sleeps=True, wait=0.01))
    routes = [path.removeprefix("/v1") for path in vllm.asked if path != "/v1/completions"]
    step = ["/wake_up", "/load_weights", "/collective_rpc", "/reset_prefix_cache", "/models", "/sleep?level=1"]
    assert routes == step * 2
    vllm.dev = False
    moved(engine, 0.01)
    sampler = ServedRollouts(engine, vllm.url, tmp_path / "v", wait=0.01)
    with pytest.raises(UserError, match=r"(?s)did not take the weights.*VLLM_SERVER_DEV_MODE"):
        sampler.update(3)
    sampler.sleeps = True
    with pytest.raises(UserError, match=r"(?s)does not sleep.*enable-sleep-mode"):
        sampler.wake()


def test_vllm_takes_adapters_by_name(vllm, tmp_path):
    engine = learner(away=0.3)
    sampler = ServedRollouts(engine, vllm.url, tmp_path / "w", wait=0.01)
    says_the_learners_own(engine, sampler)
    assert list(vllm.adapters) == [sampler.name]


@pytest.mark.slow
def test_rloo_learns_from_a_server(files, site, tmp_path):
    """The command whole: an adapter a step, the server's log-probs within rounding of the trainer's, no weight cut."""
    done = run("rloo", files, tmp_path / "r", rollouts=f"{site.url}/v1", rollouts_folder=str(site.folder), **SETTINGS)
    rows = read_jsonl(done.path / "metrics.jsonl")
    assert len(rows) == 2 and all(row["mismatch"] < 1e-4 and row["correction_cut"] == 0 for row in rows)
    assert len(list(site.folder.iterdir())) == 1
    run("rloo", files, tmp_path / "ahead", rollouts=f"{site.url}/v1", rollouts_folder=str(site.folder), max_staleness=1,
        **(SETTINGS | {"steps": 3, "learning_rate": 1e-2}))
    rows = read_jsonl(tmp_path / "ahead" / "metrics.jsonl")
    assert [row["staleness"] for row in rows] == [0, 1, 1] and rows[0]["mismatch"] < 1e-4 < rows[2]["mismatch"]


def test_llama_cpp_that_leaves_out_tokens_within_a_character_is_asked_for_each(monkeypatch):
    for name in ("gguf", "xllamacpp"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "llama_cpp_rollouts.py"))
    speaker = module["Speaker"].__new__(module["Speaker"])
    speaker.name, speaker.word = "w", 9
    asked = []

    def post(route, body):
        if body["n_predict"] == 1:
            asked.append((body["prompt"], body["logit_bias"]))
            return {"completion_probabilities": [{"id": 9, "top_logprobs": [
                {"id": 7, "logprob": -float(len(body["prompt"]))}, {"id": 8, "logprob": -0.5}]}]}
        listed = [{"id": i, "logprob": -0.25} for i in (7, 8)]
        return [{"tokens": [7, 8], "completion_probabilities": listed, "content": "ab"},
                {"tokens": [7, 7, 8], "completion_probabilities": listed, "content": "🥝b"}]

    speaker.post = post
    whole, cut = speaker.complete({"prompt": [1, 2], "n": 2, "max_tokens": 3, "seed": 0})["choices"]
    assert (whole["token_ids"], whole["logprobs"]["token_logprobs"]) == ([7, 8], [-0.25, -0.25])
    assert (cut["token_ids"], cut["logprobs"]["token_logprobs"]) == ([7, 7, 8], [-2.0, -3.0, -0.5])
    assert asked == [([1, 2], [[9, 1e3]]), ([1, 2, 7], [[9, 1e3]]), ([1, 2, 7, 7], [[9, 1e3]])]
