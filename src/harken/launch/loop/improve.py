"""The reward and the policy of a turn: runs of `harken train`, with what the loop knows filled in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from harken.core.config import following
from harken.core.errors import UserError
from harken.core.seeds import derive_seed
from harken.launch.find import find_method
from harken.launch.loop.recipe import HELD_OUT, Making, Recipe
from harken.launch.loop.turns import Turn
from harken.launch.train import train

DATA = {"comparisons": "audit/comparisons.jsonl", "demonstrations": "snapshot/demonstrations.jsonl",
        "prompts": "snapshot/prompts.jsonl"}


def make_reward(recipe: Recipe, turn: Turn, folder: Path) -> dict[str, Any]:
    """Fits the reward on the judgments that train and, where that is the judge, another on those held out."""
    if not recipe.reward.method:
        return {"reward": recipe.reward.use or None}
    facts: dict[str, Any] = {"reward": "reward/run"}
    done = _train(recipe.reward, recipe, recipe.start, turn.path / DATA["comparisons"], folder / "run",
                  seed=derive_seed(recipe.seed, turn.number, "reward"))
    facts["figures"] = _figures(done)
    if recipe.verify.judge == HELD_OUT:
        done = _train(recipe.reward, recipe, recipe.start, turn.path / "audit" / "held_out.jsonl", folder / "held_out",
                      seed=derive_seed(recipe.seed, turn.number, "held out"))
        facts |= {"held_out": "reward/held_out", "held_out_figures": _figures(done)}
    return facts


def reward_of(recipe: Recipe, turn: Turn) -> str:
    """The word for the reward that the turn's policy climbs; empty where there is none."""
    return str(turn.path / "reward" / "run") if recipe.reward.method else recipe.reward.use


def judge_of(recipe: Recipe, turn: Turn) -> str:
    return str(turn.path / "reward" / "held_out") if recipe.verify.judge == HELD_OUT else recipe.verify.judge


def make_policy(recipe: Recipe, turn: Turn, folder: Path) -> dict[str, Any]:
    """Trains on from the model that is served, or from the start."""
    module = find_method(recipe.policy.method)
    kind = str(recipe.policy.settings.get("data") or getattr(module, "TRIAL", {}).get("data") or "comparisons")
    file = turn.path / DATA[kind] if kind in DATA else Path(kind)
    if not file.is_file():
        raise UserError(f"{recipe.policy.method} learns from {kind}, and there is no file {file}.",
                        f"policy.settings.data is {', '.join(DATA)} or a file.")
    base = recipe.start if recipe.from_ == "start" else str(turn.begun["model"])
    settings = {k: v for k, v in recipe.policy.settings.items() if k != "data"}
    names = {f.name for f in dataclasses.fields(module.Config)}
    word = reward_of(recipe, turn)
    more = {"reward": word} if "reward" in names and word else {}
    if "empty_penalty" in names:  # few judgments are of empty answers: a reward learnt from them may think highly of one
        settings = {"empty_penalty": settings.get("missing_eos_penalty", 1.0)} | settings
    done = _train(Making(recipe.policy.method, settings=settings), recipe, base, file, folder / "run",
                  seed=derive_seed(recipe.seed, turn.number, "policy"), **more)
    return {"base": base, "data": str(file.name), "figures": _figures(done)}


def _train(making: Making, recipe: Recipe, base: str, data: Path, out: Path, *, seed: int, **more: Any) -> Any:
    module = find_method(making.method)
    given = {"model": base, "data": str(data), "out": str(out), "seed": seed, "dtype": recipe.dtype, **making.settings, **more}
    run = train(module, module.Config(**following(module.Config, given)))
    return run.result


def _figures(result: Any) -> dict[str, Any]:
    """Numbers and intervals of a finished run."""
    return {k: v for k, v in dict(result).items() if isinstance(v, int | float) or (isinstance(v, dict) and "value" in v)}
