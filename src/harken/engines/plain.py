"""The plain path: one sequence a row through the model's own forward, for models whose rows cannot share prompts or be packed.

Slower but exact: state-space and hybrid models, attention that is not transformers' interface, heads of more than one matrix.
Sampling draws the same numbers as the packed sampler (P23); prompts of one length speak together, without padding.
Shape suffixes: B sequences, T tokens, D hidden width, V vocabulary, N completion tokens, C completions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harken.core.protocols import Sample, Tree
from harken.core.seeds import derive_seed
from harken.engines.draw import draw
from harken.engines.form import body_of, states
from harken.engines.profile import computed_sequence, timed

CACHES = ("past_key_values", "cache_params", "state", "mems")
"""What models call the cache that they return, and take again under the same name."""


def whole(model: Any, ids_BT: Tensor, *, logits: bool = True) -> tuple[Tensor, Tensor]:
    """The body's last hidden states [B, T, D] and the model's logits [B, T, V] (empty unless asked for)."""
    module = model if logits else body_of(model)
    with states(model) as hidden:
        out = module(input_ids=ids_BT, **_options(module, use_cache=False))
    return hidden[-1], (out.logits if logits else ids_BT.new_zeros(0))


def _options(module: Any, **wanted: Any) -> dict[str, Any]:
    """Those of the arguments that the module's forward takes."""
    parameters = inspect.signature(module.forward).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in wanted.items() if free or name in parameters}


class Speaker:
    """Sequences of one length read token by token: through the model's own cache, or the whole of them anew each time."""

    def __init__(self, model: Any, cached: bool) -> None:
        self.model, self.cached = model, cached
        self.cache: dict[str, Any] = {}
        self.read_BT: Tensor | None = None

    def read(self, ids_BT: Tensor) -> Tensor:
        """The logits [B, V] after these further tokens."""
        if not self.cached:
            self.read_BT = ids_BT if self.read_BT is None else torch.cat((self.read_BT, ids_BT), 1)
            out = self.model(input_ids=self.read_BT, **_options(self.model, use_cache=False))
            return last_logits(out)
        out = self.model(input_ids=ids_BT, use_cache=True, **self.cache)
        self.cache = {name: value for name in CACHES if (value := getattr(out, name, None)) is not None}
        assert self.cache, "the model returned no cache"
        return last_logits(out)


def last_logits(output: Any) -> Tensor:
    """The logits [B, V] of each sequence's last token, in float32."""
    logits: Tensor = output.logits[:, -1].float()
    return logits


def forward(engine: Any, trees: Sequence[Tree], temperature: float, entropy: bool, logps: bool) -> tuple[Tensor, ...]:
    """(log-probs [N], entropy [N], states that predict each token [N, D], states after each completion [C, D]): as one packed row
    would give them. Without `logps` the first two are empty."""
    none = torch.zeros(0, device=engine.device)
    logps_parts, spread, before, ends = [none], [none], [], []
    for tree in trees:
        for completion in tree.completions:
            ids = torch.tensor([[*tree.prompt, *completion]], device=engine.device)
            with engine.precision():
                hidden, logits = whole(engine.model, ids, logits=logps)
            computed_sequence(engine, ids.shape[1], len(completion) if logps else 0)
            at = slice(len(tree.prompt) - 1, ids.shape[1] - 1)
            before.append(hidden[0, at])
            ends.append(hidden[0, -1])
            if logps:
                logp_TV = (logits[0, at].float() / temperature).log_softmax(-1)
                logps_parts.append(logp_TV.gather(-1, ids[0, len(tree.prompt):, None])[:, 0])
                if entropy:
                    spread.append(-(logp_TV.exp() * logp_TV).sum(-1).detach())
    logps_N = torch.cat(logps_parts)
    return logps_N, torch.cat(spread) if entropy else torch.zeros_like(logps_N), torch.cat(before), torch.stack(ends)


class PlainBatch:
    """Sequences in the making, prompts of one length at a time. Rows that have ended are computed on and not listened to."""

    def __init__(self, sampler: Any, order: Sequence[int], prompts: Sequence[tuple[int, ...]], n: int, max_tokens: int,
                 temperature: float, top_p: float, min_tokens: int, seed: int, ends: Any = None) -> None:
        self.ends = ends
        self.engine, self.order, self.prompts, self.n = sampler.engine, order, prompts, n
        self.most = max(1, sampler.max_batch // n)
        self.max_tokens, self.min_tokens, self.seed = max_tokens, min_tokens, seed
        self.temperature, self.top_p = temperature, top_p
        self.stop = torch.tensor(self.engine.template.stop_ids, device=self.engine.device)

    def run(self) -> Iterator[tuple[int, list[Sample]]]:
        """Each prompt's index and its samples, as they end."""
        batch: list[int] = []
        for index in self.order:
            if batch and (len(batch) == self.most or len(self.prompts[index]) != len(self.prompts[batch[0]])):
                yield from self._together(batch)
                batch = []
            batch.append(index)
        if batch:
            yield from self._together(batch)

    @timed("decode")
    def _together(self, batch: Sequence[int]) -> list[tuple[int, list[Sample]]]:
        engine, rows = self.engine, len(batch) * self.n
        device = engine.device
        uniform_BT = torch.cat([self._uniform(index) for index in batch]).to(device)
        ids_BT = torch.zeros(rows, self.max_tokens, dtype=torch.long, device=device)
        logps_BT = torch.zeros(2, rows, self.max_tokens, device=device)
        length_B = torch.zeros(rows, dtype=torch.long, device=device)
        ended_B = torch.zeros(rows, dtype=torch.bool, device=device)
        read = torch.tensor([self.prompts[i] for i in batch], device=device).repeat_interleave(self.n, 0)
        speaker = Speaker(engine.model, engine.form.cached)
        for at in range(self.max_tokens):
            logits = speaker.read(read)
            computed_sequence(engine, read.shape[1], 1, times=rows)
            if at < self.min_tokens:
                logits[:, self.stop] = -torch.inf
            token, sampled, model = draw(logits, uniform_BT[:, at], self.temperature, self.top_p)
            ids_BT[:, at], logps_BT[0, :, at], logps_BT[1, :, at] = token, sampled, model
            length_B[~ended_B] = at + 1
            ended_B |= torch.isin(token, self.stop)
            if self.ends:
                ended_B |= self.ends.met(ids_BT, length_B)
            if bool(ended_B.all()):
                break
            read = token[:, None]
        made = [self._sample(*parts) for parts in zip(ids_BT.tolist(), *logps_BT.tolist(), length_B.tolist(), ended_B.tolist())]
        return [(index, made[k * self.n:(k + 1) * self.n]) for k, index in enumerate(batch)]

    def _uniform(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "sample", index))
        return torch.rand(self.n, self.max_tokens, generator=generator, dtype=torch.float64)

    def _sample(self, ids: list[int], sampled: list[float], model: list[float], length: int, ended: bool) -> Sample:
        tokens = tuple(ids[:length])
        return Sample(tokens, self.engine.template.decode(tokens), tuple(sampled[:length]), tuple(model[:length]), ended)
