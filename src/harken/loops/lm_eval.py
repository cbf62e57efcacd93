"""Our engine as lm-eval's language model: its tasks, in process, offline with local data (lm-eval 0.4.13).

    from lm_eval.evaluator import evaluate
    lm = as_lm(stored)                         # stored: models.stored("model")
    evaluate(lm=lm, task_dict=tasks, bootstrap_iters=0, log_samples=True)

A context is computed once for all of its options, rows are packed, and logits are computed only where an option is scored; the
log-probs are those that lm-eval's own model gives. Several requests with one context are put together wherever they stand.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.loops.items import StoredModel, cut
from harken.text.template import Template

MOST_NEW = 256
"""lm-eval's default of max_gen_toks."""


def as_lm(stored: StoredModel) -> Any:
    """An lm_eval.api.model.LM. Raises `UserError` without lm-eval, and for a server, which gives no log-probs."""
    base = _module("api.model").LM
    if stored.engine is None or not hasattr(stored.engine, "greedy_logprobs"):
        raise UserError(f"{stored.name} gives text alone: lm-eval's tasks need log-probs.",
                        "Name a run, a folder, a .gguf file or a hub id.")
    return type("HarkenLM", (_Requests, base), {})(stored)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"lm_eval.{name}")
    except ImportError as error:
        raise UserError(f"{error.name or 'lm_eval'} is not installed.",
                        "lm-eval's tasks need: pip install 'harken[eval]'.") from None


