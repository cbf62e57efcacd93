"""A learnt scalar reward: score differences are log-odds of preference (Bradley and Terry 1952).

It carries the tokenizer and template it was trained with (P15): a policy of any family hands it text.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.protocols import Tree
from harken.core.records import Prompt
from harken.engines.base import Base
from harken.engines.form import say_once
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.precision import resolve_dtype
from harken.labelers.groups.aggregate import Aggregate, place_of


class BradleyTerryReward:
    """Scores completions with a trained reward model; demonstrations average 0 where it was trained so."""

    def __init__(self, engine: Engine, max_length: int = 1024, groups: Mapping[str, float] | None = None,
                 tail: Sequence[int] | None = None) -> None:
        assert engine.head_kind == "reward"
        self.tail = tail
        self.engine, self.max_length = engine, max_length
        self.groups = dict(groups or {})
        self.aggregate: Aggregate | None = None

    def use_groups(self, aggregate: Aggregate) -> None:
        """Scores are one of every group's from now on. Raises `UserError` without groups, or where the one named is none."""
        if not self.groups:
            raise UserError(f"--aggregate {aggregate} needs a reward model with groups, and this one has none.",
                            "Train one: harken train reward_model --labelers groups --group-by TAG; or leave --aggregate out.")
        if aggregate.kind == "group":
            place_of(aggregate.group, list(self.groups))
        self.aggregate = aggregate

    def _scores(self, trees: Sequence[Tree]) -> list[list[float]]:
        if self.aggregate is None:
            return [s.tolist() for s in self.engine.scores(trees)]
        names, shares = list(self.groups), list(self.groups.values())
        return [self.aggregate(table.double().numpy().T, names, shares).tolist() for table in self.engine.group_scores(trees)]

    @classmethod
    def open(cls, run: str | Path, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048,
             on: Base | None = None) -> BradleyTerryReward:
        """From a finished `harken train reward_model` run, on the base of a policy where it is the run's own; or from a folder
        with a sequence-classification model of one label, whose score is read where the chat template ends.

        Raises `UserError` if `run` is not one.
        """
        path = Path(run)
        if not path.is_dir():
            raise UserError(f"There is no reward model at {path}.",
                            "Train one with harken train reward_model, or use gold (the sandbox's).")
        loaded = load(str(path), dtype=resolve_dtype(dtype), on=on)
        if loaded.head is None:
            raise UserError(f"{path} is a run without a reward head.", "Give a run of harken train reward_model.")
        engine = Engine(loaded, dtype=dtype, head="reward", train=False, tokens_per_micro_batch=tokens_per_micro_batch)
        if loaded.base is None:
            say_once(engine.note)
        if loaded.classifier:
            return cls(engine, engine.context or sys.maxsize, tail=loaded.tail)
        groups = read_json(path / "result.json").get("groups") or {}
        shares = {name: g["rankings"] for name, g in groups.items()}
        return cls(engine, int(read_json(path / "config.json").get("max_length", 1024)), shares)

    def _tree(self, prompt: Prompt, texts: Sequence[str]) -> Tree:
        """As the model was trained to read it. transformers reads the score before any padding at the end."""
        tree = self.engine.template.tree(prompt, texts)
        if self.tail is None:
            return tree
        pad = getattr(self.engine.model.config, "pad_token_id", None)
        whole = [[*c, *self.tail] for c in tree.completions]
        for ids in whole:
            while len(ids) > 1 and ids[-1] == pad:
                ids.pop()
        return Tree(tree.prompt, tuple(map(tuple, whole)))

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]; None for a completion that does not fit the model's length (never 0)."""
        result: list[list[float | None]] = [[None] * len(c) for c in completions]
        trees, where = [], []
        for p, (prompt, texts) in enumerate(zip(prompts, completions)):
            tree = self._tree(prompt, texts)
            fits = [g for g, ids in enumerate(tree.completions) if len(tree.prompt) + len(ids) <= self.max_length]
            if fits:
                trees.append(Tree(tree.prompt, tuple(tree.completions[g] for g in fits)))
                where.append((p, fits))
        for (p, fits), scores in zip(where, self._scores(trees)):
            for g, score in zip(fits, scores):
                result[p][g] = score
        return result
