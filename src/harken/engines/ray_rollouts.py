"""Own samplers on the machines of a Ray cluster: the step's prompts dealt to them in hands, with the weights that are to speak.

    sampler = RayRollouts(engine, make, workers=8)
    sampler.update(version)
    sampler.sample_ids(prompts, 4, max_tokens=128, seed=7)
    sampler.close()

What is said depends on a prompt, its place in the step and the seed (sampler.py), and the shape of each product on the hand
alone: the number of workers, who is dealt what, and who is lost change no bit. A worker that is lost is replaced, and its hand is
dealt again with the same random numbers. With no workers the same hands are sampled here.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harken.core import processes
from harken.core.cluster import connect
from harken.core.errors import UserError
from harken.core.protocols import Sample
from harken.core.records import Prompt
from harken.engines.hf import Engine
from harken.engines.profile import timed
from harken.engines.sampler import HFSampler, longest_first

DEATHS = 3
"""A worker that is lost so often without finishing a hand is lost for another reason than chance."""
START_SECONDS = 900.0
"""How long workers may take to open the model."""

Make = Callable[[], HFSampler]


class RayRollouts:
    """Completions of `engine`'s weights, sampled by `workers` actors that open the same model with `make`; by this process where
    there are none. `hand` prompts are dealt at a time. Of several processes the first deals, and all see the results."""

    def __init__(self, engine: Engine, make: Make, workers: int, *, address: str = "", hand: int = 4) -> None:
        self.engine, self.make, self.workers, self.address, self.hand = engine, make, workers, address, hand
        self.lineage, self.version = engine.lineage, 0
        self.own = HFSampler(engine)
        self.apart = workers > 0
        self.cluster: Cluster | None = None
        if workers and processes.group().rank == 0:
            self.cluster = Cluster(make, workers, address, gpu=engine.device.type == "cuda")

    def seen(self, prompt: Prompt) -> Prompt:
        return prompt

    def of(self, learner: Engine) -> HFSampler:
        """Another model is sampled here: the workers have this one."""
        return HFSampler(learner)

    def wake(self) -> None:
        """The workers are awake."""

    def sleep(self) -> None:
        """Their memory is not the learner's."""

    @timed("send weights")
    def update(self, version: int) -> None:
        """The present weights, as `version`, into the cluster's store: each worker fetches them with its next hand."""
        self.version = version
        self.own.update(version)
        if self.workers:
            parts = self.engine.whole(spoken(self.engine))
            if self.cluster is not None:
                self.cluster.put(version, {name: p.detach().cpu().float().numpy() for name, p in parts.items()})

    def sample(self, prompts: Sequence[Prompt], n: int, *, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0,
               seed: int = 0) -> list[list[Sample]]:
        """`n` completions of each prompt: [P][n]."""
        return self.sample_ids([self.engine.template.prompt_ids(p) for p in prompts], n, max_tokens=max_tokens,
                               temperature=temperature, top_p=top_p, seed=seed)

    @timed("sample elsewhere")
    def sample_ids(self, prompts: Sequence[tuple[int, ...]], n: int, *, max_tokens: int, temperature: float = 1.0,
                   top_p: float = 1.0, seed: int = 0, advance: Callable[[int], None] | None = None) -> list[list[Sample]]:
        """As `HFSampler.sample_ids`. Raises `UserError` where workers are lost again and again, or other weights spoke."""
        options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        order = longest_first(prompts)
        hands = [order[i:i + self.hand] for i in range(0, len(order), self.hand)]
        group = processes.group()
        if not self.workers:
            ours = range(group.rank, len(hands), group.size)
            mine = {k: self.own.sample_ids(prompts, n, places=hands[k], **options) for k in ours}
            dealt = {k: groups for part in group.gather(mine) for k, groups in part.items()}
        else:
            dealt = group.agree(self.cluster.deal(self.version, prompts, hands, n, options) if self.cluster else {})
        placed = {i: samples for k, hand in enumerate(hands) for i, samples in zip(hand, dealt[k], strict=True)}
        if advance:
            advance(len(prompts))
        return [placed[i] for i in range(len(prompts))]

    def close(self) -> None:
        """Ends the workers."""
        if self.cluster is not None:
            self.cluster.close()


def spoken(engine: Engine) -> dict[str, Tensor]:
    """The trained parameters that speech depends on: no head's, no numbers of an objective."""
    return {name: part for name, part in engine.parts.items() if not name.startswith(("head.", "scalar."))}