class _Requests:
    """The three kinds of requests, whose arguments are (context, continuation), (text,) and (context, settings)."""

    def __init__(self, stored: StoredModel) -> None:
        super().__init__()
        assert stored.engine is not None
        self.stored, self.engine = stored, stored.engine
        self.template: Template = stored.engine.template
        self._chats: dict[str, list[bool]] = {}
        """Conversations that lm-eval was given as text, and which of their characters are text even where they spell control."""
        self.computed = 0
        """Tokens given to the model to read log-probs."""

    @property
    def max_length(self) -> int:
        return self.stored._context() or 2048

    @property
    def tokenizer_name(self) -> str:
        return str(self.template.hash)

    def chat_template(self, chat_template: Any = False) -> str:
        return str(self.template.hash)

    def apply_chat_template(self, chat_history: Sequence[Any], add_generation_prompt: bool = True) -> str:
        """The conversation as the model reads it. lm-eval hands the text back as a request's context, where its markers are
        control tokens again, and what a task's author wrote is not. Without a generation prompt the last message is gone on with.
        """
        history = [dict(m) for m in chat_history]
        begun = None if add_generation_prompt else str(history.pop()["content"])
        text, written = self.template.rendered(history, begun)
        self._chats[text] = written
        return text

    def _encoder(self, context: str) -> Callable[[str], tuple[int, ...]]:
        """Ids of texts that begin with a context, without what the tokenizer puts before every text."""
        written = self._chats.get(context)
        if written is None and self._chats:  # a task may add to the conversation
            begun = max((chat for chat in self._chats if context.startswith(chat)), key=len, default=None)
            written = None if begun is None else self._chats[begun]
        if written is None:
            return self.template.text_ids
        marks, prefix = written, self.stored._prefix()

        def encode(text: str) -> tuple[int, ...]:
            ids = self.template.tokens.encode(text, [*marks, *[True] * (len(text) - len(marks))][:len(text)])
            return ids[len(prefix):] if ids[:len(prefix)] == prefix else ids
        return encode

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(sum of log p in nats, whether every token is the likeliest) of each continuation."""
        together: dict[str, dict[str, list[int]]] = {}
        for i, request in enumerate(requests):
            context, option = request.args
            together.setdefault(context, {}).setdefault(option, []).append(i)
        trees: list[Tree] = []
        places: list[list[tuple[list[int], int]]] = []
        for context, options in together.items():
            tree, counts, _ = self.stored._parts(context, list(options), self._encoder(context))
            held = list(zip(options.values(), counts))
            for part, chosen in self._fitting(tree, held):
                trees.append(part)
                places.append(chosen)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for place, read in zip(places, self._read(trees)):
            for (members, count), (logps, tops) in zip(place, read):
                at = len(logps) - count
                value = float(logps[at:].double().sum()), bool((logps[at:] == tops[at:]).all())
                for i in members:
                    found[i] = value
        return found

    def _fitting(self, tree: Tree, held: list[tuple[list[int], int]]) -> list[tuple[Tree, list[tuple[list[int], int]]]]:
        """The tree, or where it is longer than the model's context each option alone with the end of its context, as lm-eval
        cuts: a last token is predicted but not read, so one more fits."""
        most = self.max_length + 1
        if len(tree.prompt) + max(map(len, tree.completions)) <= most:
            return [(tree, held)]
        return [(Tree(whole[:-count], (whole[-count:],)), [(members, count)]) for option, (members, count)
                in zip(tree.completions, held) for whole in [(tree.prompt + option)[-most:]]]

    def _read(self, trees: Sequence[Tree]) -> list[Any]:
        self.computed += sum(len(t.prompt) + sum(len(c) - 1 for c in t.completions) for t in trees)
        read: list[Any] = self.engine.greedy_logprobs(trees)
        return read

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of each whole text, in windows of the model's context that share no predicted token."""
        utils = _module("utils")
        trees, owners = [], []
        for i, request in enumerate(requests):
            ids = list(self.stored._prefix() + self.template.text_ids(request.args[0]))
            for context, continuation in map(utils.make_disjoint_window, utils.get_rolling_token_windows(
                    token_list=ids, prefix_token=self.stored._first(), max_seq_len=self.max_length, context_len=1)):
                trees.append(Tree(tuple(context), (tuple(continuation),)))
                owners.append(i)
        totals = [0.0] * len(requests)
        for i, ((logps, _),) in zip(owners, self._read(trees)):
            totals[i] += float(logps.double().sum())
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text up to the first of the request's stops; requests with the same settings are sampled together."""
        together: dict[tuple[Any, ...], list[int]] = {}
        for i, request in enumerate(requests):
            together.setdefault(_settings(request.args[1]), []).append(i)
        texts = [""] * len(requests)
        for (until, most, temperature, top_p), members in together.items():
            contexts = [requests[i].args[0] for i in members]
            for i, text in zip(members, self._generate(contexts, until, most, temperature, top_p)):
                texts[i] = text
        return texts

    def _generate(self, contexts: Sequence[str], until: Sequence[str], most: int, temperature: float, top_p: float) -> list[str]:
        """Each context's continuation before its first stop, where our sampler ends it."""
        room = max(1, self.max_length - most)
        prompts = [(self.stored._prefix() + self._encoder(c)(c) or (self.stored._first(),))[-room:] for c in contexts]
        sampler = self.stored.sampler
        ends = {"stop": tuple(until)} if until and getattr(sampler, "ends_at_texts", False) else {}
        found = sampler.sample_ids(prompts, 1, max_tokens=most, temperature=temperature, top_p=top_p, **ends)
        texts = [self.template.tokenizer.decode([t for t in sample.ids if t not in self.template.stop_ids])
                 for (sample,) in found]
        return [cut(text, until) for text in texts]


def _settings(given: dict[str, Any]) -> tuple[Any, ...]:
    """(stops, most new tokens, temperature, top-p) of a request's generation_kwargs. Sampling is greedy unless it asks."""
    until = given.get("until") or []
    stops = tuple([until] if isinstance(until, str) else until)
    most = int(given.get("max_gen_toks") or given.get("max_new_tokens") or given.get("max_tokens") or MOST_NEW)
    sampled = bool(given.get("do_sample")) or float(given.get("temperature") or 0.0) > 0
    temperature = float(given.get("temperature") or 1.0) if sampled else 0.0
    return stops, most, temperature, float(given.get("top_p") or 1.0)
