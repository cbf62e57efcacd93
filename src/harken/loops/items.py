"""One store of what models said: answers, and log-probs of given text, by weights, settings and exact prompt.

    model = models.stored("model")
    model.answers(prompts, max_tokens=64)                        # an Answer a prompt
    model.options([("The capital of France is", [" Paris", " Rome"])])   # log p of each option, the context computed once

What was computed once is read back: after a kill, by another evaluation, or to score it anew. Two models never share a row
(E1). An item that cannot be computed is missing, with the reason, and is asked for again the next time (E8, E21).
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeVar

from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.progress import progress
from harken.core.protocols import Estimate, Tree
from harken.core.records import Prompt, content_hash
from harken.core.seeds import derive_seed
from harken.engines.openai import NoText
from harken.loops.tables import expanded
from harken.stats.compare import bounded_mean
from harken.stats.intervals import mean_interval, paired_difference

NAME = "items.jsonl"
CHUNK = 32
"""Prompts asked at once, and lost at most when killed; at temperature 0 as many as the sampler has rows, where it says so."""
GIVE_UP = 3
"""After so many failures in a row a server is asked no more."""
SAME = 1e-6
"""Nats a token by which log-probs may differ between batches without a word."""


@dataclass(frozen=True)
class Answer:
    """`prompt` is the exact text the model was given, `texts` its answers; none where it could not answer: `why` says."""

    prompt: str
    texts: tuple[str, ...]
    why: str = ""

    @property
    def text(self) -> str | None:
        return self.texts[0] if self.texts else None


@dataclass(frozen=True)
class Options:
    """log p of each option after `prompt`: sums over its tokens [K] in nats, and how many tokens it has [K]."""

    prompt: str
    logps: tuple[float, ...]
    tokens: tuple[int, ...]
    why: str = ""

    @property
    def means(self) -> tuple[float, ...]:
        """Per token: how InstructGPT chooses (E5)."""
        return tuple(x / n for x, n in zip(self.logps, self.tokens))


def _fact(error: UserError) -> str:
    """Its first line, to stand within a sentence."""
    return str(error).splitlines()[0].rstrip(".")


class Store:
    """An append-only file of rows by key. One process writes it at a time; a line torn by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file: IO[bytes] = path.open("ab+")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}.", "Choose another --out.") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{path} is being written by another process.",
                            "Wait for it to end, or choose another --out.") from None
        self._cut_torn_line()
        self.rows = {row["key"]: row for row in read_jsonl(path) if isinstance(row.get("key"), str)}

    def _cut_torn_line(self) -> None:
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends rows, each with a "key", and gives them to the system before it returns."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            self._file.write(lines.encode("utf-8", "backslashreplace"))
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self.path} could not be written: {error.strerror or error}.",
                            "Make room and give the same command: it continues.") from None
        self.rows |= {row["key"]: dict(row) for row in rows}

    def close(self) -> None:
        self._file.close()


