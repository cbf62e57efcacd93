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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harken.core import processes
from harken.core.errors import UserError
from harken.core.protocols import Datum, Objective
from harken.core.seeds import derive_seed
from harken.engines import cpu, distributed, emulate, fourbit, gathers, recompute, sharding, stacked
from harken.engines.base import OWN, Base
from harken.engines.form import cast, text_config
from harken.engines.loading import load, save_with, set_stops
from harken.engines.optimizer import make_optimizer
from harken.engines.passes import Passes
from harken.engines.precision import resolve_dtype
from harken.engines.pretrained import Loaded
from harken.engines.profile import timed
from harken.engines.streaming import Split, tied_names
from harken.text.template import read_template


class Engine(Passes):
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

    def __init__(self, loaded: Loaded, *, lora_rank: int = 0, dtype: str = "float32",
                 head: Literal["reward", "value"] | None = None, scalars: Mapping[str, float] | None = None,
                 tokens_per_micro_batch: int = 2048, weight_decay: float = 0.0, max_grad_norm: float = 1.0,
                 seed: int = 0, train: bool = True, shard: bool = False, recompute_layers: bool = False, name: str = OWN,
                 optimizer: str = "adamw", quantize: str = "none") -> None:
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
        self.reference: Engine | None = None
        if alone:
            self.model.requires_grad_(False)
            if self.compute is not torch.float32 and (lora_rank or not train) and not loaded.layers:
                cast(self.model, self.compute)
        if shard and self.form.plain:
            raise UserError(f"--shard needs packed rows; this model has none, as {self.form.plain}.", "Leave --shard out.")
        self.layers, self.ends = loaded.layers, loaded.ends
        if shard and processes.group().size > 1 and not self.layers:
            self.model.requires_grad_(train and not lora_rank)
            self.layers, self.ends = sharding.shard(self.model, self.device, compute=self.compute)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "init"))
            self.head = _head(loaded, self.width, self.device, head) if head else None
            if train and lora_rank:
                self.names = (*self.read, self.base.add(lora_rank, name))
                self.base.use(self.names)
        if quantize != "none" and alone:
            fourbit.check(lora_rank if train else 0, self.compute, bool(self.layers))
            fourbit.quantize(self.model)
            self.base.quantized = quantize
        if train and not lora_rank:
            self.model.requires_grad_(True)
            self._hold_pad(shard)
        if self.compute is not torch.float32:
            emulate.emulate(self.model)
        self.recompute = recompute_layers
        if recompute_layers and train:
            recompute.recompute(self.model)
            cpu.give_back()
        if self.head is not None:
            self.head.requires_grad_(train)
        self.scalars = nn.ParameterDict({n: torch.tensor(v, device=self.device) for n, v in (scalars or {}).items()})
        if head == "reward" and not train:
            self.scalars.update({n: nn.Parameter(v.to(self.device), False) for n, v in loaded.groups.items()})
        extra = [(f"scalar.{n}", p) for n, p in self.scalars.items()]
        named = [*self.model.named_parameters(), *self._head_parameters(), *extra]
        self.trainable = {n: p for n, p in named if p.requires_grad and ("lora_" not in n or f".{name}." in n)} if train else {}
        self.parts = {n: gathers.own_part(p) for n, p in self.trainable.items()}
        self.kind = optimizer
        self.optimizer = make_optimizer(optimizer, self.parts.values(), weight_decay, bool(self.layers)) if train else None

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

    def beside(self, model: str, template: str = "") -> Engine:
        """Another model on the same hardware, not to be trained, on the same base where it can stand on it. `template` names
        another chat template than its own."""
        source = read_template(template) if template else ""
        loaded = load(model, on=self.shared, dtype=self.compute, template=source, split=self._split(False))
        return self._another(loaded, train=False)

    def under(self, folder: Path, lineage: Mapping[str, Any], what: str) -> Engine:
        """This model under a saved adapter, not to be trained. Raises `UserError` where the adapter does not fit."""
        name = self.base.read(folder, what)
        return self._another(Loaded(self.model, self.template, dict(lineage), base=self.base, adapters=(name,)), train=False)

    def critic(self, model: str, *, lora_rank: int, seed: int) -> Engine:
        """Another model with a value head, to be trained. A reward model's head and shift come along: values start where
        scores are."""
        loaded = load(model, on=self.shared, dtype=self.compute if lora_rank else torch.float32, split=self._split(not lora_rank))
        if loaded.head is not None:
            loaded.head.bias.data += loaded.shift
        return self._another(loaded, lora_rank=lora_rank, head="value", seed=seed, name="critic",
                             max_grad_norm=self.max_grad_norm)

    def copy_to_train(self, seed: int) -> Engine:
        """A learner with all weights that begins as a copy of this model."""
        loaded = Loaded(copy.deepcopy(self.model), self.template, dict(self.lineage), form=self.form)
        return Engine(loaded, seed=seed)

    def _split(self, trained: bool) -> Split | None:
        """How further models are read, where this one is split."""
        return Split(trained, self.compute) if self.layers else None

    def _another(self, loaded: Loaded, **options: Any) -> Engine:
        dtype = "float32" if self.compute is torch.float32 else "bfloat16"
        return Engine(loaded, dtype=dtype, tokens_per_micro_batch=self.budget, shard=bool(self.layers),
                      recompute_layers=self.recompute, optimizer=self.kind, **options)

    def _head_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [] if self.head is None else [(f"head.{n}", p) for n, p in self.head.named_parameters()]

    @property
    def note(self) -> str:
        """What people should know of how the model is computed; "" where there is nothing to say."""
        return self.form.note(self.base.name or "This model", self.model.config.model_type)

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
                self.idle(logps=logps and self.head_kind != "reward").backward()
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
        distributed.sum_gradients([p for p in self.trainable.values() if not gathers.is_split(p)])
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
            twice = tied_names(model)  # put together, they would be two tensors
            state = {n: v for n, v in model.state_dict().items() if n not in twice and (adapter is None or "lora_" in n)}
            options["state_dict"] = sharding.joined_parts({n: gathers.own_part(v) for n, v in state.items()}, state)
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
                 "template": self.template.hash, **({"date": str(self.template.day)} if self.template.dated else {}),
                 **({"quantized": self.base.quantized} if self.base.quantized else {})}
        save_with(write, folder, about)
        if adapter:
            stacked.settle(folder, folder.parent)


def _head(loaded: Loaded, width: int, device: torch.device, kind: str) -> nn.Linear:
    """The loaded head, or a new one with zero bias: a reward's of std 1/sqrt(d + 1) (P16), a value's of zeros (P17). A critic
    that starts with random values would make the first advantages, whitened, a step at random."""
    if loaded.head is not None:
        return loaded.head
    head = nn.Linear(width, 1, device=device)
    nn.init.normal_(head.weight, std=0.0 if kind == "value" else 1 / math.sqrt(width + 1))
    nn.init.zeros_(head.bias)
    return head
