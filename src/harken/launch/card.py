"""A model card from lineage: what a model was made of, by which method and settings, its figures and their limits.

It names no path of this machine and no labeler, and has no date: the same run gives the same card.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json
from harken.core.protocols import Estimate
from harken.core.version import __version__
from harken.engines.policies import beside
from harken.launch.find import find_method

UNSAID = {"command", "base", "reward_base", "model", "data", "out", "runs", "max_length", "checkpoint_seconds",
          "checkpoint_activations", "shard", "profile", "tokens_per_micro_batch", "dtype", "skip_bad"}
"""Settings that a card leaves out: named elsewhere in it, or without effect on the model."""
LIMITS = (
    "- A figure holds for the prompts, the people and the judge it was measured with; its interval says how far chance moves it.",
    "- Nothing here shows that the model is safe, or right about facts. Test it for your use.",
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One run of the chain that made a model: what its folder says."""

    path: Path
    config: Mapping[str, Any]
    lineage: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def method(self) -> str:
        return str(self.config.get("command", "")).removeprefix("train ")


def steps_of(word: str) -> tuple[list[Step], str]:
    """(the runs that made the model, the first one first; the word for the model they began with)."""
    path = Path(word)
    if not (path / "lineage.json").is_file():
        return [], word
    step = Step(path, *(read_json(path / f"{name}.json") for name in ("config", "lineage", "result")))
    base = str(step.config.get("base") or "")
    if not base:  # an average of runs has no single parent
        return [step], ""
    before, root = steps_of(beside(path, base))
    return [*before, step], root


def licence_of(root: str) -> str:
    """The licence of a base as far as it says one: the embedded model's, or that of a folder's README."""
    if root == "smollm2":
        return "apache-2.0"
    readme = Path(root) / "README.md"
    if not readme.is_file() and root.count("/") == 1:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
        try:
            found = try_to_load_from_cache(root, "README.md")
        except HFValidationError:
            found = None
        readme = Path(found) if isinstance(found, str) else readme
    head = readme.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0] if readme.is_file() else ""
    named = re.search(r"^license:\s*([\w.-]+)\s*$", head, re.M)
    return named[1] if named else ""


def write_card(word: str, *, name: str, kind: str, base: str | None, use: str, notes: Sequence[str] = (),
               evaluations: Sequence[Path] = (), identity: Any = None, labelers: bool = False) -> str:
    """The card of the model that `word` names. `kind` says what the folder holds, `base` is its hub id if it has one, `use`
    how to load it, `notes` what to know of the export. Names of labelers stand in it only where `labelers` asks for them.

    Raises `UserError` for an evaluation of another model.
    """
    steps, root = steps_of(word)
    licence = licence_of(root)
    tags = ["harken", *dict.fromkeys(step.method.replace("_", "-") for step in steps)]
    head = {"license": licence, "base_model": base or "", "library_name": "transformers",
            "pipeline_tag": "text-classification" if kind == "reward" else "text-generation"}
    front = [f"{key}: {value}" for key, value in head.items() if value] + ["tags:", *(f"- {tag}" for tag in tags if tag)]
    figures = [*_figures(steps), *(row for path in evaluations for row in _evaluation(path, identity))]
    people = sorted({name for step in steps for name in _labelers(step)})
    hidden = [] if labelers else people
    text = "\n".join([
        "---", *front, "---", f"# {name}", "", _opening(steps, root, kind), "", "## Use", "", use, *notes, "",
        "## How it was made", "", *_made(steps, hidden), "## Figures", "",
        *(["| of | figure | value | 95 % interval | n |", "|---|---|---|---|---|", *figures] if figures else
          ["None with an interval was kept with the run. `harken eval` measures; `--eval RUN` puts its result here."]),
        "", "## Limits", "", *LIMITS, *(f"- {_public(note, hidden)}" for step in steps for note in step.result.get("notes", [])),
        "", "## Licence", "", f"The base model's: {licence}." if licence else
        "Not known here: the base model's terms hold for what is made of it, and the data may have terms of its own.", ""])
    return text + (f"\n## Labelers\n\n{', '.join(people)}\n" if labelers and people else "")


def _opening(steps: Sequence[Step], root: str, kind: str) -> str:
    chain = " → ".join([_name(root) if root else "several runs", *(step.method for step in steps)])
    if not steps:
        return f"{_name(root)}, as Harken {__version__} reads it; nothing was trained."
    what = "A reward model (it turns a dialogue into a number)" if kind == "reward" else "A language model"
    return f"{what} made with Harken {__version__}: {chain}."


def _made(steps: Sequence[Step], hidden: Sequence[str]) -> Iterable[str]:
    """Each run: its data by hash, its people by number, what it learnt from, its settings where they are not the defaults."""
    if not steps:
        return ["Nothing was trained here.", ""]
    lines = []
    for number, step in enumerate(steps, 1):
        lines.append(f"{number}. **{step.method}** (Harken {step.lineage.get('code', 'of unknown version')})")
        lines += [f"   - {option}: {_name(entry['path'])}, sha256 `{entry['sha256']}`"
                  for option, entry in step.lineage.items() if isinstance(entry, dict) and "sha256" in entry]
        counts = [f"{step.result[key]:,} {key}" for key in ("demonstrations", "rankings", "prompts", "steps")
                  if isinstance(step.result.get(key), int)]
        people = len(_labelers(step))
        lines.append(f"   - {', '.join([*counts, f'{people:,} labelers' if people else 'number of labelers not known'])}")
        if "reward" in step.lineage:
            lines.append(f"   - reward: {_identity(step.lineage['reward'])}")
        changed = ", ".join(f"{key} {_public(str(value), hidden)}" for key, value in _changed(step).items())
        lines.append(f"   - settings besides the defaults: {changed or 'none'}")
    return [*lines, ""]


