"""The steps of a run, and the law of exact resuming (P22).

    steps = Steps(run, learner, examples, config, "sft", size=config.batch_size, epochs=config.epochs)
    for step, batch in steps:
        metrics = learner.forward_backward(data_of(batch), objective)
        run.log(step + 1, **metrics, **learner.step(steps.rate(step)))
    steps.finish()

What a step sees and draws is a function of the seed and the step alone: its batch, its learning rate, and every random draw of
the loop's body (`derive_seed(config.seed, purpose, step)`). A checkpoint is written only between steps. So a run that was killed
draws the step in flight again, identically, from the state at its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from harken.core.config import TrainConfig
from harken.core.protocols import Learner, Resumable
from harken.core.run import Run
from harken.loops.schedule import Order, learning_rate

Item = TypeVar("Item")


class Steps(Generic[Item]):
    """Yields (step from 0, its batch), `size` of `items` a step over `epochs`, or `config.steps` of them where that is set.

    `parts` are (size, weight) of files that follow one another in `items`. `state` is what checkpoints hold, where it is more
    than the learner's; `begin` is called before the first step of a run that does not resume.
    """

    def __init__(self, run: Run, learner: Learner, items: Sequence[Item], config: TrainConfig, label: str, *, size: int,
                 epochs: float = 1.0, parts: Sequence[tuple[int, float]] = (), state: Resumable | None = None,
                 begin: Callable[[], None] = lambda: None) -> None:
        self.run, self.learner, self.items, self.config, self.label = run, learner, items, config, label
        self.order = Order(len(items), size, epochs, config.seed, parts)
        self.total: int = getattr(config, "steps", 0) or self.order.total
        self.state, self.begin = state or learner, begin

    def __iter__(self) -> Iterator[tuple[int, list[Item]]]:
        checkpoint = self.run.resume()
        if checkpoint:
            self.state.load_state(checkpoint[1])
        else:
            self.begin()
        for step in self.run.track(checkpoint[0] if checkpoint else 0, self.total, self.label):
            yield step, [self.items[i] for i in self.order(step)]
            self.run.checkpoint(step + 1, self.state.save_state)

    def rate(self, step: int, peak: float | None = None) -> float:
        """The learning rate of a step: `config`'s schedule, from `peak` where that is not `config.learning_rate`."""
        config = self.config
        return learning_rate(step, self.total, config.learning_rate if peak is None else peak, schedule=config.schedule,
                             warmup=config.warmup)

    def finish(self, **result: Any) -> None:
        """Writes the model and `result.json`, which gets `steps` and `result`."""
        self.run.finish({"steps": self.total, **result},
                        lambda folder: self.learner.save(folder, base=self.run.config["base"]))
