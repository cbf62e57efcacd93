"""Answers from a live queue are the offline sampler's, whatever joins and leaves beside them."""

import queue
import time

import pytest

from marks import slow

pytest.importorskip("torch")

import torch

from harken.core.protocols import Tree
from harken.core.records import Prompt
from harken.engines.live import Ask, Failed, Live, Said, Score, Scored
from harken.engines.sampler import HFSampler


class Ear:
    """Gathers what is delivered, by request and choice."""

    def __init__(self):
        self.events, self.done = [], queue.SimpleQueue()

    def __call__(self, events):
        self.events += events
        for e in events:
            if not isinstance(e, Said) or e.end:
                self.done.put(e)

    def wait(self, count):
        return [self.done.get(timeout=30) for _ in range(count)]

    def tokens(self, ask, choice=0):
        return tuple(e.token for e in self.events if isinstance(e, Said) and e.ask is ask and e.choice == choice)


@pytest.fixture(params=["llama", *slow("gpt2")])
def sampler(request, toy_engine):
    return HFSampler(toy_engine(request.param, train=False))


def listen(sampler, rows=4):
    ear = Ear()
    return Live(sampler, ear, rows), ear


PROMPTS = [Prompt.of(text) for text in ("Hi", "Name three birds, please.", "Why?", "Write a line about the sea and the sky.",
                                         "And now?", "x", "Tell me more of it")]


def test_greedy_and_seeded_answers_are_the_offline_samplers(sampler):
    """More requests than rows, of unlike lengths, temperatures, top-p, n and seeds, joining in the middle of others."""
    live, ear = listen(sampler)
    try:
        asks = []
        for i, prompt in enumerate(PROMPTS):
            ask = Ask(sampler.engine.template.prompt_ids(prompt), n=1 + i % 3, max_tokens=5 + 9 * (i % 4), seed=i,
                      temperature=(0.0, 1.0, 0.7)[i % 3], top_p=(1.0, 0.9)[i % 2])
            asks.append(ask)
            live.submit(ask)
            time.sleep(0.01)
        ear.wait(sum(a.n for a in asks))
    finally:
        live.close()
    for prompt, ask in zip(PROMPTS, asks):
        offline = sampler.sample([prompt], ask.n, max_tokens=ask.max_tokens, temperature=ask.temperature, top_p=ask.top_p,
                                 seed=ask.seed)[0]
        assert [ear.tokens(ask, g) for g in range(ask.n)] == [s.ids for s in offline]
        said = [e.logp for e in ear.events if e.ask is ask and e.choice == 0]
        assert said == pytest.approx(offline[0].model_logps, abs=1e-4)


def test_one_who_leaves_disturbs_nobody_and_frees_the_row(sampler):
    live, ear = listen(sampler, rows=2)
    try:
        ids = sampler.engine.template.prompt_ids(PROMPTS[1])
        gone, stays, late = (Ask(ids, max_tokens=300, temperature=1.0, seed=s) for s in (3, 4, 5))
        stays.max_tokens = late.max_tokens = 40
        for ask in (gone, stays, late):
            live.submit(ask)
        live.cancel(gone)
        ended = {id(e.ask) for e in ear.wait(2)}
    finally:
        live.close()
    assert ended == {id(stays), id(late)}
    for ask in (stays, late):
        assert ear.tokens(ask) == sampler.sample([PROMPTS[1]], 1, max_tokens=40, seed=ask.seed)[0][0].ids
    assert len(ear.tokens(gone)) < 300


def test_the_tokens_beside_and_a_texts_own_are_the_models(sampler):
    live, ear = listen(sampler)
    ids = sampler.engine.template.prompt_ids(PROMPTS[3])
    try:
        ask = Ask(ids, max_tokens=3, temperature=0.0, top=4)
        live.submit(ask)
        live.submit(score := Score(ids, top=2))
        live.submit(short := Score(ids[:1]))
        found = {id(e.ask): e for e in ear.wait(3)}
    finally:
        live.close()
    scored = found[id(score)]
    assert isinstance(scored, Scored) and len(scored.logps) == len(ids) - 1
    with torch.no_grad():
        expected = sampler.engine.forward([Tree(ids[:1], (ids[1:],))]).logps_N.tolist()
    assert scored.logps == pytest.approx(expected, abs=1e-5)
    assert found[id(short)].logps == []
    first = next(e for e in ear.events if isinstance(e, Said))
    assert first.top[0] == (first.token, pytest.approx(first.logp, abs=1e-6)) and len(first.top) == 4
    assert [p for _, p in first.top] == sorted((p for _, p in first.top), reverse=True)


def test_a_bias_moves_the_choice_and_not_the_log_prob(sampler):
    live, ear = listen(sampler)
    ids = sampler.engine.template.prompt_ids(PROMPTS[0])
    try:
        live.submit(plain := Ask(ids, max_tokens=2, temperature=0.0, top=20))
        ear.wait(1)
        rare = next(e for e in ear.events).top[-1]
        live.submit(tilted := Ask(ids, max_tokens=1, temperature=0.0, bias={rare[0]: 100.0}))
        ear.wait(1)
    finally:
        live.close()
    said = next(e for e in ear.events if e.ask is tilted)
    assert said.token == rare[0] != ear.tokens(plain)[0] and said.logp == pytest.approx(rare[1], abs=1e-5)


def test_a_failure_is_told_and_the_next_request_answered(sampler, monkeypatch):
    from harken.engines import live as module
    whole, broken = module.LiveBatch.step, []

    def once(self):
        if not broken:
            broken.append(1)
            raise MemoryError("no room")
        whole(self)

    monkeypatch.setattr(module.LiveBatch, "step", once)
    live, ear = listen(sampler)
    ids = sampler.engine.template.prompt_ids(PROMPTS[0])
    try:
        live.submit(first := Ask(ids, max_tokens=9, temperature=0.0))
        failed = ear.wait(1)[0]
        live.submit(second := Ask(ids, max_tokens=9, temperature=0.0))
        assert ear.wait(1)[0].end
    finally:
        live.close()
    assert isinstance(failed, Failed) and failed.ask is first
    assert ear.tokens(second) == sampler.sample([PROMPTS[0]], 1, max_tokens=9, temperature=0.0)[0][0].ids
