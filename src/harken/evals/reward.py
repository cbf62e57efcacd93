"""A reward model's card: accuracy by category, labeler and source, best of 4 and ties, calibration, length, null rules.

    harken eval reward --reward runs/rm --data comparisons.jsonl --out runs/card
    harken eval reward --reward toxicity --data rewardbench.jsonl --out runs/card

Reads comparisons of ours, and the layouts of RewardBench 1 and 2, RM-Bench, JudgeBench and LLMBar from local files. A pair
with equal scores counts half in `accuracy` and nothing in `strict`; both stand beside what needs no model: longest, shortest,
constant (E15). Composites show their weights (E20): RewardBench 1's sections weigh math-prm as 984 items and each section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, EvalResult, Models
from harken.core.records import Choice, Prompt
from harken.core.run import Run
from harken.loops.items import read_items, wrong_layout
from harken.stats.calibration import reliability
from harken.stats.intervals import bootstrap, mean_interval
from harken.stats.pairs import BASELINES, evaluate_pairs
from harken.stats.reward_bench import (
    OVERALL,
    PRIOR_SETS,
    SECTIONS,
    SUBSETS_2,
    TiedPrompt,
    judge_bench,
    llm_bar,
    sections,
    style_levels,
    ties_score,
)
from harken.store.files import read_comparisons, read_rows
from harken.store.shapes.pairs import SIGNS

STYLES = ("concise", "detailed, plain", "detailed, markdown")
FEWEST = 5
"""A labeler or category of fewer pairs has no row of its own."""


@dataclass(frozen=True)
class Config:
    reward: str = setting("", names="reward", required=True)
    """The reward in question: a run, gold, or a scorer's name."""
    data: str = setting("", names="file", required=True)
    """Comparisons of ours, or a file of RewardBench 1 or 2, RM-Bench, JudgeBench or LLMBar."""
    out: str = setting("", required=True)
    """Run directory to write."""
    aggregate: str = ""
    """How a reward with groups makes one score: mean, group:NAME, worst or quantile:Q; empty is its shared head."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""


@dataclass(frozen=True)
class Item:
    """A choice, and what it is counted under. `id` pairs RewardBench 2's reference and tied prompts."""

    choice: Choice
    category: str = ""
    id: str = ""
    benchmark: str = ""
    """judge_bench or llm_bar, whose categories are their own."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` for a file of no known layout, and where no pair has both scores."""
    items = load(config.data)
    raw = models.reward("reward").score([i.choice.prompt for i in items], [i.choice.options for i in items])
    scores = [[None if x is None or x != x else float(x) for x in row] for row in raw]
    try:
        card = evaluate_pairs([i.choice for i in items], scores)
    except ValueError as error:
        raise UserError(f"{config.reward} gave nothing to compare: {error}.", "Check --data and --reward.") from None
    figures: dict[str, Any] = {"strict": card.strict, "equal_scores": card.equal}
    p, y, clusters = _pairs(items, scores)
    figures["calibration"] = {"ece": card.ece, "brier": reliability(p, y, np.linspace(0.5, 1, 11), clusters).brier}
    figures["length_correlation"] = length_correlation(items, scores)
    for name, key in (("category", lambda i: i.category), ("labeler", lambda i: i.choice.labeler or ""),
                      ("source", lambda i: i.choice.kind)):
        if rows := by(items, scores, key):
            figures[f"by_{name}"] = rows
    figures |= composites(items, scores)
    best = [best_of(row, i.choice.ranks) for i, row in zip(items, scores) if len(row) > 2]
    if any(b is not None for b in best):
        figures["best_of_n"] = mean_interval([b for b in best if b is not None], bounds=(0, 1))
    samples = [{"prompt": i.choice.prompt.text, "answer": o, "score": s, "rank": r, "category": i.category} for i, row
               in zip(items, scores) for o, s, r in zip(i.choice.options, row, i.choice.ranks)][:2000]
    missing = sum(x is None for row in scores for x in row)
    return EvalResult(card.accuracy, figures, card.baselines, samples, missing)


def best_of(row: Sequence[float | None], ranks: Sequence[int]) -> float | None:
    """1 where the right answer alone has the highest score, its share of a tie; none with a missing score or several right."""
    if any(x is None for x in row) or ranks.count(1) != 1:
        return None
    top = max(x for x in row if x is not None)
    return (row[ranks.index(1)] == top) / sum(x == top for x in row)


