"""What a turn needs is looked for before it begins: a wrong word should not be noticed after a night of training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harken.core.config import following
from harken.core.errors import UserError
from harken.core.find import nearest
from harken.core.settings import check_settings
from harken.launch.find import find_method
from harken.launch.loop.audit import BOUNDS, SETTINGS
from harken.launch.loop.recipe import HELD_OUT, Recipe
from harken.launch.loop.verify import group_of
from harken.launch.rewards import parse_reward
from harken.launch.suite import read_list
from harken.store.files import read_prompts
from harken.text.documents import read_documents


def need(recipe: Recipe) -> None:
    """Raises `UserError` that names the first thing that is missing or cannot be meant."""
    for name in recipe.db:
        if "://" not in name and not Path(name).is_file():
            raise UserError(f"There is no database {name} in {Path.cwd()}.",
                            "harken serve --db makes it. Paths in a recipe count from the folder that the command runs in.")
    prompts = read_prompts(recipe.verify.prompts).records
    if not prompts:
        raise UserError(f"{recipe.verify.prompts} holds no prompt.", "Verification needs prompts that nothing is trained on.")
    group_of(prompts[0], recipe.verify.groups)
    if recipe.verify.text:
        read_documents(recipe.verify.text, "verify.text")
    _audit(recipe)
    _rewards(recipe)
    _methods(recipe)
    _metrics(recipe)


def _audit(recipe: Recipe) -> None:
    for name, value in recipe.audit.items():
        if name not in SETTINGS:
            raise UserError(f"The audit has no setting {name!r}.{nearest(str(name), list(SETTINGS))}",
                            f"Settings: {', '.join(SETTINGS)}.")
        if isinstance(value, bool) != isinstance(SETTINGS[name], bool) or not isinstance(value, int | float):
            raise UserError(f"audit.{name} is {value!r}.", f"It is of the kind of {SETTINGS[name]!r}.")
        low, high = BOUNDS.get(name, (0, 1))
        if not low <= value <= high:
            raise UserError(f"audit.{name} is {value!r}.", f"It lies from {low:g} to {high:g}.")


def _rewards(recipe: Recipe) -> None:
    for word in (recipe.reward.use, "" if recipe.verify.judge == HELD_OUT else recipe.verify.judge):
        if word:
            parse_reward(word).check()


def _methods(recipe: Recipe) -> None:
    """Settings out of their bounds are told by the method itself."""
    for making in (recipe.reward, recipe.policy):
        if making.method:
            module = find_method(making.method)
            filled = {"model": recipe.start, "data": "the turn's", "reward": "the turn's", "out": str(recipe.out)}
            names = {f.name for f in dataclasses.fields(module.Config)}
            given = {**{k: v for k, v in filled.items() if k in names}, **making.settings}
            check_settings(module.Config(**following(module.Config, given)))


def _metrics(recipe: Recipe) -> None:
    """Metrics that rules ask for and that no verification of this recipe makes."""
    known = ["win_rate", "judge"]
    if recipe.reward.method or recipe.reward.use:
        known += ["proxy", "hacking"]
    if recipe.verify.text:
        known.append("tax")
    if recipe.verify.evals:
        known += [entry.label for entry in read_list(recipe.verify.evals)]
    for rule in recipe.gate.rules:
        if rule.metric.split(", ")[0] not in known:
            raise UserError(f"A rule asks for {rule.metric!r}, which this verification does not measure."
                            f"{nearest(rule.metric, known)}",
                            f"It measures {', '.join(known)}; verify.text adds tax, verify.evals adds evaluations.")
