"""What to ask people next: the answers that could be asked about, what the feedback so far tells of them, and what asking costs.

    pool = Pool([(prompt.id, text), …], {prompt.id: words(prompt)}, fit_pace(judgments))
    phi = pool.features(dimensions=32)
    fitted = fit_reliability(pool.aligned(votes), phi=phi, draws=0)
    chosen = next_sets(belief_of(fitted, phi), groups, pool.seconds, n)

`harken next` and the studio's order of items both choose so.

Shape suffixes: `I` answers of the pool, `D` features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from harken.core.records import Prompt
from harken.labelers.asking.belief import Belief, belief_of_features
from harken.labelers.asking.features import TextFeatures
from harken.labelers.asking.pace import Pace
from harken.labelers.models.likelihood import Floats, Ints
from harken.labelers.models.reliability import Reliability
from harken.labelers.votes import Votes


def words(prompt: Prompt) -> str:
    """What a labeler reads of a prompt: its messages, a line each."""
    return "\n".join(m.content for m in prompt.messages)


class Pool:
    """Every answer that could be asked about or was judged, numbered in the order given."""

    def __init__(self, answers: Iterable[tuple[str, str]], asked: Mapping[str, str], pace: Pace) -> None:
        """`answers` are (prompt id, text), equal ones counted once; `asked` has the words of each prompt by its id."""
        self.item = {key: n for n, key in enumerate(dict.fromkeys(answers))}
        numbers = {name: n for n, name in enumerate(dict.fromkeys(name for name, _ in self.item))}
        self.prompt: Ints = np.array([numbers[name] for name, _ in self.item], dtype=np.int64)
        """[I] number of each answer's prompt."""
        self.asked = [asked[name] for name, _ in self.item]
        """[I] words of each answer's prompt."""
        self.texts = [text for _, text in self.item]
        self.lengths: Floats = np.array([len(t) for t in self.texts], dtype=np.float64)
        """[I] characters."""
        self.asked_lengths: Floats = np.array([len(a) for a in self.asked], dtype=np.float64)
        self.pace = pace

    def aligned(self, votes: Votes) -> Votes:
        """The votes with items numbered as the pool's."""
        new = np.array([self.item[key] for key in votes.items], dtype=np.int64)
        return dataclasses.replace(votes, a=new[votes.a], b=new[votes.b], items=tuple(self.item), prompt=self.prompt)

    def features(self, dimensions: int) -> Floats:
        """[I, D] of the texts, within their prompts."""
        return TextFeatures.fit(self.asked, self.texts, dimensions).of(self.asked, self.texts)

    def seconds(self, items: Ints) -> float:
        """Of a ranking of these answers to one prompt: all is read once; each answer beyond two takes a decision more."""
        read = self.pace.seconds(self.lengths[items].sum() + self.asked_lengths[items[0]])
        return float(read) + self.pace.fixed * (len(items) - 2)

    def pair_seconds(self, a: Ints, b: Ints) -> Floats:
        """[N] of comparing a with b, which answer one prompt."""
        return self.pace.seconds(self.lengths[a] + self.lengths[b] + self.asked_lengths[a])


def belief_of(fitted: Reliability | None, phi: Floats) -> Belief:
    """Of the answers with features phi [I, D]; without feedback those differ most whose features do."""
    return Belief(np.zeros(len(phi)), phi / np.sqrt(phi.shape[1])) if fitted is None else belief_of_features(fitted, phi)
