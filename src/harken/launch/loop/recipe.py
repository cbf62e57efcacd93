"""What a loop is made of, read from YAML, TOML, JSON or a Python file.

    recipe = read_recipe("loop.yaml")
    recipe.policy.method, recipe.gate.rules
"""

from __future__ import annotations

import dataclasses
import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.find import nearest
from harken.core.recipes import read_settings
from harken.launch.find import find_method
from harken.launch.loop.key import is_signed, key_file, sign
from harken.launch.loop.rules import read_rules
from harken.stats.gate import Rule
from harken.stats.sequential import Canary

T = TypeVar("T")
OWNED = {"data", "model", "out", "reward", "seed"}
"""Settings of a method that the loop fills in."""
KEPT = "recipe.json"
"""The recipe in the loop's folder."""
HELD_OUT = "held_out"
"""The judge that is fitted on judgments that train nothing."""


@dataclass(frozen=True)
class Collect:
    at_least: int = 100
    """Comparisons since the last turn."""
    use: str = "all"
    """Learn from all judgments that stand (all) or from those since the last turn (new)."""
    held_out: float = 0.0
    """Share of the prompts whose judgments train nothing."""


@dataclass(frozen=True)
class Making:
    """How a reward or a policy is made. `use` names a reward that is there; a reward without either is none."""

    method: str = ""
    use: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verify:
    prompts: str = ""
    judge: str = HELD_OUT
    groups: str = "use_case"
    """What names a prompt's type of user: use_case, tag, or meta.NAME."""
    answers: int = 2
    max_tokens: int = 128
    temperature: float = 1.0
    text: str = ""
    evals: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the evaluations, where they have them."""


@dataclass(frozen=True)
class Gate:
    rules: tuple[Rule, ...]
    """Without any, those of `rules.default_rules`."""
    alpha: float = 0.05


@dataclass(frozen=True)
class Approve:
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """The canary: `share` of the conversations; 0 is none."""

    share: float = 0.0
    error: float = 0.05
    margin: float = 0.05
    most: int = 500

    @property
    def rule(self) -> Canary:
        return Canary(self.error, self.margin, self.most)


@dataclass(frozen=True)
class Recipe:
    out: Path
    db: tuple[str, ...]
    start: str
    collect: Collect
    reward: Making
    policy: Making
    verify: Verify
    gate: Gate
    audit: Mapping[str, Any] = field(default_factory=dict)
    approve: Approve = Approve()
    canary: Share = Share()
    from_: str = "serving"
    seed: int = 0
    dtype: str = "float32"
    given: Mapping[str, Any] = field(default_factory=dict)
    """As it was written."""


TOP = ("out", "db", "start", "from", "seed", "dtype", "collect", "audit", "reward", "policy", "verify", "gate", "approve",
       "canary")


def read_recipe(source: str | Path | Mapping[str, Any]) -> Recipe:
    """A recipe from a file or a dictionary. Raises `UserError` that names the part where it is none."""
    if isinstance(source, Mapping):
        return recipe_of(source, "the recipe")
    path = Path(source)
    if path.is_dir():
        raise UserError(f"{path} is a folder.", "Name the recipe's file.")
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"There is no recipe {path}.", "Check the path.")
        try:
            given = runpy.run_path(str(path)).get("RECIPE")
        except Exception as error:  # it is the user's own program
            raise UserError(f"{path} does not run: {type(error).__name__}: {error}.", "Correct it.") from None
        if not isinstance(given, Mapping):
            raise UserError(f"{path} has no dictionary RECIPE.", "Write RECIPE = {\"out\": …}.")
        return recipe_of(given, str(path))
    return recipe_of(read_settings(path), str(path))


def recipe_of(given: Mapping[str, Any], where: str) -> Recipe:
    try:
        given = dict(json.loads(json.dumps(given, allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where} holds what a turn cannot keep: {error}.",
                        "Write text, numbers, lists and settings by name.") from None
    _known(given, TOP, where)
    missing = [name for name in ("out", "db", "start", "policy", "verify") if not given.get(name)]
    if missing:
        raise UserError(f"{where} has no {missing[0]}.", "docs/loop.md shows a whole recipe.")
    db = given["db"] if isinstance(given["db"], list) else [given["db"]]
    for name, value in (("out", given["out"]), ("start", given["start"]), *(("db", v) for v in db)):
        if not isinstance(value, str):
            raise UserError(f"{where}: {name} is {value!r}.", "It is text: a path or a name.")
    gate = _part(given, "gate", where)
    _known(gate, ("rules", "alpha"), f"{where}, gate")
    approve = _part(given, "approve", where)
    _known(approve, ("by",), f"{where}, approve")
    by = approve.get("by") or []
    if not isinstance(by, str) and not (isinstance(by, list) and all(isinstance(name, str) and name for name in by)):
        raise UserError(f"{where}: approve.by is {by!r}.", "Write a name, or a list of names.")
    recipe = Recipe(
        Path(str(given["out"])), tuple(map(str, db)), str(given["start"]), _filled(Collect, given, "collect", where),
        _filled(Making, given, "reward", where), _filled(Making, given, "policy", where), _filled(Verify, given, "verify", where),
        Gate(read_rules(gate.get("rules") or (), where), _number(gate.get("alpha", 0.05), "gate.alpha", where)),
        dict(_part(given, "audit", where)), Approve((by,) if isinstance(by, str) else tuple(by)),
        _filled(Share, given, "canary", where), str(given.get("from", "serving")),
        int(_number(given.get("seed", 0), "seed", where)), str(given.get("dtype", "float32")), dict(given))
    _check(recipe, where)
    return recipe


def _check(recipe: Recipe, where: str) -> None:
    faults = [
        (recipe.from_ not in ("serving", "start"), f"from is {recipe.from_!r}", "It is serving or start."),
        (recipe.collect.use not in ("all", "new"), f"collect.use is {recipe.collect.use!r}", "It is all or new."),
        (not 0 <= recipe.collect.held_out < 1, "collect.held_out is no share", "It lies between 0 and 1."),
        (recipe.collect.at_least < 1, "collect.at_least is below 1", "A turn needs something new to learn from."),
        (not recipe.policy.method, "policy has no method", "Name one of harken train --help."),
        (bool(recipe.reward.method and recipe.reward.use), "reward has a method and use", "Name one of them."),
        (not recipe.verify.prompts, "verify has no prompts", "Name a file of prompts that nothing is trained on."),
        (recipe.verify.judge == HELD_OUT and not recipe.collect.held_out, "the judge is held_out, and collect holds nothing out",
         "Set collect.held_out: 0.2, or name another judge."),
        (recipe.verify.judge == HELD_OUT and not recipe.reward.method, "the judge is held_out, and reward has no method",
         "Name a reward method, or another judge."),
        (not 0 < recipe.gate.alpha < 0.5, "gate.alpha is no level", "It lies between 0 and 0.5."),
        (not 0 <= recipe.canary.share < 1, "canary.share is no share", "It lies between 0 and 1; 0 is no canary."),
        (not recipe.verify.groups and (not recipe.gate.rules or any(r.each for r in recipe.gate.rules)),
         "a rule asks for each group, and verify.groups is not set", "Set verify.groups: use_case, tag or meta.NAME."),
    ]
    for wrong, fact, action in faults:
        if wrong:
            raise UserError(f"{where}: {fact}.", action)
    try:
        _ = recipe.canary.rule
    except ValueError as error:
        raise UserError(f"{where}, canary: {error}.", "docs/loop.md says what each number means.") from None
    for name, making in (("reward", recipe.reward), ("policy", recipe.policy)):
        if making.method:
            known = [f.name for f in dataclasses.fields(find_method(making.method).Config)]
            _known(making.settings, known, f"{where}, {name}.settings")
            if taken := sorted((OWNED - ({"data"} if name == "policy" else set())) & making.settings.keys()):
                raise UserError(f"{where}: {name}.settings has {taken[0]}, which the loop fills in.", "Leave it out.")
    if recipe.policy.method and _climbs(recipe.policy.method) and not (recipe.reward.method or recipe.reward.use):
        raise UserError(f"{where}: {recipe.policy.method} climbs a reward, and there is none.",
                        "Add reward: {method: reward_model}, or reward: {use: WORD}.")


def _climbs(method: str) -> bool:
    module = find_method(method)
    return "reward" in {f.name for f in dataclasses.fields(module.Config)} and hasattr(module, "TRIAL") and \
        "reward" in module.TRIAL


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: {name} is {value!r}.", "It is a number.")
    return value


def _part(given: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    part = given.get(name) or {}
    if not isinstance(part, Mapping):
        raise UserError(f"{where}: {name} is {part!r}.", f"Write settings below {name}.")
    return part


def _filled(kind: type[T], given: Mapping[str, Any], name: str, where: str) -> T:
    part = _part(given, name, where)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _known(part, list(fields), f"{where}, {name}")
    for key, value in part.items():
        default = fields[key].default
        right = isinstance(value, Mapping) if default is dataclasses.MISSING else isinstance(value, type(default)) or (
            isinstance(default, float) and isinstance(value, int))
        if not right or (isinstance(value, bool) and not isinstance(default, bool)):
            raise UserError(f"{where}: {name}.{key} is {value!r}.", f"It is of the kind of {default!r}."
                            if default is not dataclasses.MISSING else "Write settings below it.")
    return kind(**part)


def _known(given: Mapping[str, Any], names: Any, where: str) -> None:
    if unknown := sorted(set(map(str, given)) - set(names)):
        raise UserError(f"{where} has {unknown[0]!r}, which is no setting.{nearest(unknown[0], list(names))}",
                        f"Settings: {', '.join(sorted(names))}.")


def keep(recipe: Recipe) -> None:
    """Leaves the recipe in the loop's folder, signed: whoever can write the folder cannot pass another one off as it."""
    given = dict(recipe.given)
    write_json(recipe.out / KEPT, {"recipe": given, "mac": sign({"recipe": given})})


def read_loop(word: str | Path, *, trust: bool = False) -> Recipe:
    """A recipe by its file, or by the folder of its loop, where the last `harken loop` left it. Raises `UserError` where the
    folder's copy was not signed with this account's key; with `trust` it is not asked: enough to look, not to act."""
    path = Path(word)
    if not path.is_dir():
        return read_recipe(path)
    kept = path / KEPT
    if not kept.is_file():
        raise UserError(f"{path} is no loop's folder: it has no {KEPT}.", "Run harken loop RECIPE first, or name the recipe.")
    found = read_json(kept)
    given = found.get("recipe")
    if not isinstance(given, Mapping):
        raise UserError(f"{kept} holds no recipe that was signed: it is damaged, or of a Harken that did not sign yet.",
                        "Name the recipe; the next harken loop writes this file anew.")
    if not trust and not is_signed({"recipe": given}, found.get("mac")):
        raise UserError(f"{kept} was not signed with the key {key_file()}: it may be another recipe than yours.",
                        "Name the recipe in the place of the folder; the next harken loop signs the folder's copy.")
    return dataclasses.replace(recipe_of(given, str(kept)), out=path)
