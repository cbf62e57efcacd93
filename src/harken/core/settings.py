"""What settings may be: types, bounds and words."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from harken.core.errors import UserError
from harken.core.seeds import MOST_SEED

BEYOND = sys.float_info.max
"""A file of settings may hold whole numbers that no float can."""
LEAST = {"learning_rate": 0, "warmup": 0, "max_grad_norm": 0, "weight_decay": 0, "lora_rank": 0, "tokens_per_micro_batch": 1,
         "max_length": 2, "checkpoint_seconds": 0, "batch_size": 1, "holdout": 0, "holdout_labelers": 0, "steps": 0,
         "prompts_per_step": 1, "completions_per_prompt": 1, "max_tokens": 1, "temperature": 0, "top_p": 0, "beta": 0,
         "missing_eos_penalty": 0, "reward_clip": 0, "clip": 0, "samples_per_step": 0, "n": 1, "epochs": 0, "nll_weight": 0,
         "labeler_learning_rate": 0, "folds": 2, "retest": 0, "min_entropy": 0, "max_failures": 0,
         "n_shots": 0, "budget": 1, "seed": 0, "pool": 1, "monitor_every": 1, "monitor_prompts": 8}
ABOVE = {"epochs": 0, "top_p": 0}
MOST = {"warmup": 1, "holdout": 1, "holdout_labelers": 1, "top_p": 1, "max_failures": 1, "seed": MOST_SEED}
ONE_OF = {"schedule": ("cosine", "linear", "constant"), "overlong": ("drop", "truncate", "fail"),
          "dtype": ("float32", "bfloat16", "auto"), "ties": ("drop", "davidson", "rao_kupper"),
          "labelers": ("plain", "reliability", "groups"), "tied": ("drop", "half"), "answers": ("expected", "sampled"),
          "penalty": ("both", "l1", "l2"), "weak": ("drop", "keep", "fail"), "search": ("none", "greedy"),
          "direction": ("reverse", "forward"), "select": ("last", "loss", "reward")}
KINDS: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}


def check_settings(config: Any) -> None:
    """Refuses values of another type, out of range or unknown, before anything is loaded or written."""
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        flag, kind = "--" + name.replace("_", "-"), getattr(field.type, "__name__", str(field.type))
        if not isinstance(value, KINDS.get(kind, object)) or (isinstance(value, bool) and kind in ("int", "float")):
            raise UserError(f"{flag} {value!r} is not a value of type {kind}.", "Correct it (in the file given to --config?).")
    check_values({f.name: getattr(config, f.name) for f in dataclasses.fields(config)})


def check_values(settings: Mapping[str, Any]) -> None:
    """Refuses a number out of its range and a word that is not known, by the setting's name."""
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if name in ONE_OF and value not in ONE_OF[name]:
            raise UserError(f"{flag} {value!r} is unknown.", f"Use one of {', '.join(ONE_OF[name])}.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low, high = LEAST.get(name, -BEYOND), MOST.get(name, BEYOND)
        if not low <= value <= high or value == ABOVE.get(name):
            bounds = [f"above {low}" if name in ABOVE else f"at least {low}"] if name in LEAST else []
            bounds += [f"at most {high}"] if name in MOST else []
            raise UserError(f"{flag} {value} is out of range.", f"It must be {' and '.join(bounds) or 'a finite number'}.")
