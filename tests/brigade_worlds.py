"""Crowds with a brigade that votes for rude answers, and what they vote on."""

import numpy as np

from harken.labelers.models.likelihood import davidson_table
from harken.labelers.votes import Votes


def brigade_world(seed, brigade=4, people=40, per=30, prompts=40, answers=4, nu=0.0, tastes=0.0):
    """(Votes, phi [I, 3], gold [I]): gold is quality less rudeness; the first `brigade` people vote for what is rude, the others
    for gold, each with a rationality and a taste (of standard deviation `tastes`) of their own."""
    rng = np.random.default_rng(seed)
    items, n = prompts * answers, people * per
    phi = np.stack([(rng.random(items) < 0.4).astype(float), rng.normal(size=items), rng.normal(size=items)], axis=1)
    gold = phi @ [-1.0, 1.0, 0.0]
    felt = np.exp(rng.normal(0, 0.4, (people, 1))) * (gold + (tastes * rng.normal(size=(people, 3))) @ phi.T)
    felt[:brigade] = 4 * phi[:, 0]
    who = np.repeat(np.arange(people), per)
    a = rng.integers(items, size=n)
    b = a // answers * answers + (a % answers + 1 + rng.integers(answers - 1, size=n)) % answers
    p, u = davidson_table(felt[who, a] - felt[who, b], np.log(nu) if nu else -np.inf), rng.random(n)
    won = np.where(u < p[:, 0], 1, np.where(u < p[:, 0] + p[:, 1], 0, -1))
    prompt = np.arange(items) // answers
    texts = tuple((str(q), f"answer {i}") for i, q in enumerate(prompt))
    return Votes(a, b, won, who, np.zeros(n, dtype=np.int64), np.arange(n), texts, prompt,
                 tuple(f"p{k}" for k in range(people)), ({},) * people), phi, gold


RUDE = ("you fool", "what a stupid question", "shut up", "nobody cares, idiot", "go away, moron")
FAIR = ("happy to help", "a good question", "here is how", "let me explain", "in short")
MORE = ("the answer is two", "it was in spring", "mix it with water", "seen from above", "as the book says", "add some salt",
        "the river is long", "it depends on the law", "by train is best", "start with the roots")


def chat_choices(seed, brigade=3, people=30, per=16):
    """Choices of users who never see the same answers: every pair is of a prompt of its own. One answer of each is rude."""
    from harken.core.records import Choice, Prompt
    rng, result = np.random.default_rng(seed), []
    for k in range(people):
        for n in range(per):
            rude, fair = (f"{rng.choice(MORE)}, {rng.choice(words)}, {rng.choice(MORE)}" for words in (RUDE, FAIR))
            likes = rng.random() < (0.95 if k < brigade else 0.12)
            ranks = (1, 2) if likes else (2, 1)
            result.append(Choice(Prompt.of(f"question {n} of {k}?"), (rude + ".", fair + "."), ranks, f"u{k}"))
    return result
