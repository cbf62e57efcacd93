"""Both models on the same prompts: what they said, and every score by prompt that the gate may ask for.

    win_rate        how often the judge puts the new model's answers above the served one's; a tie is a half, 0.5 no difference
    judge           the judge's mean score of a prompt's answers
    proxy           the reward that the policy climbed: shown, so that a rise of it alone is seen (over-optimisation)
    hacking         the judge's standardised gain less the proxy's, where the policy climbed one: below 0 the proxy ran ahead
    tax             nats a token of documents that nothing was trained on; lower is better
    NAME            the score of an evaluation of verify.evals, by item

`figures` has KL(new ‖ served) in nats an answer besides, where both have weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.files import read_json, read_jsonl
from harken.core.protocols import Tree
from harken.core.records import Prompt
from harken.core.seeds import derive_seed
from harken.evals.capability import document_nll
from harken.launch.loop.improve import judge_of, reward_of
from harken.launch.loop.recipe import Recipe
from harken.launch.loop.turns import Turn
from harken.launch.models import check_context
from harken.launch.policies import open_sampler
from harken.launch.rewards import open_reward
from harken.launch.suite import read_list, run_suite
from harken.stats.gate import Metric
from harken.stats.intervals import mean_interval
from harken.stats.winrate import win_rate
from harken.store.files import read_prompts, write_jsonl
from harken.store.logs import paired, read_log
from harken.text.documents import read_documents

Scores = list[list[float | None]]


def verify(recipe: Recipe, turn: Turn, folder: Path) -> dict[str, Any]:
    """Writes answers.jsonl and scores.jsonl; gives the figures."""
    prompts = read_prompts(recipe.verify.prompts).records
    if not prompts:
        raise UserError(f"{recipe.verify.prompts} holds no prompt.", "Verification needs prompts that nothing is trained on.")
    trained = {row["prompt"] for row in read_jsonl(turn.path / "snapshot" / "judgments.jsonl")}
    if both := sum(p.id in trained for p in prompts):
        raise UserError(f"The turn trained on {both} of the {len(prompts)} prompts of {recipe.verify.prompts}: the file was "
                        "changed after the turn began.", "Restore it: a model is not verified on what it learnt from.")
    words = {"new": turn.policy, "old": str(turn.begun["model"])}
    samplers = {side: open_sampler(word, dtype=recipe.dtype) for side, word in words.items()}
    said = {}
    for side, sampler in samplers.items():
        check_context(sampler, prompts, recipe.verify.max_tokens)
        said[side] = sampler.sample(prompts, recipe.verify.answers, max_tokens=recipe.verify.max_tokens,
                                    temperature=recipe.verify.temperature, seed=derive_seed(recipe.seed, turn.number, "verify"))
    texts = {side: [[s.text for s in row] for row in rows] for side, rows in said.items()}
    groups = [group_of(p, recipe.verify.groups) for p in prompts]
    judge = open_reward(judge_of(recipe, turn), dtype=recipe.dtype)
    scores = {side: [list(row) for row in judge.score(prompts, texts[side])] for side in words}
    table = _rows("win_rate", prompts, groups, *_shares(scores["new"], scores["old"]), bounds=(0, 1))
    table += _rows("judge", prompts, groups, scores["new"], scores["old"])
    figures = {"judge": _means(scores)}
    if word := reward_of(recipe, turn):
        proxy = open_reward(word, dtype=recipe.dtype)
        climbed = {side: [list(row) for row in proxy.score(prompts, texts[side])] for side in words}
        table += _rows("proxy", prompts, groups, climbed["new"], climbed["old"])
        table += _rows("hacking", prompts, groups, *_hacking(scores, climbed))
        figures["proxy"] = _means(climbed)
    table += _tax(recipe, samplers)
    table += _evals(recipe, words, folder)
    if (kl := _kl(samplers, said["new"], prompts)) is not None:
        figures["kl"] = mean_interval(kl).to_json()
    write_jsonl(folder / "answers.jsonl", ({**p.to_json(), "group": g, **{s: texts[s][i] for s in words},
                                            **{f"{s}_scores": scores[s][i] for s in words}}
                                           for i, (p, g) in enumerate(zip(prompts, groups))))
    write_jsonl(folder / "scores.jsonl", table)
    figures["win_rate"] = win_rate(scores["new"], scores["old"]).value.to_json()
    return {"figures": figures, "prompts": len(prompts), "judge": judge_of(recipe, turn), "models": words,
            "answers": recipe.verify.answers}


def group_of(prompt: Prompt, how: str) -> str:
    """A prompt's type of user: its use case, its first tag, or an entry of its meta."""
    if not how:
        return ""
    if how == "use_case":
        return prompt.use_case or "none"
    if how == "tag":
        return prompt.tags[0] if prompt.tags else "none"
    if how.startswith("meta."):
        return str(prompt.meta.get(how[5:], "none"))
    raise UserError(f"verify.groups is {how!r}.", "It is use_case, tag or meta.NAME.")


def metrics(folder: Path) -> list[Metric]:
    """The tables of scores.jsonl, ready for the gate."""
    tables: dict[str, Metric] = {}
    for row in read_jsonl(folder / "scores.jsonl"):
        name = row["metric"]
        if name not in tables:
            bounds = row["bounds"]
            tables[name] = Metric(name, {}, {}, {}, None if bounds is None else (bounds[0], bounds[1]), row["higher"])
        metric: Any = tables[name]
        metric.new[row["item"]], metric.old[row["item"]] = row["new"], row["old"]
        if row["group"]:
            metric.groups[row["item"]] = row["group"]
    return list(tables.values())


