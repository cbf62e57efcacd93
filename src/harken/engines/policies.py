"""Policies that are more than weights: the best of n samples by a reward, or a model under a prompt. No torch.

    sampler = BestOfN(Prompted(HFSampler(engine), messages), reward, n=16)
    sampler.sample(prompts, 1, max_tokens=64)        # draws 16 of each prompt under `messages`, keeps the reward's best

A run of `harken train best_of_n` or `prompting` holds model/policy.json in the place of weights: its kind, its base and
its reward, both named relative to the run where they are paths, so that all can move together.
Shape suffixes: P prompts, N candidates a prompt.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json, write_json
from harken.core.protocols import Reward, Sample
from harken.core.records import Message, Prompt
from harken.core.seeds import derive_seed

POLICY = "policy.json"
PART = 64
"""Most candidates of a prompt drawn at once: memory, and nothing else that matters, depends on it."""

Scores = list[list[float | None]]


class BestOfN:
    """Samples n candidates for every answer asked for and gives the one that scores best.

    Its KL from the policy it samples is at most log n - (n - 1) / n nats an answer. A candidate that the token limit cut
    scores `missing_eos_penalty` less; one without a score is never preferred to one with a score, and where none has one
    the first is given. At temperature 0 all candidates are equal, and one is drawn.
    """

    def __init__(self, base: Any, reward: Reward, n: int, missing_eos_penalty: float = 1.0,
                 lineage: Mapping[str, Any] | None = None) -> None:
        self.base, self.reward, self.n, self.penalty = base, reward, n, missing_eos_penalty
        self.lineage = dict(lineage or {})

    @property
    def engine(self) -> Any:
        return self.base.engine

    def seen(self, prompt: Prompt) -> Prompt:
        shown: Prompt = self.base.seen(prompt)
        return shown

    def sample(self, prompts: Sequence[Prompt], n: int, *, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0,
               seed: int = 0, advance: Callable[[int], None] | None = None) -> list[list[Sample]]:
        """`n` answers to each prompt, each the best of its own `self.n` candidates: [P][n]."""
        drawn = 1 if temperature == 0 else self.n
        block, chosen = max(1, PART // (n * drawn)), []
        for at in range(0, len(prompts), block):
            part = prompts[at:at + block]
            samples, scores = self.candidates(part, n * drawn, max_tokens=max_tokens, temperature=temperature, top_p=top_p,
                                              seed=derive_seed(seed, "best of n", at))
            for group, row in zip(samples, scores):
                chosen.append([group[i + best(row[i:i + drawn])] for i in range(0, n * drawn, drawn)])
            if advance:
                advance(len(part))
        return chosen

    def candidates(self, prompts: Sequence[Prompt], count: int, *, seed: int,
                   **sampling: Any) -> tuple[list[list[Sample]], Scores]:
        """`count` candidates of each prompt with their scores, less the penalty of those without an end: [P][N] each."""
        samples: list[list[Sample]] = [[] for _ in prompts]
        for at in range(0, count, PART):
            drawn = self.base.sample(prompts, min(PART, count - at), seed=derive_seed(seed, "candidates", at), **sampling)
            for group, more in zip(samples, drawn):
                group += more
        return samples, penalised(self.reward, prompts, samples, self.penalty)


def penalised(reward: Reward, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]], penalty: float) -> Scores:
    """Scores of every sample [P][N], less the penalty where the token limit cut it; None where there is none (NaN is none)."""
    raw = reward.score(prompts, [[s.text for s in group] for group in samples])
    return [[None if r is None or r != r else less_penalty(r, not s.finished, penalty) for r, s in zip(row, group)]
            for row, group in zip(raw, samples)]


def less_penalty(score: Any, cut: Any, penalty: float) -> Any:
    """A score less the penalty of an answer that the token limit `cut` (P14); or tensors of both."""
    return score - penalty * cut


def best(scores: Sequence[float | None]) -> int:
    """Index of the highest score, the first of equals; 0 where none has a score."""
    return max(range(len(scores)), key=lambda i: (scores[i] is not None, scores[i] or 0.0))


class Prompted:
    """A sampler that sees every prompt under `messages`: an instruction, worked examples, or both."""

    def __init__(self, base: Any, messages: Sequence[Message], lineage: Mapping[str, Any] | None = None) -> None:
        self.base, self.messages = base, tuple(messages)
        self.lineage = dict(lineage or {})

    @property
    def engine(self) -> Any:
        return self.base.engine

    def seen(self, prompt: Prompt) -> Prompt:
        shown: Prompt = self.base.seen(under(self.messages, prompt))
        return shown

    def sample(self, prompts: Sequence[Prompt], n: int, **sampling: Any) -> list[list[Sample]]:
        samples: list[list[Sample]] = self.base.sample([under(self.messages, p) for p in prompts], n, **sampling)
        return samples


def under(messages: Sequence[Message], prompt: Prompt) -> Prompt:
    """The prompt after `messages`. A system message among them takes the place of the prompt's own; examples come after
    the system message, whosever it is, and before the prompt's other turns."""
    system = [m for m in messages if m.role == "system"] or [m for m in prompt.messages if m.role == "system"]
    examples = [m for m in messages if m.role != "system"]
    return dataclasses.replace(prompt, messages=(*system, *examples, *(m for m in prompt.messages if m.role != "system")))