class StoredModel:
    """A model whose work is kept. `identity` names its weights and their precision; `sampler` is opened by the launcher."""

    def __init__(self, sampler: Any, store: Store, identity: Any, *, name: str, quiet: bool | None = None) -> None:
        self.sampler, self.store, self.name, self.quiet = sampler, store, name, quiet
        engine = getattr(sampler, "engine", None)
        self.engine = engine if getattr(engine, "template", None) is not None else None
        self.template = self.engine.template if self.engine else None
        self.identity = [identity, self.template.hash if self.template else None]
        # A learner of somebody's own need not know it.
        self._sharing = {"share": True} if getattr(self.engine, "shares_starts", False) else {}
        self.drift: float | None = None

    @property
    def parameters(self) -> int | None:
        """How many the model has; None for a server."""
        model: Any = getattr(self.engine, "model", None)
        return sum(p.numel() for p in model.parameters()) if hasattr(model, "parameters") else None

    def _context(self) -> int | None:
        return getattr(getattr(getattr(self.engine, "model", None), "config", None), "max_position_embeddings", None)

    # --- answers -------------------------------------------------------------------------------------

    def answers(self, prompts: Sequence[Prompt], n: int = 1, *, max_tokens: int, temperature: float = 0.0, top_p: float = 1.0,
                seed: int = 0, chunk: int = CHUNK) -> list[Answer]:
        """`n` answers to each prompt, in the model's chat template. A draw depends on `chunk`, the prompts asked at once."""
        seen = [self.sampler.seen(p) if hasattr(self.sampler, "seen") else p for p in prompts]
        ids = [self.template.prompt_ids(p) if self.template else None for p in seen]
        exact = [self._text(i) if i is not None else "\n".join(m.content for m in p.messages) for i, p in zip(ids, seen)]
        contents = [list(i) if i is not None else [m.to_json() for m in p.messages] for i, p in zip(ids, seen)]

        def ask(part: Sequence[int], at: int, settings: Mapping[str, Any]) -> list[Any]:
            return list(self.sampler.sample([prompts[i] for i in part], n, **settings))
        return self._asked(exact, contents, ask, n, max_tokens, temperature, top_p, seed, chunk)

    def continuations(self, texts: Sequence[str], n: int = 1, *, max_tokens: int, stop: Sequence[str] = (),
                      temperature: float = 0.0, top_p: float = 1.0, seed: int = 0) -> list[Answer]:
        """How a text goes on, without any chat template, cut before the first of `stop`, where our sampler ends it too. Servers
        of chat models, which cannot continue a text, are asked with the text as a user's turn."""
        if self.template is None:
            found = self.answers([Prompt.of(t) for t in texts], n, max_tokens=max_tokens, temperature=temperature, top_p=top_p,
                                 seed=seed)
        else:
            ids = [self._prefix() + self.template.text_ids(t) for t in texts]
            ends = {"stop": tuple(stop)} if stop and getattr(self.sampler, "ends_at_texts", False) else {}

            def ask(part: Sequence[int], at: int, settings: Mapping[str, Any]) -> list[Any]:
                return list(self.sampler.sample_ids([ids[i] for i in part], n, **settings))
            found = self._asked(list(texts), [["text", *i] for i in ids], ask, n, max_tokens, temperature, top_p, seed, more=ends)
        return [Answer(a.prompt, tuple(cut(t, stop) for t in a.texts), a.why) for a in found]

    def _asked(self, exact: Sequence[str], contents: Sequence[Any], ask: Any, n: int, max_tokens: int, temperature: float,
               top_p: float, seed: int, chunk: int = CHUNK, more: Mapping[str, Any] = MappingProxyType({})) -> list[Answer]:
        """Reads back what is stored and asks for the rest, a chunk at a time. `more` are settings besides."""
        settings = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, **more}
        if temperature == 0:  # no draw depends on who is asked together: as many as the sampler says at once
            chunk = max(chunk, getattr(self.sampler, "max_batch", 0) // n)
        found: list[Answer | None] = [None] * len(exact)
        failures, reason = 0, ""
        with progress("answers", len(exact), quiet=self.quiet) as advance:
            for at in range(0, len(exact), chunk):
                part = list(range(at, min(at + chunk, len(exact))))
                # A greedy answer is the prompt's alone; a draw belongs to its place as well, so that it can be drawn again.
                draw = [] if temperature == 0 else [seed, at, [contents[i] for i in part]]
                keys = {i: content_hash(["answers", self.identity, settings, n, contents[i], draw and [i, content_hash(draw)]])
                        for i in part}
                fits = [i for i in part if not self._too_long(contents[i], max_tokens)]
                wanted = [i for i in fits if keys[i] not in self.store.rows]
                if wanted:
                    drawn = derive_seed(seed, "answers", at)
                    if temperature != 0 and self.template is not None:
                        wanted = fits  # draws of one batch hang together; a server's and greedy ones do not
                    new, failures, reason = self._ask(wanted, at, ask, {**settings, "seed": drawn}, failures, reason)
                    rows = [{"key": keys[i], "kind": "answers", "model": self.name, "prompt": exact[i], "texts": texts}
                            for i, texts in new.items()]
                    self.store.add([row for row in {r["key"]: r for r in rows}.values() if row["key"] not in self.store.rows])
                for i in part:
                    row = self.store.rows.get(keys[i])
                    why = "" if row else reason if i in fits else f"the prompt is longer than the model's context of " \
                        f"{self._context()} tokens"
                    found[i] = Answer(exact[i], tuple(row["texts"]) if row else (), why)
                advance(len(part))
        whole = [a for a in found if a is not None]
        if whole and not any(a.texts for a in whole):
            raise UserError(f"{self.name} answered none of {len(whole)} prompts: {whole[0].why}.",
                            "Check the model, or choose shorter prompts.")
        return whole

    def _ask(self, part: Sequence[int], at: int, ask: Any, settings: Mapping[str, Any], failures: int, reason: str
             ) -> tuple[dict[int, list[str]], int, str]:
        """Texts by prompt. A server that fails for a chunk is asked prompt by prompt, until it fails too often in a row."""
        if self.template is not None:
            return {i: [s.text for s in group] for i, group in zip(part, ask(part, at, settings))}, 0, ""
        found: dict[int, list[str]] = {}
        if failures < GIVE_UP:
            try:
                found = {i: [s.text for s in group] for i, group in zip(part, ask(part, at, settings))}
                failures, reason = 0, ""
            except UserError as error:
                found = {part[k]: [s.text for s in group] for k, group in error.answered.items()}
                reason = _fact(error)
        for i in [i for i in part if i not in found]:
            if failures >= GIVE_UP:
                break
            try:
                ((group),) = ask([i], at, settings)
                found[i], failures = [s.text for s in group], 0
            except UserError as error:
                reason, failures = _fact(error), failures + 1
        # A server's null is no answer: it is no refusal, and harmless is not what it was.
        said = {i: texts for i, texts in found.items() if not any(isinstance(t, NoText) for t in texts)}
        return said, failures, reason or ("the server gave no text" if len(said) < len(found) else "")

    def _too_long(self, content: Any, more: int) -> bool:
        limit = self._context()
        return bool(limit and self.template is not None and len(content) + more > limit)

    # --- log-probs of given text ---------------------------------------------------------------------

    def options(self, items: Sequence[tuple[str | Prompt, Sequence[str]]]) -> list[Options]:
        """log p of every option after its context: a text, or a `Prompt` in the chat template. As lm-eval defines it for
        texts: context and option are tokenised together, blanks at the context's end belong to the option, and an empty
        context is the model's first token. Each context is computed once for all of its options."""
        if self.engine is None or not hasattr(self.engine, "logprobs"):
            raise UserError(f"{self.name} gives text alone: log-probs need weights.",
                            "Name a run, a folder, a .gguf file or a hub id.")
        parts = [self._parts(context, options) for context, options in items]
        keys = [content_hash(["options", self.identity, tree.prompt, tree.completions, counts]) for tree, counts, _ in parts]
        limit = self._context()
        longest = [len(tree.prompt) + max(map(len, tree.completions)) for tree, _, _ in parts]
        fits = {k: i for i, k in enumerate(keys) if not limit or longest[i] <= limit}
        wanted = [i for k, i in fits.items() if k not in self.store.rows]
        with progress("log-probs", len(fits), len(fits) - len(wanted), quiet=self.quiet) as advance:
            for at in range(0, len(wanted), CHUNK):
                chunk = wanted[at:at + CHUNK]
                read = self.engine.logprobs([parts[i][0] for i in chunk], **self._sharing)
                self.store.add([{"key": keys[i], "kind": "options", "model": self.name, "prompt": parts[i][2],
                                 "options": list(items[i][1]), "tokens": parts[i][1],
                                 "logps": [float(x[len(x) - n:].double().sum()) for x, n in zip(group, parts[i][1])]}
                                for i, group in zip(chunk, read)])
                if self.drift is None:
                    self.drift = batch_drift(self.engine, [parts[i][0] for i in chunk], read)
                advance(len(chunk))
        return [self._option_row(self.store.rows.get(k), parts[i][2], longest[i]) for i, k in enumerate(keys)]

    def _option_row(self, row: Mapping[str, Any] | None, prompt: str, length: int) -> Options:
        if row is None:
            return Options(prompt, (), (), f"{length} tokens are more than the model's context of {self._context()}")
        return Options(prompt, tuple(row["logps"]), tuple(row["tokens"]))

    def _parts(self, context: str | Prompt, options: Sequence[str],
               encode: Callable[[str], tuple[int, ...]] | None = None) -> tuple[Tree, list[int], str]:
        """The tree to compute, how many tokens at each branch's end are scored, and the exact context. `encode` makes ids of
        texts; without it all is what people wrote."""
        template = self.template
        assert template is not None
        if isinstance(context, Prompt):
            tree = template.tree(self.sampler.seen(context), options)
            return tree, [len(c) for c in tree.completions], self._text(tree.prompt)
        encode, bare = encode or template.text_ids, context.rstrip()
        head = self._prefix() + (encode(bare) if bare else ())
        if not head:
            head = (self._first(),)
        whole = []
        for option in options:
            text = encode(context + option)
            ids = self._prefix() + text if bare else head + text
            if len(ids) <= len(head):  # the option melts into the context's last token
                ids = head + (template.text_ids(option) or (template.end_id,))
            whole.append(ids)
        counts = [len(ids) - len(head) for ids in whole]
        shared = max(1, min(_common(whole), len(head)))
        return Tree(whole[0][:shared], tuple(ids[shared:] for ids in whole)), counts, context

    def _prefix(self) -> tuple[int, ...]:
        """The first token that the tokenizer puts before every text, if it does."""
        tokenizer = self.template.tokenizer  # type: ignore[union-attr]
        first = tokenizer("a").input_ids[:1]
        return tuple(first) if first and first[0] == tokenizer.bos_token_id and first[0] is not None else ()

    def _first(self) -> int:
        tokenizer = self.template.tokenizer  # type: ignore[union-attr]
        return int(self.template.end_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)  # type: ignore[union-attr]

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.template.tokenizer.decode(ids, skip_special_tokens=False))  # type: ignore[union-attr]


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    return next((i for i, ids in enumerate(zip(*rows)) if len(set(ids)) > 1), min(map(len, rows)))


