"""Workers of a Ray cluster: the same bits for any number of them, whoever is lost."""

import os
import signal
import sys

import pytest

from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.engines import ray_rollouts
from harken.engines.ray_rollouts import DEATHS, RayRollouts, spoken
from harken.engines.sampler import HFSampler
from harken.launch.rollouts import RolloutsWord, parse_rollouts
from trials import assert_bit_equal, rows, run

SETTINGS = {"reward": "gold", "lora_rank": 4, "max_tokens": 8, "steps": 2, "prompts_per_step": 5, "rollouts_hand": 2}


@pytest.fixture
def toy(toy_engine):
    return toy_engine(lora_rank=4)


def test_the_word_for_who_samples():
    assert parse_rollouts("") is None and parse_rollouts("http://a:1/v1") == RolloutsWord(url="http://a:1/v1")
    assert parse_rollouts("ray:3") == RolloutsWord(workers=3)
    assert parse_rollouts("ray:0@auto") == RolloutsWord(workers=0, address="auto")
    for wrong in ("ray", "ray:", "ray:x", "ray:-1", "ray:2@", "ray:99999", "vllm:2", "localhost:8000"):
        with pytest.raises(UserError, match="neither a server nor Ray workers"):
            parse_rollouts(wrong)


def test_hands_are_dealt_by_length_and_speak_the_same_tokens(toy):
    """Whatever the hand, a prompt keeps its random numbers: the tokens are those of the sampler alone, in the prompts' order."""
    own = HFSampler(toy)
    prompts = [toy.template.prompt_ids(Prompt.of(text)) for text in ("Hi", "Name three birds.", "Why?", "One.", "Two of it")]
    wanted = [[s.ids for s in group] for group in own.sample_ids(prompts, 3, max_tokens=6, seed=3)]
    for hand in (1, 2, 5):
        dealt = RayRollouts(toy, lambda: own, 0, hand=hand)
        dealt.update(4)
        groups = dealt.sample_ids(prompts, 3, max_tokens=6, seed=3)
        assert [[s.ids for s in group] for group in groups] == wanted, hand
        assert {s.version for group in groups for s in group} == {4}


class Lost(Exception):
    """What Ray raises of an actor that died."""


class FakeRay:
    """As much of Ray as a cluster needs, in this process; the `dying` calls (by number) lose their worker."""

    class exceptions:
        RayError = RayActorError = ObjectLostError = WorkerCrashedError = GetTimeoutError = Lost

    def __init__(self, cpus=2, dying=()):
        self.cpus, self.dying, self.results, self.started, self.killed = cpus, dying, [], 0, []

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": float(self.cpus)}

    def put(self, value):
        return value

    def kill(self, actor):
        self.killed.append(actor)

    def wait(self, running, num_returns):
        return [running[-1]], running[:-1]

    def get(self, results, timeout=None):
        if isinstance(results, list):
            return [self.get(result) for result in results]
        found = self.results[results]
        if isinstance(found, Exception):
            raise found
        return found

    def remote(self, **_):
        fake = self

        class Method:
            def __init__(self, call):
                self.call = call

            def remote(self, *args):
                fake.results.append(Lost("the actor died") if len(fake.results) + 1 in fake.dying else self.call(*args))
                return len(fake.results) - 1

        class Actor:
            def __init__(self, worker):
                self.ready, self.say = Method(worker.ready), Method(worker.say)

        class Made:
            def __init__(self, kind):
                self.kind = kind

            def remote(self, *args):
                fake.started += 1
                return Actor(self.kind(*args))
        return Made


def dealt_by(monkeypatch, fake, engine, worker, workers=2):
    monkeypatch.setitem(sys.modules, "ray", fake)
    sampler = RayRollouts(engine, worker, workers, hand=1)
    sampler.update(1)
    return sampler


def test_a_lost_workers_hand_is_dealt_again_and_one_that_always_dies_ends_it(toy, monkeypatch):
    """Calls 1 and 2 open the two workers, 3 to 6 are hands; call 4 dies, so there are five and one more worker."""
    prompts = [toy.template.prompt_ids(Prompt.of(text)) for text in ("Hi", "Why?", "One.")]
    worker = lambda: HFSampler(toy)  # noqa: E731
    alone = RayRollouts(toy, worker, 0, hand=1)
    alone.update(1)
    wanted = alone.sample_ids(prompts, 2, max_tokens=4, seed=9)
    fake = FakeRay(dying={4})
    assert dealt_by(monkeypatch, fake, toy, worker).sample_ids(prompts, 2, max_tokens=4, seed=9) == wanted
    assert fake.started == 3 and len(fake.killed) == 1
    fake = FakeRay(dying=set(range(3, 99)))
    with pytest.raises(UserError, match=f"lost {DEATHS} times"):
        dealt_by(monkeypatch, fake, toy, worker).sample_ids(prompts, 2, max_tokens=4, seed=9)
    with pytest.raises(UserError, match=r"(?s)the cluster has 2.*Use ray:2"):
        dealt_by(monkeypatch, FakeRay(), toy, worker, workers=3)


def test_a_worker_of_another_model_or_version_does_not_speak(toy, monkeypatch):
    worker = ray_rollouts.Worker(lambda: HFSampler(toy), 1)
    with pytest.raises(UserError, match="other parameters"):
        worker.say(1, {"another": 0}, [(1, 2)], [0], 1, {"max_tokens": 1})
    assert worker.loaded is None
    assert not any(name.startswith("head.") for name in spoken(toy))


def test_ray_that_is_missing_and_a_cluster_that_is_not_there_are_one_message(files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed"):
        run("rloo", files, tmp_path / "a", rollouts="ray:1", **SETTINGS)
    with pytest.raises(UserError, match="neither a server nor Ray workers"):
        run("rloo", files, tmp_path / "b", rollouts="ray:two", **SETTINGS)
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_two_workers_and_one_that_is_killed_change_no_bit(files, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    run("rloo", files, tmp_path / "none", rollouts="ray:0", **SETTINGS)
    original, killed = RayRollouts.sample_ids, []

    def sampled(self, *args, **options):
        if self.version == 1 and not killed:
            killed.append(self.cluster.ray.get(self.cluster.pool[0].ready.remote()))
            os.kill(killed[0], signal.SIGKILL)
        return original(self, *args, **options)
    monkeypatch.setattr(RayRollouts, "sample_ids", sampled)
    run("rloo", files, tmp_path / "two", rollouts="ray:2", **SETTINGS)
    assert killed
    assert_bit_equal(tmp_path / "none", tmp_path / "two")
    assert rows(tmp_path / "none") == rows(tmp_path / "two")