def by(items: Sequence[Item], scores: Sequence[Sequence[float | None]], key: Callable[[Item], str]) -> dict[str, Estimate]:
    """Accuracy under each value of `key`, where there are at least five pairs and more than one value."""
    groups: dict[str, list[int]] = {}
    for n, item in enumerate(items):
        groups.setdefault(key(item), []).append(n)
    found = {}
    for name, members in sorted(groups.items()):
        if len(groups) > 1 and name and sum(len(items[n].choice.pairs()) for n in members) >= FEWEST:
            try:
                found[name] = evaluate_pairs([items[n].choice for n in members], [scores[n] for n in members]).accuracy
            except ValueError:  # no pair with both scores
                continue
    return found


def _pairs(items: Sequence[Item], scores: Sequence[Sequence[float | None]]) -> tuple[list[float], list[float], list[str]]:
    """(sigma(|difference|), whether it was right, prompt) of every pair with both scores."""
    rows = [(abs(a - b), 0.5 if a == b else float(a > b), i.choice.prompt.id) for i, row in zip(items, scores)
            for w, v in i.choice.pairs() for a, b in [(row[w], row[v])] if a is not None and b is not None]
    return [float(1 / (1 + np.exp(-d))) for d, _, _ in rows], [y for _, y, _ in rows], [c for _, _, c in rows]


def length_correlation(items: Sequence[Item], scores: Sequence[Sequence[float | None]]) -> Estimate | None:
    """Pearson correlation of score and length in characters within prompts (each less its prompt's mean), by bootstrap."""
    parts = []
    for item, row in zip(items, scores):
        known = [(s, float(len(o))) for s, o in zip(row, item.choice.options) if s is not None]
        if len(known) > 1:
            parts.append(np.array(known) - np.mean(known, axis=0))
    if len(parts) < FEWEST:
        return None

    def statistic(drawn: Any) -> float:
        x = np.concatenate([parts[i] for i in drawn])
        norm = float(np.sqrt((x[:, 0] ** 2).sum() * (x[:, 1] ** 2).sum()))
        return float(x[:, 0] @ x[:, 1]) / norm if norm > 0 else 0.0
    return bootstrap(statistic, len(parts))