def batch_drift(engine: Any, trees: Sequence[Tree], together: Sequence[Sequence[Any]]) -> float:
    """The largest difference, in nats a token, between log-probs read tree by tree and read together (E11)."""
    alone = [engine.logprobs([tree])[0] for tree in trees]
    return max((float((x - y).abs().max()) for a, b in zip(alone, together) for x, y in zip(a, b) if len(x)), default=0.0)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of `stop`."""
    return text[:min([len(text), *(at for s in stop if (at := text.find(s)) >= 0)])]


def note_drift(run: Any, *models: StoredModel) -> None:
    """Says so where a model's log-probs move with the batch."""
    for model in models:
        if model.drift is not None and model.drift > SAME:
            run.note(f"Log-probs of {model.name} at batch 1 and {CHUNK} differ by up to {model.drift:.1e} nats a token.")


def mean_of(scores: Sequence[float | None], what: str, bounds: tuple[float, float] | None = (0.0, 1.0),
            clusters: Sequence[Any] | None = None) -> Estimate:
    """The mean over the items that have a score. Raises `UserError` where none has."""
    kept = [i for i, x in enumerate(scores) if x is not None]
    if not kept:
        raise UserError(f"No item has a score for {what}: {len(scores)} are missing.", "The samples say why.")
    group = None if clusters is None else [clusters[i] for i in kept]
    return mean_interval([float(scores[i] or 0.0) for i in kept], group, bounds=bounds)


