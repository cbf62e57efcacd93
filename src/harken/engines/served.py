"""Rollouts from a server of OpenAI's kind that takes token ids and adapters: `harken serve --adapters`, vLLM.

    sampler = ServedRollouts(engine, "http://gpu2:8000/v1", Path("runs/rloo/rollouts"))
    sampler.update(version)             # writes the adapter, and lets the server load it
    sampler.sample_ids(prompts, 4, max_tokens=128, seed=7)

Each set of weights has a name of its own, `harken-` and the SHA-256 of its file, by which the server is asked for completions and
which its answer must repeat: older weights cannot speak unnoticed, and a server that was started anew is given the weights again.
The log-probs are the server's own (`foreign`): the trainer takes its own of the same tokens and corrects the difference
(loops/foreign.py). Only adapters travel, by a path that both machines see.
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
from harken.engines.openai import Unanswered, post
from harken.engines.profile import timed
from harken.engines.stacked import WEIGHTS

AT_ONCE = 64
"""Completions asked for at once; `harken serve` answers as many by default."""


class ServedRollouts:
    """Completions of `engine`'s weights, sampled behind `url`. `folder` is where each step's adapter is written."""

    foreign = True

    def __init__(self, engine: Engine, url: str, folder: Path, *, seconds: float = 600.0, wait: float = 1.0) -> None:
        if not any("lora_" in name for name in engine.trainable):
            raise UserError("--rollouts sends adapters to the server, and this run trains every weight.",
                            "Leave --lora-rank 0 out, or sample in this process.")
        self.engine, self.url, self.folder, self.seconds, self.wait = engine, url.rstrip("/"), folder, seconds, wait
        self.lineage, self.version, self.name = engine.lineage, 0, ""

    def seen(self, prompt: Prompt) -> Prompt:
        return prompt

    def of(self, learner: Engine) -> ServedRollouts:
        return ServedRollouts(learner, self.url, self.folder, seconds=self.seconds, wait=self.wait)

    def wake(self) -> None:
        """The server is awake."""

    def sleep(self) -> None:
        """Its memory is not this machine's."""

    @timed("send weights")
    def update(self, version: int) -> None:
        """Writes the present weights under their name and lets the server load them; those before are removed there and here."""
        group = processes.group()
        state = self.engine.whole({n: p for n, p in self.engine.parts.items() if "lora_" in n})
        name = group.agree(self._write(state) if group.rank == 0 else "")
        if name != self.name and group.rank == 0:
            self._load(name)
            for old in self.folder.glob("harken-*"):  # of the step before, or of a run that was killed
                if old.name != name:
                    self._forget(old.name)
        self.name, self.version = group.agree(name), version

    def _write(self, state: dict[str, torch.Tensor]) -> str:
        """peft's two files in a folder named by the weights' hash."""
        from safetensors.torch import save_file
        adapter = self.engine.base.peft
        part = self.folder / ".part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        tensors = {f"base_model.model.{n.replace(f'.{OWN}', '')}": p.detach().cpu().contiguous() for n, p in state.items()}
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
        adapter.peft_config[OWN].save_pretrained(part)
        write_json(part / "harken.json", {"base_weights": self.engine.lineage.get("weights")})
        name = f"harken-{file_hash(part / WEIGHTS)}"
        if not (self.folder / name).exists():
            part.rename(self.folder / name)
        shutil.rmtree(part, ignore_errors=True)
        return name

    def _load(self, name: str) -> None:
        path = (self.folder / name).resolve()
        try:
            answer = post(f"{self.url}/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, self.seconds, self.wait)
        except Unanswered as error:
            if error.status == 400 and "already been loaded" in error.fact:  # vLLM, of a run that was killed and goes on
                return
            raise UserError(f"The server did not take the weights: {error.fact}",
                            "Start harken serve with --adapters and this folder, vLLM with --enable-lora and "
                            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1; both must see the run's folder under the same path.") from None
        if isinstance(answer, dict) and answer.get("weights", name.removeprefix("harken-")) != name.removeprefix("harken-"):
            raise UserError(f"The server read other weights from {path} than were written there.",
                            "It must see the same files: check what is mounted.")

    def _forget(self, name: str) -> None:
        """The weights before, on the server and here; a server that has forgotten them already is right."""
        try:
            post(f"{self.url}/unload_lora_adapter", {"lora_name": name}, self.seconds, self.wait)
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
            body = {"model": self.name, "prompt": list(prompts[i]), "n": n, "max_tokens": max_tokens, "temperature": 1.0,
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
            return post(f"{self.url}/completions", body, self.seconds, self.wait)
        except Unanswered as error:
            if error.status != 404:
                raise
        self._load(self.name)  # the server was started anew
        return post(f"{self.url}/completions", body, self.seconds, self.wait)

    def _samples(self, answer: Any, prompt: tuple[int, ...], n: int, max_tokens: int) -> list[Sample]:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != n:
            raise UserError(f"{self.url} did not give {n} completions: {str(answer)[:200]}", "Is it vLLM or harken serve?")
        if answer.get("model") != self.name:
            raise UserError(f"{self.url} was asked for the weights {self.name} and answered with {answer.get('model')}.",
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