def composites(items: Sequence[Item], scores: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """RewardBench 1's sections with their weights, RewardBench 2's subsets and Ties, RM-Bench's levels, JudgeBench's and
    LLMBar's parts: what the file has. A tie is no win in any."""
    found: dict[str, Any] = {}
    won: dict[str, dict[str, list[float]]] = {}
    for i, row in zip(items, scores):
        if len(row) == 2 and row[0] is not None and row[1] is not None:
            won.setdefault(i.benchmark, {}).setdefault(i.category, []).append(float(row[0] > row[1]))
    accuracy = {name: sum(x) / len(x) for name, x in won.get("", {}).items()}
    subsets = {s: accuracy[s] for part in SECTIONS.values() for s in part if s in accuracy}
    prior = [accuracy[s] for s in PRIOR_SETS if s in accuracy]
    if subsets or prior:
        found["reward_bench"] = {**sections(subsets, sum(prior) / len(prior) if prior else None),
                                 "weights": ", ".join(f"{k} {v}" for k, v in OVERALL.items())}
    found |= reward_bench_2(items, scores)
    for name, parts in (("judge_bench", judge_bench), ("llm_bar", llm_bar)):
        if name in won and (figures := parts(won[name])):
            found[name] = figures
    styles = [(i.category, [x or 0.0 for x in row[:3]], [x or 0.0 for x in row[3:]]) for i, row in zip(items, scores)
              if i.id == "rm-bench" and None not in row]
    if styles:
        found["rm_bench"] = style_levels(styles)
    return found


def reward_bench_2(items: Sequence[Item], scores: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """RewardBench 2: best of four in each subset, the Ties score, and their plain mean over the subsets there are."""
    best: dict[str, list[float]] = {}
    prompts: dict[str, dict[str, TiedPrompt]] = {"ref": {}, "tied": {}}
    for item, row in zip(items, scores):
        kind, colon, number = item.id.partition(":")
        if item.category.lower() == "ties" and colon and kind in prompts and None not in row:
            prompts[kind][number] = _tied(item, row)
        elif item.category in SUBSETS_2 and len(row) > 2 and (b := best_of(row, item.choice.ranks)) is not None:
            best.setdefault(item.category, []).append(b)
    found: dict[str, Any] = {}
    subsets = {name: sum(best[name]) / len(best[name]) for name in SUBSETS_2 if name in best}
    if prompts["ref"].keys() & prompts["tied"].keys():
        found["reward_bench_2_ties"] = subsets["Ties"] = ties_score(prompts["ref"], prompts["tied"])
    if subsets:
        found["reward_bench_2"] = {**subsets, "overall": sum(subsets.values()) / len(subsets)}
    return found


def _tied(item: Item, row: Sequence[float | None]) -> TiedPrompt:
    known = [x for x in row if x is not None]
    return TiedPrompt(tuple(x for x, r in zip(known, item.choice.ranks) if r == 1),
                      tuple(x for x, r in zip(known, item.choice.ranks) if r > 1))


# --- layouts -----------------------------------------------------------------------------------------


def load(path: str) -> list[Item]:
    """Items of any known layout; the first row tells which. JSON, CSV, Parquet, packed or not."""
    try:
        rows = read_items(path, "") if Path(path).suffix in (".json", ".jsonl", ".csv") else [row for _, row in read_rows(path)]
        rows = rows if isinstance(rows, list) else rows["data"]
        layout = layout_of(rows[0])
        if layout is None:
            raise LookupError
        return [layout(row) for row in rows] if layout is not _llm_bar else [_llm_bar(row, folder(path)) for row in rows]
    except (LookupError, UserError):
        choices = read_comparisons(path).records
        return [Item(c, (c.prompt.use_case or "")) for c in choices if c.has_preference]
    except (TypeError, ValueError, AttributeError) as error:
        raise wrong_layout(path, error, "comparisons, or RewardBench, RM-Bench, JudgeBench or LLMBar") from None


def layout_of(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Item] | None:
    """A benchmark's reader; None for comparisons, in any of the shapes they come in: answers that are messages, named labelers,
    transcripts. RewardBench 1 names a subset; RewardBench 2 and RM-Bench give lists of answers."""
    layout = next((read for keys, read in LAYOUTS if keys <= set(row)), None)
    if layout is _reward_bench:
        answers = [row["chosen"], row["rejected"]]
        listed = all(isinstance(a, (list, tuple)) and all(isinstance(x, str) for x in a) for a in answers)
        named = "subset" in row and all(isinstance(a, str) for a in answers)
        return layout if listed or named else None
    return None if "completions" in row else layout


def _item(prompt: Any, right: Sequence[str], wrong: Sequence[str], category: str = "", id: str = "", benchmark: str = "") -> Item:
    asked = Prompt.from_json({"prompt": prompt})
    return Item(Choice(asked, (*right, *wrong), (1,) * len(right) + (2,) * len(wrong)), category, id, benchmark)


def _listed(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]


def _reward_bench(row: Mapping[str, Any]) -> Item:
    right, wrong = _listed(row["chosen"]), _listed(row["rejected"])
    rm_bench = len(right) == len(wrong) == len(STYLES) and "subset" not in row
    return _item(row["prompt"], right, wrong, str(row.get("subset") or row.get("domain") or ""),
                 "rm-bench" if rm_bench else str(row.get("id", "")))


def _judge_bench(row: Mapping[str, Any]) -> Item:
    a, b = row["response_A"], row["response_B"]
    signs = SIGNS.fullmatch(str(row["label"]).strip())
    if signs is None or {signs[1], signs[3]} != {"A", "B"} or signs[2] == "=":
        raise ValueError(f"label {str(row['label'])[:40]!r} is neither A>B nor B>A")
    right, wrong = (a, b) if (signs[1] == "A") == (">" in signs[2]) else (b, a)
    return _item(row["question"], [right], [wrong], str(row.get("source", "")), benchmark="judge_bench")


def _llm_bar(row: Mapping[str, Any], subset: str = "") -> Item:
    outputs = row["output_1"], row["output_2"]
    if (label := str(row["label"]).strip()) not in ("1", "2"):
        raise ValueError(f"label {label[:40]!r} is neither 1 nor 2")
    best = int(label) - 1
    return _item(row["input"], [outputs[best]], [outputs[1 - best]], str(row.get("subset") or subset), benchmark="llm_bar")


def folder(path: str) -> str:
    """LLMBar's subset is its folder: Natural, or a part of Adversarial (Dataset/LLMBar/Adversarial/Neighbor/dataset.json)."""
    parts = Path(path).resolve().parts[:-1]
    return parts[-1] if parts and (parts[-1] == "Natural" or "Adversarial" in parts[-2:-1]) else ""


LAYOUTS: tuple[tuple[set[str], Callable[[Mapping[str, Any]], Item]], ...] = (
    ({"prompt", "chosen", "rejected"}, _reward_bench), ({"question", "response_A", "response_B", "label"}, _judge_bench),
    ({"input", "output_1", "output_2", "label"}, _llm_bar))
assert set(BASELINES) == {"longest", "shortest", "constant"}
