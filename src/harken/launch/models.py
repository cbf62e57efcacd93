"""From a word to a model: read once, into an object that can be checked, identified and opened.

    smollm2, toy                      embedded
    runs/sft                          a run
    folder, file.gguf, org/name       a folder, a GGUF file, a hub id
    http://localhost:8000/v1#name     an OpenAI-compatible server (and its model's name): works wherever text alone is needed
    my_lab.engine:open                your own: a function that gives something with `sample`, or with all that a learner has
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import file_hash
from harken.core.find import imported, is_dotted, is_module
from harken.core.records import Prompt
from harken.core.run import Run
from harken.engines.policies import POLICY
from harken.launch.own import learner_of, opened
from harken.launch.templates import given_template

if TYPE_CHECKING:
    from harken.engines.hf import Engine
    from harken.engines.sampler import HFSampler


@dataclass(frozen=True)
class ModelWord:
    """What `--model` said. `kind` is endpoint, own, given (a Python object), or named: what `engines.places.locate` knows."""

    word: str
    kind: str
    given: Any = None

    def check(self) -> None:
        """Raises `UserError` for what can be seen to be no model without loading it."""
        if self.kind == "own":
            self._own()
        if self.kind == "named":
            if "." in self.word and is_dotted(self.word) and not Path(self.word).exists() and is_module(self.word):
                raise UserError(f"{self.word} is a module, and no model.",
                                f"Name the function in it that gives one: {self.word}:open_model.")
            import_extra("harken.engines.places").locate(self.word)

    def identity(self) -> Any:
        """What names it in `lineage.json`: for a run its weights' hashes, else the name."""
        folder = Path(self.word) / "model"
        if self.kind == "named" and folder.is_dir():
            files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".pt") or p.name == POLICY)
            return {"run": self.word, "weights": [file_hash(f) for f in files]}
        return self.word

    def relative(self, out: Path) -> str:
        """The word as a run at `out` keeps it: paths relative to the run, so that both can move together."""
        return str(import_extra("harken.engines.places").relative_base(self.word, out)) if self.kind == "named" else self.word

    def need_weights(self, what: str) -> None:
        """Raises `UserError` where there are no weights to train or to read log-probs from."""
        if self.kind == "endpoint":
            raise UserError(f"{self.word} is a server, which gives text alone: {what} needs weights.",
                            "Name a run, a folder, a .gguf file or a hub id.")

    def open_engine(self, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048, template: str = "") -> Any:
        """A model to sample from or to score with, not trained. `template` names another chat template than its own."""
        self.need_weights("this")
        if self.kind in ("own", "given"):
            return learner_of(self.open_own())
        import_extra("harken.engines.hf")
        from harken.engines.hf import Engine
        from harken.engines.loading import load
        from harken.engines.precision import resolve_dtype
        loaded = load(self.word, dtype=resolve_dtype(dtype), template=given_template(template))
        engine = Engine(loaded, dtype=dtype, train=False, tokens_per_micro_batch=tokens_per_micro_batch)
        import_extra("harken.engines.form").say_once(engine.note)
        return engine

    def open_sampler(self, model: str = "") -> Any:
        """An endpoint's sampler; `model` is the name it goes by there, where the word names none."""
        assert self.kind == "endpoint"
        from harken.engines.openai import EndpointSampler
        url, _, name = self.word.partition("#")
        return EndpointSampler(url, name or model)

    def open_own(self) -> Any:
        """Your object: what the function or class at a dotted path gives, or the object itself."""
        return opened(self.given if self.kind == "given" else self._own(), self.word)

    def _own(self) -> Any:
        return imported(self.word, f"There is no model {self.word}, and no module of that name.",
                        "Write my_lab.engine:open for the function open in my_lab/engine.py.")


def parse_model(model: Any) -> ModelWord:
    """Reads a word, or takes a Python object with `sample`, once."""
    if not isinstance(model, str):
        return ModelWord(getattr(model, "name", "") or f"{type(model).__module__}:{type(model).__qualname__}", "given", model)
    if model.startswith(("http://", "https://")):
        return ModelWord(model, "endpoint")
    if ":" in model and is_dotted(model) and not Path(model).exists():
        return ModelWord(model, "own")
    return ModelWord(model, "named")


def model_identity(model: Any) -> Any:
    """What names a model in `lineage.json`."""
    return parse_model(model).identity()


def open_engine(model: Any, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048, template: str = "") -> Engine:
    """A model to sample from or to score with, not trained. `template` names another chat template than its own."""
    engine: Engine = parse_model(model).open_engine(dtype=dtype, tokens_per_micro_batch=tokens_per_micro_batch, template=template)
    return engine


def context(engine: Any) -> int:
    """The most tokens a model can take at once."""
    return int(getattr(engine, "context", None) or sys.maxsize)


def open_learner(method: ModuleType, config: Any, run: Run, word: ModelWord) -> HFSampler:
    """The engine that `word` and `config` ask for, ready to train, under a sampler of its weights."""
    word.need_weights("training")
    if word.kind in ("own", "given"):
        own: HFSampler = word.open_own()
        return own
    from harken.engines.ends import end_row_note
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    from harken.engines.precision import resolve_dtype
    from harken.engines.sampler import HFSampler
    from harken.engines.streaming import Split
    frozen = resolve_dtype(config.dtype)
    loaded = load(config.model, dtype=frozen if config.lora_rank else resolve_dtype("float32"),
                  template=given_template(config.template), split=Split(not config.lora_rank, frozen) if config.shard else None)
    if off := loaded.lineage.get("dropout_turned_off"):
        run.note(f"Turned off dropout in {off} places of the model.")
    ties = getattr(config, "ties", "drop")
    head = getattr(method, "head", lambda config: None)(config)
    if head is None:
        loaded.head = None
    if config.lora_rank and head is None and (note := end_row_note(loaded.model, loaded.template)):
        run.note(note)
    learner = Engine(loaded, lora_rank=config.lora_rank, dtype=config.dtype, head=head, seed=config.seed,
                     scalars={"tie": 0.0} if ties != "drop" else None, weight_decay=config.weight_decay,
                     tokens_per_micro_batch=config.tokens_per_micro_batch, max_grad_norm=config.max_grad_norm,
                     shard=config.shard, recompute_layers=config.checkpoint_activations,
                     optimizer=config.optimizer, quantize=config.quantize)
    if learner.note:
        run.note(learner.note)
    if config.lora_rank == 0 and getattr(method, "needs_reference", lambda config: False)(config):
        learner.reference = Engine(load(config.model, dtype=frozen, split=Split(False) if config.shard else None),
                                   dtype=config.dtype, train=False, shard=config.shard,
                                   tokens_per_micro_batch=config.tokens_per_micro_batch)
    return HFSampler(learner)


def check_context(sampler: Any, prompts: Sequence[Prompt], max_tokens: int) -> None:
    """Refuses prompts too long for the model before the first answer is sampled; a server knows its own limit."""
    engine: Any = getattr(sampler, "engine", None)
    if getattr(engine, "template", None) is None:
        return
    for i, prompt in enumerate(prompts):
        if (length := len(engine.template.prompt_ids(sampler.seen(prompt)))) + max_tokens > context(engine):
            raise UserError(f"Prompt {i + 1} has {length} tokens; with {max_tokens} new ones it exceeds the context of "
                            f"{context(engine)} of {engine.lineage.get('name', 'the model')}.",
                            "Shorten the prompt or lower --max-tokens.")