def _rows(name: str, prompts: Sequence[Prompt], groups: Sequence[str], new: Scores, old: Scores, *,
          bounds: tuple[float, float] | None = None) -> list[dict[str, Any]]:
    seen: dict[str, int] = {}
    rows = []
    for prompt, group, a, b in zip(prompts, groups, new, old):
        seen[prompt.id] = seen.get(prompt.id, 0) + 1
        item = prompt.id if seen[prompt.id] == 1 else f"{prompt.id}-{seen[prompt.id]}"
        rows.append(_row(name, item, group, a, b, bounds, True))
    return rows


def _row(name: str, item: str, group: str, new: Sequence[float | None], old: Sequence[float | None],
         bounds: tuple[float, float] | None, higher: bool) -> dict[str, Any]:
    clean = [[x if x is not None and math.isfinite(x) else None for x in side] for side in (new, old)]
    return {"metric": name, "item": item, "group": group, "new": clean[0], "old": clean[1], "bounds": bounds, "higher": higher}


def _shares(new: Scores, old: Scores) -> tuple[Scores, Scores]:
    """The share of a prompt's pairs that the new model wins, beside one half."""
    wins: Scores = []
    for a, b in zip(new, old):
        pairs = [(x, y) for x in a for y in b if x is not None and y is not None]
        wins.append([sum((x > y) + (x == y) / 2 for x, y in pairs) / len(pairs)] if pairs else [None])
    return wins, [[0.5]] * len(new)


def _hacking(judged: dict[str, Scores], climbed: dict[str, Scores]) -> tuple[Scores, Scores]:
    """By prompt: the judge's gain less the proxy's, each in standard deviations of the served model's answers."""
    def gains(scores: dict[str, Scores]) -> list[float | None]:
        known = np.array([x for row in scores["old"] for x in row if x is not None])
        sd = float(known.std()) if len(known) else 0.0
        means = {side: [np.mean([x for x in row if x is not None]) if any(x is not None for x in row) else None
                        for row in scores[side]] for side in scores}
        return [None if a is None or b is None else float(a - b) / max(sd, 1e-6) for a, b in zip(means["new"], means["old"])]
    pairs = zip(gains(judged), gains(climbed))
    return [[None if a is None or b is None else a - b] for a, b in pairs], [[0.0]] * len(judged["new"])


def _means(scores: dict[str, Scores]) -> dict[str, Any]:
    result = {}
    for side, rows in scores.items():
        means = [float(np.mean(known)) for row in rows if (known := [x for x in row if x is not None])]
        result[side] = mean_interval(means).to_json() if means else None
    return result


def _tax(recipe: Recipe, samplers: dict[str, Any]) -> list[dict[str, Any]]:
    if not recipe.verify.text:
        return []
    documents = read_documents(recipe.verify.text, "verify.text")
    nll = {side: document_nll(_engine(sampler, side), documents, 512) for side, sampler in samplers.items()}
    return [_row("tax", f"document {i + 1}", "", [a], [b], None, False) for i, (a, b) in enumerate(zip(nll["new"], nll["old"]))]


def _engine(sampler: Any, side: str) -> Any:
    engine = getattr(sampler, "engine", None)
    if engine is None:
        raise UserError(f"The {'new' if side == 'new' else 'served'} model gives text alone, and a tax needs its log-probs.",
                        "Leave verify.text out, or serve weights.")
    return engine


def _evals(recipe: Recipe, words: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    """The evaluations of the list, of both models, item by item."""
    if not recipe.verify.evals:
        return []
    rows = []
    entries = read_list(recipe.verify.evals)
    settings = {"seed": recipe.seed, "dtype": recipe.dtype, **recipe.verify.settings}
    for side, word in words.items():
        run_suite(entries, [word], settings, folder / "evals" / side)
    for entry in entries:
        new, old = (folder / "evals" / side / entry.label for side in ("new", "old"))
        higher = read_json(new / "result.json").get("better", "higher") != "lower"
        for name, (a, b) in paired(read_log(str(new)), read_log(str(old))).items():
            label = entry.label if name == entry.name else f"{entry.label}, {name}"
            rows += [_row(label, item, "", a.scores[item], b.scores.get(item, [None]), None, higher) for item in a.scores]
    return rows


def _kl(samplers: dict[str, Any], said: Any, prompts: Sequence[Prompt]) -> list[float] | None:
    """By prompt: mean of log π_new(y) - log π_old(y) over the new model's answers."""
    engines: list[Any] = [getattr(samplers[side], "engine", None) for side in ("new", "old")]
    if any(e is None or not hasattr(e, "logprobs") for e in engines):
        return None
    template = engines[0].template
    if template.tokenizer.get_vocab() != engines[1].template.tokenizer.get_vocab():
        return None
    rows = [[s for s in row if len(s.ids)] for row in said]
    seen = samplers["new"].seen
    trees = [Tree(template.prompt_ids(seen(p)), tuple(s.ids for s in row)) for p, row in zip(prompts, rows) if row]
    ours, theirs = (e.logprobs(trees) for e in engines)
    return [float(np.mean([float((a - b).sum()) for a, b in zip(x, y)])) for x, y in zip(ours, theirs)]
