"""Four tasks whose optimum is known, and a model that has seen random answers to them: what every method must solve first.

    reward = Known(BANDIT)                           # a Reward: score(prompts, completions)
    BANDIT.score("Pull.", "k")                       # 1.0, the optimum

bandit: one prompt, eight letters, one of which pays 1 and three 0.2. count: four letters, the share that are "o".
shorter: the fewer letters the better, and none is best. walks: from a letter of a directed graph to "a" by a shortest
path, scored in [0, 1] as trlX's random walks are (its examples/randomwalks, after 2106.01345, section 4.1).
"""

import json
import random
import string
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """`score(prompt, answer)` is at most `optimum`, which `best(prompt)` has; `babble(prompt, rng)` is a random answer."""

    name: str
    prompts: tuple[str, ...]
    max_tokens: int
    optimum: float
    score: Callable[[str, str], float]
    babble: Callable[[str, random.Random], str]
    best: Callable[[str], str]


class Graph:
    """A directed graph on the letters a …; every node reaches "a", and most have wrong turns."""

    def __init__(self, nodes: int, edge: float, seed: int, longest: int) -> None:
        self.longest = longest
        rng = random.Random(seed)
        letters = string.ascii_lowercase[:nodes]
        self.distance: dict[str, int] = {}
        while self.distance.keys() != set(letters):
            self.next = {a: [b for b in letters if a != "a" and b != a and rng.random() < edge] for a in letters}
            self.distance = self._distances()
        self.starts = tuple(letters[1:])

    def _distances(self) -> dict[str, int]:
        found, queue = {"a": 0}, deque("a")
        while queue:
            node = queue.popleft()
            for before, after in self.next.items():
                if node in after and before not in found:
                    found[before] = found[node] + 1
                    queue.append(before)
        return found

    def walk(self, start: str, rng: random.Random) -> str:
        """The nodes of a random walk after its start, until "a" or the longest length."""
        nodes = ""
        while not nodes.endswith("a") and len(nodes) < self.longest:
            nodes += rng.choice(self.next[nodes[-1:] or start])
        return nodes

    def shortest(self, start: str) -> str:
        nodes, node = "", start
        while node != "a":
            node = min(self.next[node], key=lambda n: self.distance[n])
            nodes += node
        return nodes

    def optimality(self, start: str, nodes: str) -> float:
        """1 for a shortest path to "a", less for detours; 0 where an edge is missing or "a" is not the end."""
        if not nodes.endswith("a") or any(b not in self.next.get(a, ()) for a, b in zip(start + nodes, nodes)):
            return 0.0
        return (self.longest + 1 - len(nodes)) / (self.longest + 1 - self.distance[start])


def letters(alphabet: str, low: int, high: int) -> Callable[[str, random.Random], str]:
    return lambda prompt, rng: "".join(rng.choices(alphabet, k=rng.randint(low, high)))


ARMS = {"k": 1.0, "b": 0.2, "s": 0.2, "x": 0.2}
GRAPH = Graph(nodes=12, edge=0.2, seed=3, longest=8)
BANDIT = Task("bandit", ("Pull.",), 2, 1.0, lambda _, c: ARMS.get(c, 0.0), letters("bdfkmsxz", 1, 1), lambda _: "k")
COUNT = Task("count", ("Go.",), 5, 1.0, lambda _, c: min(4, c.count("o")) / 4, letters("aeiouxyz", 4, 4), lambda _: "oooo")
SHORTER = Task("shorter", ("Be brief.", "In short:"), 13, 0.0, lambda _, c: -len(c) / 10, letters("aeiouxyz", 6, 12),
               lambda _: "")
WALKS = Task("walks", GRAPH.starts, 9, 1.0, GRAPH.optimality, GRAPH.walk, GRAPH.shortest)
TASKS = (BANDIT, COUNT, SHORTER, WALKS)


class Known:
    """A task's own reward, as a method sees it."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def score(self, prompts, completions):
        return [[self.task.score(p.text, c) for c in group] for p, group in zip(prompts, completions)]


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def prompts(task: Task, path, copies: int = 1) -> str:
    return write(path, [{"prompt": p} for _ in range(copies) for p in task.prompts])


def babble(tasks: Sequence[Task], path, each: int) -> str:
    """Demonstrations at random: `each` answers to every task, prompts in turn."""
    rng = random.Random(0)
    return write(path, [{"prompt": p, "completion": task.babble(p, rng)} for task in tasks for i in range(each)
                        for p in [task.prompts[i % len(task.prompts)]]])


def best_answers(tasks: Sequence[Task], path, each: int) -> str:
    """Demonstrations at the optimum, `each` to every task."""
    return write(path, [{"prompt": p, "completion": task.best(p)} for task in tasks for i in range(each)
                        for p in [task.prompts[i % len(task.prompts)]]])


def rivals(start: str) -> list[str]:
    """A shortest path, then random walks that are none, each once."""
    rng = random.Random(start)
    walks = dict.fromkeys(GRAPH.walk(start, rng) for _ in range(12))
    return [GRAPH.shortest(start), *(w for w in walks if GRAPH.optimality(start, w) < 1)]


def rankings(task: Task, path, n: int, options: int = 4) -> str:
    """Random answers and a best one, ranked by the task's reward; equal scores tie."""
    rng, rows = random.Random(0), []
    for i in range(n):
        prompt = task.prompts[i % len(task.prompts)]
        answers = list(dict.fromkeys([task.babble(prompt, rng) for _ in range(options - 1)] + [task.best(prompt)]))
        scores = [task.score(prompt, a) for a in answers]
        if len(set(scores)) > 1:
            order = sorted(set(scores), reverse=True)
            rows.append({"prompt": prompt, "completions": answers, "ranks": [order.index(s) + 1 for s in scores]})
    return write(path, rows)
