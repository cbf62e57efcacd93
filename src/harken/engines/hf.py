"""Any causal language model of transformers, as a learner: one forward pass over shared-prefix rows.

    engine = Engine(load("smollm2"), lora_rank=16)
    metrics = engine.forward_backward(data, objective)      # adds gradients, micro-batch by micro-batch
    metrics |= engine.step(learning_rate)

An objective is called as `objective(outputs, inputs)` and returns `(loss, metrics)`. It must be a sum
whose weights were fixed before the first micro-batch (P7): then the packing changes nothing but rounding.
Shape suffixes: N completion tokens, C completions, D hidden width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harken.core import processes
from harken.core.errors import UserError
from harken.core.progress import progress
from harken.core.protocols import Datum, Objective, Outputs, Tree
from harken.core.seeds import derive_seed
from harken.engines import cpu, distributed, plain, recompute, sharding, stacked
from harken.engines.attention import Row, row_of, using
from harken.engines.base import OWN, Base
from harken.engines.form import body_of, cast, context_of, float_logits, need_rows, rows_of, state_of, text_config
from harken.engines.loading import Loaded, load, save_with, set_stops
from harken.engines.logprobs import logprobs_and_tops, token_logprobs
from harken.engines.profile import computed_row, timed
from harken.text.packing import pack, shares
from harken.text.template import read_template

IDLE = Tree((0,), ((0,),))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_dtype(name: str) -> torch.dtype:
    """float32, bfloat16, or auto: bfloat16 where the hardware multiplies it."""
    if name == "auto":
        native = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if native and _has_bf16_instructions() else torch.float32
    if name not in DTYPES:
        raise UserError(f"--dtype {name!r} is unknown.", "Use float32, bfloat16 or auto.")
    return DTYPES[name]


def _has_bf16_instructions() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    try:
        return any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16"))
    except OSError:
        return False


class Engine:
    """A model on its device, with what it takes to train it.

    `lora_rank` 0 trains every parameter; otherwise an adapter on all linear layers (peft), and the model without it
    is the reference (without adapters set `reference`, a second engine). What was loaded onto another engine's `base`
    shares its weights; `name` then tells its own adapter from the others. `head` adds a scalar
    head: "reward" reads each completion's last token, "value" the state before each token. `scalars` are
    further trained numbers an objective uses (a tie parameter), by name and initial value. With `recompute_layers` the backward
    pass computes each layer anew instead of keeping what is inside it (recompute.py).

    Of several processes each works on its share of the trees, and all see every result; with `shard` each keeps its
    part of the layers (sharding.py). Then all must call the same methods, in the same order.
    """

    shares_starts = True
    """`logprobs` knows `share`."""

    def __init__(self, loaded: Loaded, *, lora_rank: int = 0, dtype: str = "float32",
                 head: Literal["reward", "value"] | None = None, scalars: Mapping[str, float] | None = None,
                 tokens_per_micro_batch: int = 2048, weight_decay: float = 0.0, max_grad_norm: float = 1.0,
                 seed: int = 0, train: bool = True, shard: bool = False, recompute_layers: bool = False, name: str = OWN) -> None:
        cpu.tune()
        if loaded.classifier and (head is None or (train and head == "reward")):
            raise UserError(f"{loaded.name} is a reward model of others: it scores, and has no words to learn or say.",
                            "Give it as --reward.")
        self.template, self.lineage, self.shift = loaded.template, loaded.lineage, loaded.shift
        self.model, self.device = loaded.model, next(loaded.model.parameters()).device
        self.budget, self.max_grad_norm, self.head_kind = tokens_per_micro_batch, max_grad_norm, head
        self.compute = resolve_dtype(dtype)
        alone = loaded.base is None
        self.base = loaded.base or Base(loaded.model, loaded.template, loaded.lineage, loaded.name, loaded.form)
        self.form = self.base.form
        self.width = self.form.width or int(text_config(self.model).hidden_size)
        self.read = self.names = loaded.adapters
        self._unembedding: tuple[Tensor, Tensor | None] | None = None
        self.reference: Engine | None = None
        if alone:
            self.model.requires_grad_(False)
            if self.compute is not torch.float32 and (lora_rank or not train):
                cast(self.model, self.compute)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "init"))
            self.head = _head(loaded, self.width, self.device, head) if head else None
            if train and lora_rank:
                self.names = (*self.read, self.base.add(lora_rank, name))
                self.base.use(self.names)
        if train and not lora_rank:
            self.model.requires_grad_(True)
            self._hold_pad(shard)
        if shard and self.form.plain:
            raise UserError(f"--shard needs packed rows; this model has none, as {self.form.plain}.", "Leave --shard out.")
        self.recompute = recompute_layers
        if recompute_layers and train:
            recompute.recompute(self.model)
            cpu.give_back()
        self.layers = sharding.shard(self.model, self.device) if shard and processes.group().size > 1 else []
        if self.head is not None:
            self.head.requires_grad_(train)
        self.scalars = nn.ParameterDict({n: torch.tensor(v, device=self.device) for n, v in (scalars or {}).items()})
        if head == "reward" and not train:
            self.scalars.update({n: nn.Parameter(v.to(self.device), False) for n, v in loaded.groups.items()})
        extra = [(f"scalar.{n}", p) for n, p in self.scalars.items()]
        named = [*self.model.named_parameters(), *self._head_parameters(), *extra]
        self.trainable = {n: p for n, p in named if p.requires_grad and ("lora_" not in n or f".{name}." in n)} if train else {}
        self.parts = {n: sharding.own_part(p) for n, p in self.trainable.items()}
        self.optimizer: torch.optim.AdamW | None = None
        if train:
            # AdamW as PyTorch computes it: epsilon added after bias correction (P21); betas of InstructGPT.
            self.optimizer = torch.optim.AdamW(self.parts.values(), lr=0.0, betas=(0.9, 0.95), eps=1e-8,
                                               weight_decay=weight_decay, fused=True)

    def _hold_pad(self, shard: bool) -> None:
        """Keeps a padding token's row of zeros that both ends of a Youtu share: transformers writes the zeros anew when it loads
        that kind, so what the row had learnt would be gone."""
        if self.model.config.model_type != "youtu":
            return
        first, last = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        pad = getattr(first, "padding_idx", None)
        if pad is None or last is None or last.weight is not first.weight or bool(first.weight[pad].any()):
            return
        if shard:
            raise UserError("--shard cannot keep the padding token's row of this model at zero.", "Leave --shard out.")
        at = torch.tensor([pad], device=self.device)
        first.weight.register_hook(lambda gradient: gradient.index_fill(0, at, 0.0))

    def add_scalars(self, values: Mapping[str, Sequence[Any]], ratio: float) -> None:
        """Further trained numbers, an array a name (a value for each labeler), learnt at `ratio` times the model's rate."""
        assert self.optimizer is not None
        new = {n: nn.Parameter(torch.tensor(v, device=self.device)) for n, v in values.items()}
        self.scalars.update(new)
        for named in (self.trainable, self.parts):
            named |= {f"scalar.{n}": p for n, p in new.items()}
        self.optimizer.add_param_group({"params": list(new.values()), "ratio": ratio, "weight_decay": 0.0})

    @property
    def shared(self) -> Base | None:
        """The base that further engines may stand on: one with adapters, whole in this process."""
        return self.base if self.base.peft is not None and not self.layers else None

    @property
    def vocabulary(self) -> int:
        """Tokens that the model gives a probability."""
        return rows_of(self.model)

    def beside(self, model: str, template: str = "") -> Engine:
        """Another model on the same hardware, not to be trained, on the same base where it can stand on it. `template` names
        another chat template than its own."""
        source = read_template(template) if template else ""
        return self._another(load(model, on=self.shared, dtype=self.compute, template=source), train=False)

    def under(self, folder: Path, lineage: Mapping[str, Any], what: str) -> Engine:
        """This model under a saved adapter, not to be trained. Raises `UserError` where the adapter does not fit."""
        name = self.base.read(folder, what)
        return self._another(Loaded(self.model, self.template, dict(lineage), base=self.base, adapters=(name,)), train=False)

    def critic(self, model: str, *, lora_rank: int, seed: int) -> Engine:
        """Another model with a value head, to be trained. A reward model's head and shift come along: values start where
        scores are."""
        loaded = load(model, on=self.shared, dtype=self.compute if lora_rank else torch.float32)
        if loaded.head is not None:
            loaded.head.bias.data += loaded.shift
        return self._another(loaded, lora_rank=lora_rank, head="value", seed=seed, name="critic",
                             max_grad_norm=self.max_grad_norm)

    def copy_to_train(self, seed: int) -> Engine:
        """A learner with all weights that begins as a copy of this model."""
        loaded = Loaded(copy.deepcopy(self.model), self.template, dict(self.lineage), form=self.form)
        return Engine(loaded, seed=seed)

    def _another(self, loaded: Loaded, **options: Any) -> Engine:
        dtype = "float32" if self.compute is torch.float32 else "bfloat16"
        return Engine(loaded, dtype=dtype, tokens_per_micro_batch=self.budget, shard=bool(self.layers),
                      recompute_layers=self.recompute, **options)

    def _head_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [] if self.head is None else [(f"head.{n}", p) for n, p in self.head.named_parameters()]

    @property
    def note(self) -> str:
        """What people should know of how the model is computed; "" where there is nothing to say."""
        return self.form.note(self.base.name or "This model", self.model.config.model_type)

    @property
    def context(self) -> int:
        """The most tokens of a text; 0 where nothing limits them."""
        return min((n for n in (context_of(self.model), 0 if self.form.alone else self.form.longest) if n), default=0)

    @property
    def spoken(self) -> int:
        """The most tokens of a text that is sampled beside others of any length; 0 where nothing limits them."""
        return min((n for n in (self.context, self.form.longest) if n), default=0)

    # --- forward -----------------------------------------------------------------------------------

    def hidden(self, row: Row) -> Tensor:
        """Final hidden states of a row, [R, D]."""
        with using(row), self.precision():
            return state_of(body_of(self.model)(input_ids=row.ids, position_ids=row.positions, use_cache=False))[0]

    def precision(self) -> Any:
        """Its own adapters and precision, for the passes inside."""
        self.base.use(self.names)
        enabled = self.compute is not torch.float32
        return torch.autocast(self.device.type, self.compute) if enabled else nullcontext()

    def unembedding(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the last layer, in float32: bfloat16 logits of size 20 are off by up to 0.06, which
        alone would put sampler and trainer apart (P4)."""
        if self._unembedding is None or self.model.get_output_embeddings().weight.requires_grad:
            head = self.model.get_output_embeddings()
            bias = getattr(head, "bias", None)
            self._unembedding = head.weight.float(), None if bias is None else bias.float()
        return self._unembedding

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
        if self.head is not None and self.head_kind == "reward":
            ends = hidden[row.ends].float()
            scores = self.head(ends)[:, 0]
        elif self.head is not None:
            values = self.head(hidden[row.sources].float())[:, 0]
        read = (none, none)
        if logps:
            read = token_logprobs(hidden[row.sources], *self.unembedding(), row.targets, temperature, with_entropy=entropy,
                                   scale=self.form.scale, cap=self.form.cap)
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

    def idle(self) -> Tensor:
        """A pass that learns nothing and says nothing; its loss, 0."""
        return self.hidden(row_of([IDLE], self.device, keep_last=False)).sum() * 0.0

    def gathered(self) -> AbstractContextManager[None]:
        """Whole layers, for passes that each process makes at its own pace."""
        return sharding.gathered(self.layers)

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
                found |= zip(rows, split([trees[i] for i in rows]))
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
                    self.idle()
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

    # --- learning ----------------------------------------------------------------------------------

    def forward_backward(self, data: Sequence[Datum], objective: Objective, *, temperature: float = 1.0,
                         entropy: bool = False, logps: bool = True) -> dict[str, float]:
        """Adds the gradient of the objective over `data`; returns its metrics, summed over micro-batches and processes.

        `logps=False` spares the last layer where only the head is learnt.
        """
        totals: dict[str, float] = {}
        names = data[0].inputs.keys()
        for row in self.rows([d.tree for d in data]):
            if not row:
                self.idle().backward()
                continue
            part = [data[i] for i in row]
            with timed("forward"):
                out = self.forward([d.tree for d in part], temperature=temperature, entropy=entropy,
                                   logps=logps and self.head_kind != "reward")
                flat = {n: [x for d in part for x in d.inputs[n]] for n in names}
                inputs = {n: torch.tensor(x, dtype=torch.float32, device=self.device) for n, x in flat.items()}
                given = objective(out, inputs)
                if isinstance(given, torch.Tensor):
                    raise UserError("The objective gave a loss alone.", "It gives two things: the loss, and its metrics by name.")
                loss, metrics = given
            with timed("backward"):
                loss.backward()
            for name, value in {"loss": loss.detach(), **metrics}.items():
                totals[name] = totals.get(name, 0.0) + float(value)
        totals = distributed.total(totals)
        if not math.isfinite(totals.get("loss", 0.0)):
            raise UserError(f"The loss became {totals['loss']}.", "Lower --learning-rate; the last checkpoint is intact.")
        return totals

    @timed("optimizer")
    def step(self, learning_rate: float) -> dict[str, float]:
        """Clips, updates, clears the gradient. Returns the gradient's norm before clipping."""
        assert self.optimizer is not None
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        distributed.sum_gradients([p for p in self.trainable.values() if not sharding.is_split(p)])
        sharding.take_gradients(self.parts, self.trainable)
        norm_tensor = sharding.gradient_norm(self.parts, self.trainable)
        norm = float(norm_tensor)
        if not math.isfinite(norm):
            raise UserError(f"The gradient's norm became {norm}.", "Lower --learning-rate; the last checkpoint is intact.")
        nn.utils.clip_grads_with_norm_(self.parts.values(), limit, norm_tensor)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("ratio", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": norm, "learning_rate": learning_rate}

    # --- storage -----------------------------------------------------------------------------------

    def save_state(self, folder: Path) -> None:
        """Everything a resumed run needs: trained parameters and the optimiser, whole. The first process writes."""
        assert self.optimizer is not None
        state = {"parameters": self.whole(self.parts), "optimizer": sharding.joined_optimizer(self.optimizer, self.trainable)}
        if processes.group().rank == 0:
            torch.save(state, folder / "state.pt")

    def load_state(self, folder: Path) -> None:
        """A state that any number of processes saved."""
        assert self.optimizer is not None
        state = torch.load(folder / "state.pt", map_location=self.device, weights_only=True)
        with torch.no_grad():
            for name, part in self.cut(state["parameters"]).items():
                self.parts[name].copy_(part)
        self.optimizer.load_state_dict(sharding.cut_optimizer(state["optimizer"], self.trainable))

    def whole(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors kept in parts like the trained parameters, put together on the first process; all must call it."""
        return sharding.joined_parts(parts, self.trainable)

    def cut(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's parts of what `whole` put together."""
        return {name: sharding.cut(whole[name], parameter) for name, parameter in self.trainable.items()}

    def save(self, folder: Path, *, base: str = "") -> None:
        """The adapter (with the base's name and hash) or the full weights, the tokenizer, and the head. The first
        process writes; all must call it."""
        adapter = self.base.peft
        assert adapter is None or self.names == (OWN,), "who stands on another's base has no folder to be loaded from"
        model = adapter or self.model
        options: dict[str, Any] = {"selected_adapters": [OWN]} if adapter else {}
        if self.layers:
            state = {n: v for n, v in model.state_dict().items() if adapter is None or "lora_" in n}
            options["state_dict"] = sharding.joined_parts({n: sharding.own_part(v) for n, v in state.items()}, state)
        if processes.group().rank:
            return

        def write(to: Path) -> None:
            if not adapter:
                set_stops(model, self.template)
            model.save_pretrained(to, **options)
            self.template.tokenizer.save_pretrained(to)
            if self.head is not None and self.head_kind == "reward":
                scalars = {n: p.detach() for n, p in self.scalars.items()}
                torch.save({**self.head.state_dict(), "shift": torch.tensor(self.shift), **scalars}, to / "head.pt")
        about = {"kind": "adapter" if adapter else "full", "base": base, "base_weights": self.lineage.get("weights"),
                 "template": self.template.hash, **({"date": str(self.template.day)} if self.template.dated else {})}
        save_with(write, folder, about)
        if adapter:
            stacked.settle(folder, folder.parent)


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


def _head(loaded: Loaded, width: int, device: torch.device, kind: str) -> nn.Linear:
    """The loaded head, or a new one with zero bias: a reward's of std 1/sqrt(d + 1) (P16), a value's of zeros (P17). A critic
    that starts with random values would make the first advantages, whitened, a step at random."""
    if loaded.head is not None:
        return loaded.head
    head = nn.Linear(width, 1, device=device)
    nn.init.normal_(head.weight, std=0.0 if kind == "value" else 1 / math.sqrt(width + 1))
    nn.init.zeros_(head.bias)
    return head
