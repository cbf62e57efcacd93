"""Passes of a model that is not changed: hidden states, log-probs, scores and values of shared-prefix rows.

    engine.logprobs(trees)                   # [tree][completion] -> [T]; `Engine` (hf.py) adds learning

Shape suffixes: N completion tokens, C completions, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harken.core import processes
from harken.core.errors import UserError
from harken.core.progress import progress
from harken.core.protocols import Outputs, Tree
from harken.engines import distributed, gathers, plain, sharding
from harken.engines.attention import Row, row_of, using
from harken.engines.base import Base
from harken.engines.form import Form, body_of, context_of, float_logits, need_rows, rows_of, state_of
from harken.engines.logprobs import logprobs_and_tops, token_logprobs
from harken.engines.profile import computed_row, timed
from harken.text.packing import pack, shares

IDLE = Tree((0,), ((0,),))


class Passes:
    """What an engine computes with; `Engine` sets it."""

    shares_starts = True
    """`logprobs` knows `share`."""
    model: Any
    base: Base
    form: Form
    device: torch.device
    compute: torch.dtype
    budget: int
    read: tuple[str, ...]
    names: tuple[str, ...]
    layers: list[Any]
    head: nn.Linear | None
    head_kind: Literal["reward", "value"] | None
    scalars: nn.ParameterDict
    shift: float
    reference: Passes | None
    ends: list[nn.Parameter]

    @property
    def vocabulary(self) -> int:
        """Tokens that the model gives a probability."""
        return rows_of(self.model)

    @property
    def context(self) -> int:
        """The most tokens of a text; 0 where nothing limits them."""
        return min((n for n in (context_of(self.model), 0 if self.form.alone else self.form.longest) if n), default=0)

    @property
    def spoken(self) -> int:
        """The most tokens of a text that is sampled beside others of any length; 0 where nothing limits them."""
        return min((n for n in (self.context, self.form.longest) if n), default=0)

    def hidden(self, row: Row) -> Tensor:
        """Final hidden states of a row, [R, D]."""
        with using(row), self.precision():
            return state_of(body_of(self.model)(input_ids=row.ids, position_ids=row.positions, use_cache=False))[0]

    def precision(self) -> Any:
        """Its own adapters and precision, for the passes inside."""
        self.base.use(self.names)
        enabled = self.compute is not torch.float32
        return torch.autocast(self.device.type, self.compute) if enabled else nullcontext()

    def unembedding(self, *, split: bool = False) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the last layer, whole, as they are held; products with them are in float32 (form.py). With `split` a
        frozen weight that is split stays so."""
        head = self.model.get_output_embeddings()
        return head.weight if split and not head.weight.requires_grad else gathers.whole(head.weight), getattr(head, "bias", None)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The last layer on final hidden states, float32 [N, V]; of packed rows."""
        return float_logits(hidden_ND, *self.unembedding(), self.form)

    def last_logits(self, tree: Tree, backs: Sequence[int]) -> list[Tensor]:
        """For each of `backs` the logits [C, V] after all but so many of each completion's last tokens."""
        if not self.form.plain:
            packed = [row_of([t], self.device, keep_last=True) for t in (_apart([tree]) if self._long([tree]) else [tree])]
            parts = [(self.hidden(row), row.ends) for row in packed]
            return [torch.cat([self.logits(hidden[ends - back]) for hidden, ends in parts]) for back in backs]
        rows = [torch.tensor([[*tree.prompt, *c]], device=self.device) for c in tree.completions]
        with self.precision():
            all_logits = [plain.whole(self.model, ids)[1][0].float() for ids in rows]
        return [torch.stack([logits[-1 - back] for logits in all_logits]) for back in backs]

    def _plain(self, trees: Sequence[Tree], temperature: float, entropy: bool, logps: bool) -> Outputs:
        """What `forward` gives, a sequence a row."""
        found_N, entropy_N, before_ND, ends_CD = plain.forward(self, trees, temperature, entropy, logps)
        scores = values = ends = None
        if self.head is not None and self.head_kind == "reward":
            ends = ends_CD.float()
            scores = self.head(ends)[:, 0]
        elif self.head is not None:
            values = self.head(before_ND.float())[:, 0]
        return Outputs(found_N, entropy_N, scores, values, ends, [len(c) for t in trees for c in t.completions],
                       [len(t.completions) for t in trees])

    def _allowed(self, trees: Sequence[Tree]) -> None:
        """Raises `UserError` for tokens and lengths that would not be computed exactly."""
        for tree in trees:
            need_rows(self.model, tree.prompt + sum(tree.completions, ()), "A text")
        if not self.form.alone and (length := self._long(trees)):
            raise UserError(f"A text has {length} tokens; past {self.form.longest} this model's rotary factors follow what was "
                            "computed before it.", f"Lower --max-length to {self.form.longest}.")

    def _long(self, trees: Sequence[Tree]) -> int:
        """The length of the longest text, where it is one whose rotary factors would be its neighbours' in a row; else 0."""
        longest = max(len(t.prompt) + max(map(len, t.completions)) for t in trees)
        return longest if 0 < self.form.longest < longest else 0

    def forward(self, trees: Sequence[Tree], *, temperature: float = 1.0, entropy: bool = False, logps: bool = True,
                share: bool = False) -> Outputs:
        """One packed row, or on the plain path a row a sequence. Log-probs are skipped for a model that only scores. With
        `share` what all prompts of the row begin with is computed once."""
        self._allowed(trees)
        if self.form.plain:
            return self._plain(trees, temperature, entropy, logps)
        if self._long(trees):
            return _joined([self._packed([t], temperature, entropy, logps, keep_last=True) for t in _apart(trees)], trees)
        return self._packed(trees, temperature, entropy, logps, keep_last=self.head_kind == "reward", share=share)

    def _packed(self, trees: Sequence[Tree], temperature: float, entropy: bool, logps: bool, keep_last: bool,
                share: bool = False) -> Outputs:
        row = row_of(trees, self.device, keep_last=keep_last, share=share)
        hidden = self.hidden(row)
        computed_row(self, row, len(row.sources) if logps else 0)
        none = hidden.new_zeros(0)
        scores = values = ends = None
        # Not hidden[…]: its backward pass adds a prompt's shares from several threads, in the order in which they come, and the
        # last bit would depend on what else the machine does. index_select's adds them in theirs.
        if self.head is not None and self.head_kind == "reward":
            ends = hidden.index_select(0, row.ends).float()
            scores = self.head(ends)[:, 0]
        elif self.head is not None:
            values = self.head(hidden.index_select(0, row.sources).float())[:, 0]
        read = (none, none)
        if logps:
            read = token_logprobs(hidden.index_select(0, row.sources), *self.unembedding(split=True), row.targets, temperature,
                                  with_entropy=entropy, scale=self.form.scale, cap=self.form.cap)
        return Outputs(*read, scores, values, ends, row.lengths, row.sizes)

    def rows(self, trees: Sequence[Tree]) -> list[list[int]]:
        """The rows of this process: indices of `trees`. Split layers need as many from all: empty ones make up for it."""
        sizes, group = [self._size(t) for t in trees], processes.group()
        packed = [[[share[i] for i in row] for row in pack([sizes[i] for i in share], self.budget)]
                  for share in shares(sizes, group.size)]
        mine = packed[group.rank]
        return mine + [[]] * (max(map(len, packed)) - len(mine)) if self.layers else mine

    def _size(self, tree: Tree) -> int:
        """Tokens that a tree costs."""
        return sum(len(tree.prompt) + len(c) for c in tree.completions) if self.form.plain else tree.size

    def idle(self, *, logps: bool) -> Tensor:
        """A pass that learns nothing and says nothing, with the last layer or without as those of the others are; its loss, 0."""
        row = row_of([IDLE], self.device, keep_last=False)
        hidden = self.hidden(row)
        loss = hidden.sum() * 0.0
        if logps and self.ends:
            loss = loss + token_logprobs(hidden[row.sources], *self.unembedding(split=True), row.targets)[0].sum() * 0.0
        return loss

    def gathered(self) -> AbstractContextManager[None]:
        """The model whole, for passes that each process makes at its own pace."""
        return sharding.gathered(self.layers, self.ends)

    def logprobs(self, trees: Sequence[Tree], *, temperature: float = 1.0, reference: bool = False,
                 share: bool = False) -> list[list[Tensor]]:
        """log p of every completion token: [tree][completion] -> [T], float32, of the policy or the reference. With `share`
        what all trees of a row begin with (examples, a system prompt) is computed once: equal but for rounding."""
        if reference and self.reference is not None:
            with timed("reference"):
                return self.reference.logprobs(trees, temperature=temperature, share=share)

        def split(out: Outputs) -> list[list[Tensor]]:
            parts = iter(out.logps_N.split(out.lengths))
            return [[next(parts) for _ in range(size)] for size in out.sizes]

        with timed("reference" if reference else "forward"), self.adapters_off() if reference else nullcontext():
            return self._read(trees, "log-probs", split, temperature=temperature, share=share)

    def greedy_logprobs(self, trees: Sequence[Tree]) -> list[list[tuple[Tensor, Tensor]]]:
        """log p of every completion token, and of the likeliest token in its place: [tree][completion] -> ([T], [T]). Both are of
        one pass, so that a token is the greedy choice exactly where they are equal."""
        if self.form.plain:
            raise UserError("This architecture is computed a sequence at a time, without the likeliest tokens.",
                            "Use lm-eval's own hf model for it.")

        def split(trees: Sequence[Tree]) -> list[list[tuple[Tensor, Tensor]]]:
            self._allowed(trees)
            row = row_of(trees, self.device, keep_last=False, share=True)
            hidden = self.hidden(row)[row.sources]
            read = logprobs_and_tops(hidden, *self.unembedding(), row.targets, scale=self.form.scale, cap=self.form.cap)
            parts = zip(*(x.cpu().split(row.lengths) for x in read))
            return [[next(parts) for _ in range(size)] for size in row.sizes]

        found: dict[int, list[tuple[Tensor, Tensor]]] = {}
        with torch.no_grad(), timed("forward"):
            for rows in self.rows(trees):
                if rows:
                    found |= zip(rows, split([trees[i] for i in rows]))
                else:
                    self.idle(logps=True)
        return [found[i] for i in range(len(trees))]

    def scores(self, trees: Sequence[Tree]) -> list[Tensor]:
        """The reward head's score of every completion, shift included: [tree] -> [K]."""
        return self._scored(trees, lambda out: out.scores_C + self.shift)

    def group_scores(self, trees: Sequence[Tree]) -> list[Tensor]:
        """Every group's score, of a model trained with --labelers groups: [tree] -> [K, G]."""
        head, shift = self.scalars["group_head"], self.scalars["group_shift"]
        return self._scored(trees, lambda out: out.scores_C[:, None] + self.shift + out.ends_CD @ head.T + shift)

    @timed("scoring")
    def _scored(self, trees: Sequence[Tree], score: Callable[[Any], Tensor]) -> list[Tensor]:
        assert self.head_kind == "reward", "this engine has no reward head"
        parts = self._read(trees, "scoring", lambda out: [[part] for part in score(out).cpu().split(out.sizes)], logps=False)
        return [part for (part,) in parts]

    @timed("values")
    def values(self, trees: Sequence[Tree]) -> list[Tensor]:
        """The value head's number before every completion token: [tree] -> [N], its completions one after another."""
        def split(out: Outputs) -> list[list[Tensor]]:
            assert out.values_N is not None, "this engine has no value head"
            lengths = iter(out.lengths)
            return [[part] for part in out.values_N.cpu().split([sum(islice(lengths, size)) for size in out.sizes])]

        return [part for (part,) in self._read(trees, "values", split, logps=False)]

    @torch.no_grad()
    def _read(self, trees: Sequence[Tree], label: str, split: Callable[[Outputs], list[list[Tensor]]],
              **options: Any) -> list[list[Tensor]]:
        """What `split` finds for each tree of a row, for all trees: each process reads its share."""
        results: dict[int, list[Tensor]] = {}
        rows = self.rows(trees)
        with progress(label, len(rows)) as advance:
            for row in rows:
                if row:
                    results |= zip(row, split(self.forward([trees[i] for i in row], **options)))
                else:
                    self.idle(logps=bool(options.get("logps", True)))
                advance(1)
        return distributed.collect_tensors(results, len(trees))

    @contextmanager
    def adapters_off(self) -> Iterator[None]:
        """The reference model: this one without the adapter it trains."""
        assert self.names != self.read, "without adapters the reference is a second engine"
        own, self.names = self.names, self.read
        try:
            yield
        finally:
            self.names = own


def _apart(trees: Sequence[Tree]) -> list[Tree]:
    """Every text of the trees by itself."""
    return [Tree(t.prompt, (c,)) for t in trees for c in t.completions]


def _joined(parts: Sequence[Outputs], trees: Sequence[Tree]) -> Outputs:
    """What one row would have given, from a row for every text."""
    def joined(name: str) -> Any:
        tensors = [getattr(part, name) for part in parts]
        return None if tensors[0] is None else torch.cat(tensors)

    tensors = {name: joined(name) for name in ("logps_N", "entropy_N", "scores_C", "values_N", "ends_CD")}
    return Outputs(**tensors, lengths=[n for part in parts for n in part.lengths], sizes=[len(t.completions) for t in trees])