class Cluster:
    """`workers` actors of a Ray cluster: at `address`, the one of $RAY_ADDRESS, or one begun on this machine."""

    def __init__(self, make: Make, workers: int, address: str, gpu: bool) -> None:
        self.make = make
        self.ray, self.begun = connect(address or os.environ.get("RAY_ADDRESS", "local"), "give ray:N alone")
        try:
            self._need("CPU", workers)
            if gpu:
                self._need("GPU", workers)
            # Ray would give each worker one thread; the learner's number keeps the shape, and with it the bits, of its products.
            self.actor = self.ray.remote(num_cpus=1, num_gpus=int(gpu))(Worker)
            self.pool = [self._start() for _ in range(workers)]
            self.deaths = [0] * workers
            self._opened()
        except BaseException:
            self.close()
            raise
        self.weights: Any = None

    def _need(self, kind: str, workers: int) -> None:
        has = int(self.ray.cluster_resources().get(kind, 0))
        if has < workers:
            raise UserError(f"--rollouts ray:{workers} needs a {kind} for each worker, and the cluster has {has}.",
                            f"Use ray:{has}, or join more machines to it (ray start --address HEAD:6379)." if has else
                            "Join machines to it (ray start --address HEAD:6379).")

    def _start(self) -> Any:
        return self.actor.remote(self.make, torch.get_num_threads())

    def _opened(self) -> None:
        """Waits until all have opened the model, so that what keeps them from it is told before the first step."""
        try:
            self.ray.get([worker.ready.remote() for worker in self.pool], timeout=START_SECONDS)
        except self.ray.exceptions.GetTimeoutError:
            raise UserError(f"The workers did not open the model within {START_SECONDS:.0f} s.",
                            "Is the cluster busy with other work? ray status tells.") from None
        except self.ray.exceptions.RayError as error:
            raise _failed(error) from None

    def put(self, version: int, parts: Mapping[str, Any]) -> None:
        self.weights = None  # the store gives up those before
        self.weights = version, self.ray.put(dict(parts))

    def deal(self, version: int, prompts: Sequence[tuple[int, ...]], hands: Sequence[Sequence[int]], n: int,
             options: Mapping[str, Any]) -> dict[int, list[list[Sample]]]:
        """Every hand's samples, by its number."""
        ray = self.ray
        put, weights = self.weights
        assert put == version, "the weights of this version were not sent"
        waiting, idle = deque(range(len(hands))), list(range(len(self.pool)))
        running: dict[Any, tuple[int, int]] = {}
        dealt: dict[int, list[list[Sample]]] = {}
        while waiting or running:
            while waiting and idle:
                slot, k = idle.pop(), waiting.popleft()
                running[self.pool[slot].say.remote(version, weights, prompts, hands[k], n, options)] = slot, k
            (done,), _ = ray.wait(list(running), num_returns=1)
            slot, k = running.pop(done)
            try:
                dealt[k] = ray.get(done)
                self.deaths[slot] = 0
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError) as error:
                self._replace(slot, error)
                waiting.appendleft(k)
            except ray.exceptions.RayError as error:
                raise _failed(error) from None
            idle.append(slot)
        return dealt

    def _replace(self, slot: int, error: Exception) -> None:
        self.deaths[slot] += 1
        if self.deaths[slot] >= DEATHS:
            why = str(error).strip().partition("\n")[0][:200]
            raise UserError(f"A worker was lost {DEATHS} times before it finished its prompts: {why}",
                            "Is its machine short of memory? ray status and its logs tell. The same command continues.")
        self.ray.kill(self.pool[slot])  # where it is only unreachable
        self.pool[slot] = self._start()

    def close(self) -> None:
        for worker in getattr(self, "pool", []):
            self.ray.kill(worker)
        if self.begun:
            self.ray.shutdown()


def _failed(error: Exception) -> UserError:
    """What a worker failed of, in words."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return cause
    return UserError(f"A worker failed: {str(cause or error).strip().splitlines()[-1][:300]}",
                     "It must see the model under the same path, and have the same Harken. The same command continues.")


class Worker:
    """An actor: the model once, and the weights of the version that it was last given."""

    def __init__(self, make: Make, threads: int) -> None:
        torch.set_num_threads(threads)
        self.sampler = make()
        self.loaded: int | None = None

    def ready(self) -> int:
        """Its process."""
        return os.getpid()

    def say(self, version: int, weights: Mapping[str, Any], prompts: Sequence[tuple[int, ...]], hand: Sequence[int], n: int,
            options: Mapping[str, Any]) -> list[list[Sample]]:
        if self.loaded != version:
            self._read(weights)
            self.loaded = version
            self.sampler.update(version)
        return self.sampler.sample_ids(prompts, n, places=hand, **options)

    @torch.no_grad()
    def _read(self, weights: Mapping[str, Any]) -> None:
        parts = spoken(self.sampler.engine)
        if parts.keys() != weights.keys():
            raise UserError("A worker has other parameters than the learner.", "Install the same version of Harken everywhere.")
        for name, part in parts.items():
            part.copy_(torch.tensor(weights[name]))
