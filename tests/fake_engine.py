"""A second engine, trivial and of another kind: a table of bigram logits on the toy's characters, without layers, adapters or
packed rows. It has nothing but what core/protocols.py asks for, and stands behind `Only`, which raises at any other attribute.
"""

from __future__ import annotations

import math
from typing import get_type_hints

import torch

from harken.core import protocols
from harken.core.protocols import Outputs, Sample
from harken.core.seeds import derive_seed
from harken.engines.toy import toy_tokenizer
from harken.text.template import Template

RATE = 100.0
"""A table learns by larger steps than a network."""


def members(protocol):
    """The names that a protocol promises, those of the protocols it extends included."""
    return {n for cls in protocol.__mro__ if cls.__module__ == protocols.__name__
            for n in {*vars(cls), *vars(cls).get("__annotations__", {})} if not n.startswith("_")}


class Only:
    """What `protocol` promises of `inner`, and nothing else."""

    def __init__(self, inner, protocol):
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_names", members(protocol))

    def __getattr__(self, name):
        if name not in self._names:
            raise AttributeError(f"{name} is not in the protocol")
        return getattr(self._inner, name)

    def __setattr__(self, name, value):
        if name not in self._names:
            raise AttributeError(f"{name} is not in the protocol")
        setattr(self._inner, name, value)


class Table:
    """log p(next | last token), a value and a score of each last token; plain gradient descent."""

    compute = torch.float32

    def __init__(self, *, ties=False, seed=0):
        self.template, self.lineage, self.shift = Template(toy_tokenizer()), {"weights": ["table"]}, 0.0
        self.vocabulary = self.width = len(self.template.tokenizer)
        drawn = torch.Generator().manual_seed(derive_seed(seed, "table"))
        self.parts = {"logits": torch.randn(self.vocabulary, self.vocabulary, generator=drawn) * 0.1,
                      "head": torch.zeros(self.vocabulary)}
        self.reference = self.parts["logits"].clone()
        self.scalars = {}
        if ties:
            self.add_scalars({"tie": 0.0}, 1.0)
        for parameter in self.parts.values():
            parameter.requires_grad_(True)

    def add_scalars(self, values, ratio):
        for name, value in values.items():
            self.scalars[name] = self.parts[f"scalar.{name}"] = torch.tensor(value, requires_grad=True)

    def whole(self, parts):
        return dict(parts)

    def cut(self, whole):
        return dict(whole)

    def forward(self, trees, temperature=1.0, logits=None):
        """The outputs of an objective; each token is predicted from the one before it."""
        logits = self.parts["logits"] if logits is None else logits
        pairs = [(last, token) for t in trees for c in t.completions for last, token in zip((t.prompt[-1], *c), c)]
        last, token = torch.tensor(pairs).T
        logps = (logits[last] / temperature).log_softmax(-1)
        ends = torch.nn.functional.one_hot(torch.tensor([c[-2] if len(c) > 1 else c[-1] for t in trees for c in t.completions]),
                                           self.width).float()
        return Outputs(logps.gather(1, token[:, None])[:, 0], -(logps.exp() * logps).sum(-1).detach(), ends @ self.parts["head"],
                       self.parts["head"][last], ends, [len(c) for t in trees for c in t.completions],
                       [len(t.completions) for t in trees])

    def forward_backward(self, data, objective, *, temperature=1.0, entropy=False, logps=True):
        inputs = {n: torch.tensor([x for d in data for x in d.inputs[n]], dtype=torch.float32) for n in data[0].inputs}
        loss, metrics = objective(self.forward([d.tree for d in data], temperature), inputs)
        loss.backward()
        return {n: float(v) for n, v in {"loss": loss.detach(), **metrics}.items()}

    def step(self, learning_rate):
        grads = {n: p.grad for n, p in self.parts.items() if p.grad is not None}
        with torch.no_grad():
            for name, grad in grads.items():
                self.parts[name] -= RATE * learning_rate * grad
                self.parts[name].grad = None
        return {"grad_norm": math.sqrt(sum(float((g**2).sum()) for g in grads.values())), "learning_rate": learning_rate}

    @torch.no_grad()
    def logprobs(self, trees, *, temperature=1.0, reference=False):
        out = self.forward(trees, temperature, self.reference if reference else None)
        flat = iter(out.logps_N.split(out.lengths))
        return [[next(flat) for _ in t.completions] for t in trees]

    @torch.no_grad()
    def values(self, trees):
        out = self.forward(trees)
        return list(out.values_N.split([sum(map(len, t.completions)) for t in trees]))

    @torch.no_grad()
    def scores(self, trees):
        return [x + self.shift for x in self.forward(trees).scores_C.split([len(t.completions) for t in trees])]

    @torch.no_grad()
    def group_scores(self, trees):
        out = self.forward(trees)
        own = out.ends_CD @ self.scalars["group_head"].T + self.scalars["group_shift"]
        return list((out.scores_C[:, None] + self.shift + own).split(out.sizes))

    def save_state(self, folder):
        torch.save(dict(self.parts), folder / "table.pt")

    def load_state(self, folder):
        with torch.no_grad():
            for name, value in torch.load(folder / "table.pt", weights_only=True).items():
                self.parts[name].copy_(value)

    def save(self, folder, *, base=""):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(dict(self.parts), folder / "table.pt")

    def beside(self, model, template=""):
        return Only(Table(seed=1), protocols.Learner)

    def critic(self, model, *, lora_rank, seed):
        return Only(Table(seed=seed), protocols.ValueLearner)


class TableSampler:
    """Samples from a copy of the learner's weights, as a server would: without `update` it speaks with old ones."""

    def __init__(self, learner):
        self.learner, self.lineage, self.version, self.awake = learner, learner.lineage, 0, True
        self.copy = learner.parts["logits"].detach().clone()

    def seen(self, prompt):
        return prompt

    def of(self, learner):
        return Only(TableSampler(learner), protocols.Rollouts)

    def wake(self):
        self.awake = True

    def sleep(self):
        self.awake = False

    def update(self, version):
        assert self.awake
        self.version, self.copy = version, self.learner.parts["logits"].detach().clone()

    def sample(self, prompts, n, **options):
        return self.sample_ids([self.learner.template.prompt_ids(p) for p in prompts], n, **options)

    def sample_ids(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0):
        assert self.awake
        return [[self._one(prompt, max_tokens, temperature, torch.Generator().manual_seed(derive_seed(seed, i, g)))
                 for g in range(n)] for i, prompt in enumerate(prompts)]

    def _one(self, prompt, max_tokens, temperature, drawn):
        ids, logps, model = [], [], []
        template = self.learner.template
        while len(ids) < max_tokens and not (ids and ids[-1] in template.stop_ids):
            row = self.copy[([*prompt, *ids])[-1]]
            scaled = (row / temperature).log_softmax(-1)
            ids.append(int(torch.multinomial(scaled.exp(), 1, generator=drawn)))
            logps.append(float(scaled[ids[-1]]))
            model.append(float(row.log_softmax(-1)[ids[-1]]))
        return Sample(tuple(ids), template.decode(ids), tuple(logps), tuple(model), ids[-1] in template.stop_ids, self.version)


def engine(module, config):
    """(learner, sampler) of a method, behind its protocols as `train` names them."""
    hints = get_type_hints(module.train)
    table = Table(ties=getattr(config, "ties", "drop") != "drop", seed=config.seed)
    promised = hints["sampler"] if isinstance(hints["sampler"], type) else protocols.Rollouts
    return Only(table, hints["learner"]), Only(TableSampler(table), promised)