def _changed(step: Step) -> dict[str, Any]:
    try:
        config = find_method(step.method).Config
        defaults = {f.name: f.default for f in dataclasses.fields(config)}
    except UserError:  # a method of somebody's own that is not here, or an average
        defaults = {}
    return {key: value for key, value in step.config.items()
            if key not in UNSAID | {"reward", "held_out_reward"} and value != defaults.get(key, "")}


def _labelers(step: Step) -> set[str]:
    """Who said what the run learnt from, where its data is still there unchanged."""
    data = step.lineage.get("data")
    if not isinstance(data, dict) or not {"path", "sha256"} <= data.keys():
        return set()
    file = Path(data["path"])
    if not file.is_file() or file_hash(file) != data["sha256"]:
        return set()
    names = set()
    for line in file.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("labeler"), str) and row["labeler"]:
            names.add(row["labeler"])
    return names


def _figures(steps: Sequence[Step]) -> list[str]:
    return [_row(step.method, key, found) for step in steps[-1:] for key, value in step.result.items()
            if (found := _estimate(value))]


def _evaluation(path: Path, identity: Any) -> list[str]:
    """Rows of an evaluation run. Raises `UserError` unless it judged this model."""
    config, lineage, result = (read_json(path / f"{name}.json") for name in ("config", "lineage", "result"))
    if not str(config.get("command", "")).startswith("eval "):
        raise UserError(f"{path} is not an evaluation.", "Give a run of harken eval.")
    measured = lineage.get("model")
    if not isinstance(identity, dict) or not isinstance(measured, dict) or measured.get("weights") != identity.get("weights"):
        raise UserError(f"{path} measured another model: {result.get('model', 'unnamed')}.",
                        "Give an evaluation of the run that you export.")
    what = str(config["command"]).removeprefix("eval ")
    beside_it = [f"against {_name(str(result['against']))}"] if result.get("against") else []
    beside_it += [f"judged by {_name(str(result['judge']))}"] if result.get("judge") else []
    title = ", ".join([what, *beside_it])
    rows = [_row(title, key if key != "value" else what.replace("_", " "), found)
            for key, value in result.items() if (found := _estimate(value))]
    return rows + [_row(title, f"baseline: {key}", found) for key, value in (result.get("baselines") or {}).items()
                   if (found := _estimate(value))]


def _estimate(value: Any) -> Estimate | None:
    if not isinstance(value, Mapping) or not {"value", "low", "high", "n"} <= value.keys() or value["value"] is None:
        return None
    return Estimate.from_json(value)


def _row(what: str, figure: str, found: Estimate) -> str:
    return f"| {what} | {figure.replace('_', ' ')} | {found.value:.3f} | {found.low:.3f} to {found.high:.3f} | {found.n:,} |"


def _identity(value: Any) -> str:
    """A reward's or a model's identity without paths: its last name, and its weights' hash."""
    if isinstance(value, Mapping):
        weights = value.get("weights") or value.get("sha256") or ""
        first = weights[0] if isinstance(weights, list) and weights else weights
        return f"{_name(str(value.get('run', value.get('name', 'a reward'))))}" + (f", sha256 `{first}`" if first else "")
    if isinstance(value, list):
        return "; ".join(_identity(part) for part in value)
    return _public(str(value))


def _name(path: str) -> str:
    """A path's last name; words and hub ids stay whole."""
    return Path(path).name if Path(path).is_absolute() or path.startswith(".") else path


def _public(text: str, hidden: Sequence[str] = ()) -> str:
    """A text whose absolute paths are cut to their last name, without the names that are to be hidden."""
    for name in hidden:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "a labeler", text)
    return re.sub(r"(?<![\w.:/])/(?:[^\s/:,;'\"]+/)+([^\s/:,;'\"]+)", r"\1", text)


def gate_section(record: Mapping[str, Any]) -> str:
    """What the loop's turn says of a model it made (launch.loop.lineage.gate_record): who was asked, what the gate found, whether
    a person approved. `gate.json` beside the card has all of it."""
    lines = ["", "## The turn it comes from", "",
             f"Turn {record['turn']} of a loop: judgments on served answers made this model."]
    if said := record.get("snapshot"):
        lines.append(f"It learnt from {said['comparisons']:,} comparisons on {said['prompts']:,} prompts by {said['labelers']:,} "
                     "people.")
    if said := record.get("audit"):
        lines.append(f"The audit left out {said['left_out']:,} comparisons; {said['set_aside']} entries were to be looked at.")
    lines += ["", f"The gate's verdict was **{record['gate']['verdict']}**, against the model served before (intervals are "
              f"{1 - record['gate']['alpha']:.0%}):", "", "| rule | of | found | difference | interval | prompts |",
              "|---|---|---|---|---|---|"]
    for rule in record["gate"]["rules"]:
        for f in rule["findings"]:
            d = f["difference"]
            numbers = f"{d['value']:+.3f} | {d['low']:+.3f} to {d['high']:+.3f}" if d else "none | none"
            lines.append(f"| {rule['rule']} | {f['name']} | {'holds' if f['holds'] else f['why']} | {numbers} | {f['items']} |")
    said = record.get("approval")
    lines += ["", f"A person decided: {said['decision']}, {said['at'][:10]}." if said else "No person has approved it.",
              "It is meant for the people and the prompts it was verified on; what was not asked there is not known.", ""]
    return "\n".join(lines)
