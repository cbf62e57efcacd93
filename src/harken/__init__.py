"""Harken turns people's judgments into a language model that acts on them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harken.core.version import __version__

_WHERE = {
    "load": "launch.python", "train": "launch.python", "sample": "launch.python", "score": "launch.python",
    "evaluate": "launch.python", "export": "launch.export", "next_questions": "launch.python", "open_reward": "launch.rewards",
    "read_comparisons": "store.files", "read_demonstrations": "store.files", "read_prompts": "store.files",
    "write_jsonl": "store.files", "open_database": "store.database", "Run": "core.run", "UserError": "core.errors",
    "Prompt": "core.records", "Message": "core.records",
    "Sample": "core.protocols", "Choice": "core.records", "Demonstration": "core.records",
    "Judgment": "core.records", "EvalResult": "core.protocols", "Estimate": "core.protocols",
    "votes_of": "labelers.votes", "ratings_of": "labelers.ratings", "rankings_of": "labelers.rankings", "fit_reliability":
    "labelers.models.reliability", "fit_dawid_skene": "labelers.models.dawid_skene", "fit_glad": "labelers.models.glad",
    "fit_traits": "labelers.models.given", "fit_groups": "labelers.groups.scores", "fit_mixture": "labelers.groups.mixture",
    "fit_disagreement": "labelers.groups.disagreement", "fit_mean_variance": "labelers.groups.distributional",
    "fit_categorical": "labelers.groups.distributional", "fit_pace": "labelers.asking.pace",
}
"""Where each public name lives: loaded when first asked for, so that the base needs no torch. `harken.report(runs, out)` is
the package of that name, which can be called."""

__all__ = ["__version__", "report", *_WHERE]

if TYPE_CHECKING:
    from harken import report as report
    from harken.core.errors import UserError as UserError
    from harken.core.protocols import Estimate as Estimate
    from harken.core.protocols import EvalResult as EvalResult
    from harken.core.protocols import Sample as Sample
    from harken.core.records import Choice as Choice
    from harken.core.records import Demonstration as Demonstration
    from harken.core.records import Judgment as Judgment
    from harken.core.records import Message as Message
    from harken.core.records import Prompt as Prompt
    from harken.core.run import Run as Run
    from harken.labelers.asking.pace import fit_pace as fit_pace
    from harken.labelers.groups.disagreement import fit_disagreement as fit_disagreement
    from harken.labelers.groups.distributional import fit_categorical as fit_categorical
    from harken.labelers.groups.distributional import fit_mean_variance as fit_mean_variance
    from harken.labelers.groups.mixture import fit_mixture as fit_mixture
    from harken.labelers.groups.scores import fit_groups as fit_groups
    from harken.labelers.models.dawid_skene import fit_dawid_skene as fit_dawid_skene
    from harken.labelers.models.given import fit_traits as fit_traits
    from harken.labelers.models.glad import fit_glad as fit_glad
    from harken.labelers.models.reliability import fit_reliability as fit_reliability
    from harken.labelers.rankings import rankings_of as rankings_of
    from harken.labelers.ratings import ratings_of as ratings_of
    from harken.labelers.votes import votes_of as votes_of
    from harken.launch.export import export as export
    from harken.launch.python import evaluate as evaluate
    from harken.launch.python import load as load
    from harken.launch.python import next_questions as next_questions
    from harken.launch.python import sample as sample
    from harken.launch.python import score as score
    from harken.launch.python import train as train
    from harken.launch.rewards import open_reward as open_reward
    from harken.store.database import open_database as open_database
    from harken.store.files import read_comparisons as read_comparisons
    from harken.store.files import read_demonstrations as read_demonstrations
    from harken.store.files import read_prompts as read_prompts
    from harken.store.files import write_jsonl as write_jsonl


def __getattr__(name: str) -> Any:
    if name == "report":
        return importlib.import_module("harken.report")
    if name not in _WHERE:
        raise AttributeError(f"module 'harken' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harken.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
