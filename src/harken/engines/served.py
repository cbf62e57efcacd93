"""Rollouts from a server of OpenAI's kind that takes token ids and weights: `harken serve --adapters`, vLLM.

    sampler = ServedRollouts(engine, "http://gpu2:8000/v1", Path("runs/rloo/rollouts"))
    sampler.update(version)             # writes the adapter, or the model where all of it learns, and lets the server load it
    sampler.sample_ids(prompts, 4, max_tokens=128, seed=7)

Each set of weights has a name of its own, `harken-` and the SHA-256 of its file, by which the server is asked for completions and
which its answer must repeat: older weights cannot speak unnoticed, and a server that was started anew is given the weights again.
The log-probs are the server's own (`foreign`): the trainer takes its own of the same tokens and corrects the difference
(loops/foreign.py). Weights travel as files, by a path that both machines see. vLLM reloads a whole model in place and goes on
answering under the name that it was started with: there whose weights spoke shows in the log-probs alone.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from harken.core import processes
from harken.core.errors import UserError
from harken.core.files import file_hash, write_json
from harken.core.protocols import Sample
from harken.core.records import Prompt
from harken.core.seeds import derive_seed
from harken.engines.base import OWN
from harken.engines.distributed import collect
from harken.engines.hf import Engine
from harken.engines.openai import Unanswered, get, post
from harken.engines.profile import timed
from harken.engines.stacked import WEIGHTS

WHOLE = "model.safetensors"
AT_ONCE = 64
"""Completions asked for at once; `harken serve` answers as many by default."""


class ServedRollouts:
    """Completions of `engine`'s weights, sampled behind `url`. `folder` is where each step's adapter is written."""

    foreign = apart = True

    def __init__(self, engine: Engine, url: str, folder: Path, *, sleeps: bool = False, seconds: float = 600.0,
                 wait: float = 1.0) -> None:
        self.engine, self.url, self.folder, self.seconds, self.wait = engine, url.rstrip("/"), folder, seconds, wait
        self.adapts = any("lora_" in name for name in engine.trainable)
        self.sleeps = sleeps
        self.lineage, self.version, self.name, self.called = engine.lineage, 0, "", ""

    def seen(self, prompt: Prompt) -> Prompt:
        return prompt

    def of(self, learner: Engine) -> ServedRollouts:
        return ServedRollouts(learner, self.url, self.folder, sleeps=self.sleeps, seconds=self.seconds, wait=self.wait)

    def wake(self) -> None:
        """vLLM takes its memory again, where it sleeps between steps."""
        self._bed("wake_up")

    def sleep(self) -> None:
        """vLLM gives the card's memory to the learner; its weights wait in the machine's."""
        self._bed("sleep?level=1")

    def _bed(self, route: str) -> None:
        if not self.sleeps or processes.group().rank:
            return
        try:
            self._post(f"{self._root}/{route}", {})
        except Unanswered as error:
            raise UserError(f"The server does not sleep: {error.fact}",
                            "Start vLLM with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1, or leave --rollouts-sleep out."
                            ) from None

    @property
    def _root(self) -> str:
        """Where vLLM's routes are that are not OpenAI's."""
        return self.url.removesuffix("/v1")

    def _post(self, url: str, body: dict[str, Any]) -> Any:
        return post(url, body, self.seconds, self.wait)

    @timed("send weights")
    def update(self, version: int) -> None:
        """Writes the present weights under their name and lets the server load them; those before are removed there and here."""
        group = processes.group()
        name = group.agree(self._written())
        if name != self.name and group.rank == 0:
            self._load(name)
            for old in self.folder.glob("harken-*"):  # of the step before, or of a run that was killed
                if old.name != name:
                    self._forget(old.name)
        self.name, self.version = group.agree(name), version
        self.called = group.agree(self.called or name)

    def _written(self) -> str:
        """The folder's name, on the first process: peft's two files, or the model as a run keeps it."""
        state = self.engine.whole({n: p for n, p in self.engine.parts.items() if "lora_" in n}) if self.adapts else {}
        part = self.folder / ".part"
        if first := processes.group().rank == 0:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        if not self.adapts:
            self.engine.save(part)
        elif first:
            self._write(state, part)
        if not first:
            return ""
        if not self.adapts and not (part / WHOLE).exists():
            raise UserError("A model of this size is written in several files, and a server is sent one.",
                            "Leave --lora-rank 0 out, or sample with --rollouts ray:N.")
        name = f"harken-{file_hash(part / (WEIGHTS if self.adapts else WHOLE))}"
        if not (self.folder / name).exists():
            part.rename(self.folder / name)
        shutil.rmtree(part, ignore_errors=True)
        return name

    def _write(self, state: dict[str, torch.Tensor], part: Path) -> None:
        from safetensors.torch import save_file
        adapter = self.engine.base.peft
        tensors = {f"base_model.model.{n.replace(f'.{OWN}', '')}": p.detach().cpu().contiguous() for n, p in state.items()}
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
        adapter.peft_config[OWN].save_pretrained(part)
        write_json(part / "harken.json", {"base_weights": self.engine.lineage.get("weights")})

    def _load(self, name: str) -> None:
        path = str((self.folder / name).resolve())
        try:
            answer = self._load_adapter(name, path) if self.adapts else self._load_whole(name, path)
        except Unanswered as error:
            how = "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" if self.adapts else "VLLM_SERVER_DEV_MODE=1"
            other = "" if self.adapts else " Other servers take adapters at most: leave --lora-rank 0 out."
            raise UserError(f"The server did not take the weights: {error.fact}",
                            f"Start harken serve with --adapters and this folder, or vLLM with {how}; both must see the folder "
                            f"under the same path.{other}") from None
        if isinstance(answer, dict) and answer.get("weights", name.removeprefix("harken-")) != name.removeprefix("harken-"):
            raise UserError(f"The server read other weights from {path} than were written there.",
                            "It must see the same files: check what is mounted.")

    def _load_adapter(self, name: str, path: str) -> Any:
        self.called = name
        try:
            return self._post(f"{self.url}/load_lora_adapter", {"lora_name": name, "lora_path": path})
        except Unanswered as error:
            if error.status == 400 and "already been loaded" in error.fact:  # vLLM, of a run that was killed and goes on
                return None
            raise

    def _load_whole(self, name: str, path: str) -> Any:
        """By our own route, or as vLLM reloads a model in place; what it has cached of the one before is forgotten."""
        try:
            answer = self._post(f"{self.url}/load_weights", {"name": name, "path": path})
            self.called = name
            return answer
        except Unanswered as error:
            if error.status not in (404, 405):
                raise
        self._post(f"{self._root}/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
        self._post(f"{self._root}/reset_prefix_cache", {})
        self.called = get(f"{self.url}/models", self.seconds)["data"][0]["id"]
        return None

    def _forget(self, name: str) -> None:
        """The weights before, on the server and here; a server that has forgotten them already is right."""
        try:
            if self.adapts:  # a model loaded whole takes the place of the one before
                self._post(f"{self.url}/unload_lora_adapter", {"lora_name": name})
        except Unanswered as error:
            if error.status not in (400, 404):
                raise
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def sample(self, prompts: Sequence[Prompt], n: int, *, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0,
               seed: int = 0) -> list[list[Sample]]:
        """`n` completions of each prompt: [P][n]."""
        return self.sample_ids([self.engine.template.prompt_ids(p) for p in prompts], n, max_tokens=max_tokens,
                               temperature=temperature, top_p=top_p, seed=seed)

    @timed("sample elsewhere")
    def sample_ids(self, prompts: Sequence[tuple[int, ...]], n: int, *, max_tokens: int, temperature: float = 1.0,
                   top_p: float = 1.0, seed: int = 0, advance: Callable[[int], None] | None = None) -> list[list[Sample]]:
        """As `HFSampler.sample_ids`. Raises `UserError` where the server's answer is not of the weights that were asked for, or
        does not say its tokens."""
        if temperature != 1 or top_p != 1:
            raise UserError(f"--rollouts samples at temperature 1; found {temperature}.",
                            "Servers give log-probs at temperature 1, whatever they sample at: leave --temperature out.")
        group = processes.group()
        mine = range(group.rank, len(prompts), group.size)

        def ask(i: int) -> list[Sample]:
            body = {"model": self.called, "prompt": list(prompts[i]), "n": n, "max_tokens": max_tokens, "temperature": 1.0,
                    "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "logprobs": 0, "return_token_ids": True,
                    "seed": derive_seed(seed, "sample", i) % 2**31}
            samples = self._samples(self._ask(body), prompts[i], n, max_tokens)
            if advance:
                advance(1)
            return samples

        with ThreadPoolExecutor(max(1, AT_ONCE // n)) as pool:
            return collect(dict(zip(mine, pool.map(ask, mine))), len(prompts))

    def _ask(self, body: dict[str, Any]) -> Any:
        try:
            return self._post(f"{self.url}/completions", body)
        except Unanswered as error:
            if error.status != 404:
                raise
        self._load(self.name)  # the server was started anew
        return self._post(f"{self.url}/completions", body)

    def _samples(self, answer: Any, prompt: tuple[int, ...], n: int, max_tokens: int) -> list[Sample]:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != n:
            raise UserError(f"{self.url} did not give {n} completions: {str(answer)[:200]}", "Is it vLLM or harken serve?")
        if answer.get("model") != self.called:
            raise UserError(f"{self.url} was asked for the weights {self.called} and answered with {answer.get('model')}.",
                            "Training on would be silently off-policy. Start a server that serves adapters by their names.")
        return [self._one(choice, prompt, max_tokens) for choice in choices]

    def _one(self, choice: Any, prompt: tuple[int, ...], max_tokens: int) -> Sample:
        logged = choice.get("logprobs") or {}
        ids, logps = choice.get("token_ids"), logged.get("token_logprobs")
        if not isinstance(ids, list) or not isinstance(logps, list) or not ids or len(ids) != len(logps):
            raise UserError(f"{self.url} gives no token ids, or not one log-prob for each: {str(choice)[:200]}",
                            "Use harken serve, or vLLM from 0.10.2 on (return_token_ids).")
        said = choice.get("prompt_token_ids")
        if said is not None and tuple(said) != prompt:
            raise UserError(f"{self.url} read another prompt than was sent.", "It adds tokens to ids: use another server.")
        if not all(type(i) is int and 0 <= i < self.engine.vocabulary for i in ids) or not all(
                isinstance(x, int | float) and math.isfinite(x) for x in logps):
            raise UserError(f"{self.url} gave tokens that this model has not, or log-probs that are no numbers.",
                            "Start it with this run's --model.")
        finished = ids[-1] in self.engine.template.stop_ids
        if not finished and len(ids) < max_tokens:
            raise UserError(f"{self.url} ended a completion after {len(ids)} tokens without the model's end of turn.",
                            "It must end where Harken does, and give the last token: check its stop tokens.")
        return Sample(tuple(ids), self.engine.template.decode(tuple(ids)), tuple(map(float, logps)), tuple(map(float, logps)),
                      finished, self.version)