def difference_of(a: Sequence[float | None], b: Sequence[float | None], *, bounds: tuple[float, float] | None = (-1.0, 1.0),
                  clusters: Sequence[Any] | None = None) -> Estimate:
    """The mean difference a - b over the items that both models have a score for. Raises `UserError` where there is none."""
    kept = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x is not None and y is not None]
    if not kept:
        raise UserError(f"No item has a score of both models: {len(a)} were asked.", "The samples say why.")
    group = None if clusters is None else [clusters[i] for i in kept]
    return paired_difference([float(a[i] or 0.0) for i in kept], [float(b[i] or 0.0) for i in kept], group, bounds=bounds)


def note_missing(run: Any, scores: Sequence[float | None], what: str, bounds: tuple[float, float] = (0.0, 1.0)) -> int:
    """Counts the items without a score, and says between what the mean lies whatever they are where they are above 1 %."""
    missing = sum(x is None for x in scores)
    if missing > 0.01 * len(scores):
        low, high = bounded_mean(scores, bounds)
        run.note(f"{missing} of {len(scores)} items have no score; whatever they are, {what} lies between {low:.3f} and "
                 f"{high:.3f}.")
    return missing


T = TypeVar("T")


def take(items: Sequence[T], limit: int, seed: int) -> list[T]:
    """At most `limit` items (0: all), drawn with the seed, in their own order."""
    if not limit or len(items) <= limit:
        return list(items)
    return [items[i] for i in sorted(random.Random(derive_seed(seed, "items")).sample(range(len(items)), limit))]


def take_whole(items: Sequence[T], groups: Sequence[Any], limit: int, seed: int) -> list[T]:
    """About `limit` items (0: all): whole groups, drawn with the seed, one at least; in their own order."""
    names = list(dict.fromkeys(groups))
    if not limit or len(items) <= limit:
        return list(items)
    chosen = set(take(names, max(1, round(limit * len(names) / len(items))), seed))
    return [item for item, group in zip(items, groups) if group in chosen]


def read_items(path: str, bundled: str) -> Any:
    """What a JSON file holds, or JSON Lines as a list; without a path, the set of that name that ships (harken/evals/data)."""
    if not path:
        return expanded(json.loads(files("harken").joinpath("evals", "data", f"{bundled}.json").read_text(encoding="utf-8")))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Check --data.") from None
    try:
        if Path(path).suffix == ".csv":
            return list(csv.DictReader(io.StringIO(text, newline="")))
        if Path(path).suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        return json.loads(text)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}.", "Give a .json, .jsonl or .csv file of the layout on the page.") from None


def wrong_layout(path: str, error: Exception, layout: str) -> UserError:
    """For a data file whose rows are not what the evaluation reads."""
    return UserError(f"{path or 'the file'} has another layout: {type(error).__name__} {error}.", f"It reads {layout}.")
