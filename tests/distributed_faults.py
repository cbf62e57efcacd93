"""A method that fails in one process while the others wait for it: `harken train distributed_faults`."""

from dataclasses import dataclass

from harken.core import processes
from harken.core.config import TrainConfig
from harken.core.errors import UserError
from harken.core.protocols import Tree


@dataclass(frozen=True)
class Config(TrainConfig):
    """Nothing of its own."""


def train(config, learner, sampler, reward, run):
    if processes.group().rank == 1:
        raise UserError("The second process met a fault.", "Mend it.")
    learner.logprobs([Tree((1,), ((2,),))])
    run.finish({"steps": 0})