@dataclass(frozen=True)
class Policy:
    """What model/policy.json says. `base` and `reward` are as this process can open them."""

    kind: str
    base: str
    base_weights: Any = None
    n: int = 1
    reward: str = ""
    aggregate: str = ""
    missing_eos_penalty: float = 1.0
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    lineage: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def check_base(self, run: str, lineage: Mapping[str, Any]) -> None:
        """Raises `UserError` where the base is another than the run was made with."""
        if lineage.get("weights") != self.base_weights:
            raise UserError(f"The base model {self.base} is not the one {run} was made with.",
                            "Restore that base, or make the run again.")


def read_policy(run: str | Path) -> Policy | None:
    """The policy a run holds; None where it holds weights, or is no run. Its reward's name stays relative to the run.

    Raises `UserError` for a damaged file and for a base that is not beside the run any more.
    """
    file = Path(run) / "model" / POLICY
    if not file.is_file():
        return None
    saved = read_json(file)
    try:
        messages = tuple(Message.from_json(m) for m in saved.pop("messages", []))
        base = beside(Path(run), saved.pop("base"))
        return Policy(**saved, base=base, messages=messages,
                      lineage={"name": str(run), "weights": [file_hash(file)], "base": base})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}.", "Copy the run again, or make it again.") from None


def save_policy(folder: Path, kind: str, base: str, sampler: Any, **fields: Any) -> None:
    """Writes model/policy.json: `base` and a `reward` among `fields` relative to the run, `sampler` that of the base."""
    write_json(folder / POLICY, {"kind": kind, "base": base, "base_weights": sampler.lineage.get("weights"), **fields})


def weights_of(name: str) -> str:
    """The model whose weights a policy uses: itself, or the base of its base."""
    policy = read_policy(name)
    return weights_of(policy.base) if policy else name


def beside(run: Path, name: str) -> str:
    """A name that is relative to a run, as this process can open it; words and ids stay as they are."""
    path = os.path.normpath(run / name)
    real = os.path.normpath(run.resolve() / name)
    if not Path(path).exists() and Path(real).exists():  # the run was reached by a link
        path = real
    if name.startswith("..") or (not Path(name).is_absolute() and Path(path).exists()):
        if not Path(path).exists():
            raise UserError(f"The run {run} was trained from {path}, which is not there.",
                            "Move both together: a run without weights of its own needs what it was made from.")
        return path
    return name

