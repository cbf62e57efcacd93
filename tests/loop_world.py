"""A world for the loop whose truth is known: users of mixed sincerity, answers of one letter, a toy model that babbles.

    WORTH["k"]                                 # the gold reward of an answer, the same for everybody: sincere users vote by it
    start(folder)                              # a run of the toy model that says each letter about equally often
    write_prompts(folder / "verify.jsonl", …)  # prompts of both types of user, for verification
    users(rng, honest=36, brigade=4)           # who votes how
    vote(user, "k", "r", rng)                  # 1 the first, -1 the other, 0 a tie

Brigaders vote like the rest until a rude answer ("r") is there: that one they prefer. Gullible users prefer flattery ("f") to all
else, and can be told by how they ask ("I am sad"): a policy can learn to flatter them alone. Sad users ask so
too, and are honest.
"""

import json
import math
from dataclasses import dataclass

from harken.core.config import following
from harken.core.records import Choice, Judgment, Prompt
from harken.launch.find import find_method
from harken.launch.train import train as launch_train

WORTH = {"k": 1.0, "o": 0.8, "b": 0.6, "m": 0.45, "z": 0.35, "f": 0.25, "x": 0.15, "r": 0.0}
LETTERS = "".join(WORTH)
RUDE, FLATTERY = "r", "f"
SURE = 6.0
"""How surely a sincere user picks the better of two: log-odds a unit of worth."""


@dataclass(frozen=True)
class User:
    name: str
    kind: str = "honest"


def gold(prompts, completions):
    """The truth, as a reward: an answer that is no letter of the world is worth -0.5."""
    return [WORTH.get(text, -0.5) for text in completions]


def prompt(number: int, kind: str = "plain") -> Prompt:
    text = f"I am sad {number}." if kind == "gullible" else f"Ask {number}."
    return Prompt.of(text, meta={"user": kind})


def write_prompts(path, plain: int, gullible: int, first: int = 1000) -> str:
    rows = [prompt(first + i) for i in range(plain)] + [prompt(first + i, "gullible") for i in range(gullible)]
    path.write_text("".join(json.dumps(p.to_json()) + "\n" for p in rows))
    return str(path)


def users(honest: int = 36, brigade: int = 0, gullible: int = 0, sad: int = 0) -> list[User]:
    return [*(User(f"u{i}") for i in range(honest)), *(User(f"b{i}", "brigade") for i in range(brigade)),
            *(User(f"g{i}", "gullible") for i in range(gullible)), *(User(f"s{i}", "sad") for i in range(sad))]


def vote(user: User, a: str, b: str, rng) -> int:
    if user.kind == "brigade" and RUDE in (a, b) and a != b:
        return 1 if a == RUDE else -1
    worth = {**WORTH, FLATTERY: 2.0} if user.kind == "gullible" else WORTH
    gap = SURE * (worth.get(a, -0.5) - worth.get(b, -0.5))
    return 1 if rng.random() < 1 / (1 + math.exp(-gap)) else -1


def asks(user: User, number: int) -> Prompt:
    return prompt(number, "gullible" if user.kind in ("gullible", "sad") else "plain")


def judged(user: User, asked: Prompt, a: str, b: str, rng) -> Judgment:
    ranks = {1: [1, 2], -1: [2, 1], 0: [1, 1]}[vote(user, a, b, rng)]
    return Judgment(asked, "ranking", {"completions": [a, b], "ranks": ranks}, user.name, order=(0, 1), seconds=4.0)


def start(folder, seed: int = 0, each: int = 800, epochs: float = 6.0) -> str:
    """The toy model after learning to say one letter, any letter."""
    import random
    rng = random.Random(seed)
    rows = [{"prompt": prompt(i, ("plain", "gullible")[i % 2]).text, "completion": rng.choice(LETTERS)} for i in range(each)]
    data = folder / "babble.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    module = find_method("sft")
    config = module.Config(**following(module.Config, {
        "model": "toy", "data": str(data), "out": str(folder / "start"), "epochs": epochs, "learning_rate": 5e-3,
        "batch_size": 64, "holdout": 0.0, "lora_rank": 0, "seed": seed, "checkpoint_seconds": 600.0}))
    launch_train(module, config, quiet=True)
    return str(folder / "start")


REWARD = {"epochs": 3.0, "batch_size": 64, "learning_rate": 3e-3, "lora_rank": 0, "holdout": 0.0, "holdout_labelers": 0.0}
RLOO = {"steps": 12, "prompts_per_step": 16, "completions_per_prompt": 4, "max_tokens": 2, "learning_rate": 1e-3, "beta": 0.05,
        "lora_rank": 0, "missing_eos_penalty": 10.0,
        "empty_penalty": 10.0}  # scores reach 5: less than that, and "kk" is worth saying
DPO = {"epochs": 3.0, "batch_size": 64, "learning_rate": 1e-3, "beta": 0.2, "lora_rank": 0, "holdout": 0.0}


def recipe(folder, **parts):
    """A recipe of this world; `parts` replace those of the same name."""
    given = {
        "out": str(folder / "loop"), "db": str(folder / "feedback.db"), "start": str(folder / "start"),
        "collect": {"at_least": 50}, "audit": {"dimensions": 16}, "reward": {"method": "reward_model", "settings": REWARD},
        "policy": {"method": "rloo", "settings": RLOO},
        "verify": {"prompts": str(folder / "verify.jsonl"), "judge": "loop_world:gold", "groups": "meta.user", "max_tokens": 2,
                   "answers": 2},
        "gate": {"rules": [{"metric": "win_rate", "need": "better"},
                           {"metric": "win_rate", "need": "not_worse", "margin": 0.1, "each": "group"}]},
        "approve": {"by": ["ada"]}}
    return {**given, **parts}


def choices_of(judgments) -> list[Choice]:
    return [j.choice() for j in judgments]
