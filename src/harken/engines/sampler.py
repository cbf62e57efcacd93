"""Sampling: each prompt prefilled once for its completions, finished sequences retired at once.

Randomness: sequence b's t-th draw is the b-th number of the t-th uniform vector of the seed, so
what one sequence does never changes another's, whichever process samples it (P23).
Shape suffixes: B live sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harken.core import processes
from harken.core.errors import UserError
from harken.core.protocols import Sample, Tree
from harken.core.records import Prompt
from harken.core.run import derive_seed
from harken.engines.attention import Cache, row_of, using
from harken.engines.decoder import Decoder
from harken.engines.distributed import collect
from harken.engines.hf import Engine
from harken.engines.profile import computed_row, computed_token, timed


class HFSampler:
    """Samples from an engine's current weights; nothing is cached between calls (P19)."""

    def __init__(self, engine: Engine, max_batch: int = 96) -> None:
        self.engine, self.max_batch, self.lineage = engine, max_batch, engine.lineage

    def seen(self, prompt: Prompt) -> Prompt:
        """What the model is given for a prompt: the prompt itself."""
        return prompt

    def sample(self, prompts: Sequence[Prompt], n: int, *, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0,
               seed: int = 0, advance: Callable[[int], None] | None = None) -> list[list[Sample]]:
        """`n` completions of each prompt: [P][n]. Temperature 0 is greedy. `advance` is told of finished prompts."""
        return self.sample_ids([self.engine.template.prompt_ids(p) for p in prompts], n, max_tokens=max_tokens,
                               temperature=temperature, top_p=top_p, seed=seed, advance=advance)

    @torch.no_grad()
    def sample_ids(self, prompts: Sequence[tuple[int, ...]], n: int, *, max_tokens: int, temperature: float = 1.0,
                   top_p: float = 1.0, seed: int = 0, min_tokens: int = 0,
                   advance: Callable[[int], None] | None = None) -> list[list[Sample]]:
        if temperature < 0 or not 0 < top_p <= 1 or max_tokens < 1 or n < 1:
            raise UserError(f"Sampling needs temperature >= 0, 0 < top-p <= 1, at least 1 token and 1 sample; found "
                            f"temperature {temperature}, top-p {top_p}, {max_tokens} tokens, n {n}.")
        limit = getattr(self.engine.model.config, "max_position_embeddings", None)
        if limit:
            for i, prompt in enumerate(prompts):
                if len(prompt) + max_tokens > limit:
                    raise UserError(f"Prompt {i + 1} has {len(prompt)} tokens; with {max_tokens} new ones it exceeds the "
                                    f"model's context of {limit}.", "Shorten the prompt or lower --max-tokens.")
        results: dict[int, list[Sample]] = {}
        group = processes.group()
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))  # alike lengths share a batch
        size = max(1, self.max_batch // n)
        with self.engine.gathered():
            decoder = Decoder.of(self.engine)
            for at in range(0, len(order), size):
                chunk = order[at:at + size]
                mine = range(group.rank, len(chunk), group.size)
                drawn = [k * n + g for k in mine for g in range(n)]
                with self.engine.precision():  # held open: autocast keeps its casts of the adapters until it closes
                    found = self._batch([prompts[chunk[k]] for k in mine], n, max_tokens, temperature, top_p, min_tokens,
                                        derive_seed(seed, "sample", at), drawn, len(chunk) * n, decoder) if mine else []
                results |= {chunk[k]: samples for k, samples in zip(mine, found)}
                if advance:
                    advance(len(chunk))
        return collect(results, len(prompts))

    @timed("decode")
    def _batch(self, prompts: list[tuple[int, ...]], n: int, max_tokens: int, temperature: float, top_p: float,
               min_tokens: int, seed: int, drawn: list[int], of: int, decoder: Decoder | None) -> list[list[Sample]]:
        """Sequence b takes number `drawn[b]` of the `of` numbers drawn for each token."""
        engine = self.engine
        device, total = engine.device, len(prompts) * n
        number = torch.tensor(drawn, device=device)
        generator = torch.Generator(device).manual_seed(seed)
        cache = Cache([len(p) for p in prompts], n, max_tokens, device)
        logits = self._prefill(prompts, cache).repeat_interleave(n, 0)
        position = torch.tensor([len(p) for p in prompts], device=device).repeat_interleave(n)
        stop = torch.tensor(engine.template.stop_ids, device=device)
        ids = torch.zeros(total, max_tokens, dtype=torch.long, device=device)
        logps = torch.zeros(2, total, max_tokens, device=device)
        length = torch.full((total,), max_tokens, device=device)
        finished = torch.zeros(total, dtype=torch.bool, device=device)
        live = torch.arange(total, device=device)
        for t in range(max_tokens):
            if t < min_tokens:
                logits[:, stop] = -torch.inf
            uniform = torch.rand(of, generator=generator, device=device, dtype=torch.float64)[number[live]]
            token, sampled, model = draw(logits, uniform, temperature, top_p)
            ids[live, t], logps[0, live, t], logps[1, live, t] = token, sampled, model
            ended = torch.isin(token, stop)
            finished[live[ended]] = True
            length[live[ended]] = t + 1
            if t + 1 == max_tokens or bool(ended.all()):
                break
            if bool(ended.any()):
                alive = (~ended).nonzero()[:, 0]
                live, token, position = live[alive], token[alive], position[alive]
                cache.keep(alive)
            logits = self._decode(token, position, cache, decoder)
            position = position + 1
            cache.used += 1
        return self._collect(ids, logps, length, finished, n)

    @timed("prefill")
    def _prefill(self, prompts: list[tuple[int, ...]], cache: Cache) -> Tensor:
        """Next-token logits [P, V] of every prompt, computed once and packed."""
        engine = self.engine
        row = row_of([Tree(p, ((0,),)) for p in prompts], engine.device, keep_last=False)
        with using(row, cache):
            hidden = engine.model.base_model(input_ids=row.ids, position_ids=row.positions, use_cache=False).last_hidden_state
        computed_row(engine.model, row, len(row.sources))
        return self._logits(hidden[0, row.sources])

    def _decode(self, token_B: Tensor, position_B: Tensor, cache: Cache, decoder: Decoder | None) -> Tensor:
        engine = self.engine
        computed_token(engine.model, len(token_B), cache)
        if decoder is not None:
            hidden = decoder.step(token_B, position_B, cache)
            with torch.autocast(hidden.device.type, enabled=False):
                return decoder.logits(hidden.float())
        with using(None, cache):
            hidden = engine.model.base_model(input_ids=token_B[:, None], position_ids=position_B[:, None],
                                             use_cache=False).last_hidden_state
        return self._logits(hidden[:, 0])

    def _logits(self, hidden: Tensor) -> Tensor:
        weight, bias = self.engine.unembedding()
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()

    def _collect(self, ids: Tensor, logps: Tensor, length: Tensor, finished: Tensor, n: int) -> list[list[Sample]]:
        flat = []
        for b, (count, done) in enumerate(zip(length.tolist(), finished.tolist())):
            tokens = tuple(ids[b, :count].tolist())
            flat.append(Sample(tokens, self.engine.template.decode(tokens), tuple(logps[0, b, :count].tolist()),
                               tuple(logps[1, b, :count].tolist()), done))
        return [flat[i:i + n] for i in range(0, len(flat), n)]


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """(token, its log-prob under the sampling distribution, its log-prob under the model), each [B].

    Sampling inverts the cumulative distribution; temperature 0 takes the best token with log-prob 0.
    Top-p keeps the smallest set of most likely tokens whose mass reaches `top_p`.
    """
    model = logits_BV.logsumexp(-1)
    if temperature == 0:
        token = logits_BV.argmax(-1)
        return token, torch.zeros_like(model), logits_BV.gather(-1, token[:, None])[:, 0] - model
    scaled = logits_BV if temperature == 1 else logits_BV / temperature
    if top_p < 1:
        ordered, index = scaled.softmax(-1).sort(-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        scaled = scaled.masked_fill(outside.scatter(-1, index, outside), -torch.inf)
    normal = model if scaled is logits_BV else scaled.logsumexp(-1)
    token = _invert((scaled - normal[:, None]).exp_(), uniform_B)
    sampled = scaled.gather(-1, token)[:, 0] - normal
    return token[:, 0], sampled, logits_BV.gather(-1, token)[:, 0] - model


def _invert(probs_BV: Tensor, uniform_B: Tensor, width: int = 256) -> Tensor:
    """The token [B, 1] at which each row's cumulative probability passes uniform · total.

    In two levels, blocks of tokens and then tokens of one block: a cumulative sum over the whole
    vocabulary would cost more than the model's last layer.
    """
    B, V = probs_BV.shape
    padded = torch.nn.functional.pad(probs_BV, (0, -V % width)).view(B, -1, width)
    blocks = padded.sum(-1, dtype=torch.float64).cumsum(-1)
    at = uniform_B[:, None] * blocks[:, -1:]
    block = torch.searchsorted(blocks, at, right=True).clamp_(max=blocks.shape[-1] - 1)
    inside = padded[torch.arange(B, device=block.device), block[:, 0]].double().cumsum(-1)
    rest = at - torch.where(block > 0, blocks.gather(-1, (block - 1).clamp_(min=0)), 0.0)
    # Rounding may put `rest` past the block's own sum: then its last token with any probability is meant.
    last = (inside < inside[:, -1:]).sum(-1, keepdim=True)
    return block * width + torch.minimum(torch.searchsorted(inside, rest, right=True), last)
