"""Groups of odd shapes learn the same packed, a micro-batch each, unshared, and on two processes: RLOO, GRPO, PPO, DPO.

One completion far longer than the rest, empty answers (their end alone), one cut before its end, a prompt of one
token, and a group whose rewards are all equal.
"""

from functools import partial

import pytest
import torch

pytest.importorskip("transformers")

from harken.core.protocols import Datum, Tree
from harken.loops.rollout import weighted
from harken.objectives import kl
from harken.objectives.direct import pairwise, sequence_logps
from harken.objectives.policy_gradient import clipped, group_relative, leave_one_out
from harken.objectives.value import value_loss
from test_distributed import ONE_AT_A_TIME, in_two
from test_engine import assert_same, gradients

END = 3
LONG = (*(5 + i * 7 % 60 for i in range(70)), END)
TREES = [Tree((9,), ((20, 21, END), LONG, (END,))),
         Tree((5, 6, 7, 8), ((END,), (30, END), (31, 32, 33, 34))),
         Tree((11, 12), ((END,), (40, 41, END), (42, END))),
         Tree((13,) * 25, ((50, END), (51, 52, END), (53, END)))]
REWARDS = torch.tensor([[1.0, -0.5, 0.25], [0.7, 0.7, 0.7], [0.0, 1.0, -1.0], [2.0, 1.5, 1.0]])


def per_token(tree, seed):
    return torch.randn(sum(map(len, tree.completions)), generator=torch.Generator().manual_seed(seed))


def data_of(advantages, aggregation):
    """The experience of a step, a datum a prompt; what the models said before is noise around what is usual."""
    rows = []
    for i, tree in enumerate(TREES):
        lengths = torch.tensor([len(c) for c in tree.completions])
        noise = [per_token(tree, 10 * i + k) for k in range(4)]
        rows.append(Datum(tree, {"advantages": advantages[i].repeat_interleave(lengths).tolist(),
                                 "old": (noise[0] * 0.2 - 4.4).tolist(), "ref": (noise[1] * 0.2 - 4.4).tolist(),
                                 "old_values": (noise[2] * 0.1).tolist(), "returns": noise[3].tolist()}))
    return weighted(rows, aggregation)


def policy(out, x, *, sequence=False, beta=0.0, critic=False):
    loss, metrics = clipped(out.logps_N, x["old"], x["advantages"], x["weights"], 0.2, None, out.lengths if sequence else None)
    if beta:
        loss = loss + beta * (x["weights"] * kl.k3(out.logps_N, x["ref"])).sum()
    if critic:
        value, more = value_loss(out.values_N, x["old_values"], x["returns"], x["weights"])
        loss, metrics = loss + 0.5 * value, metrics | more
    return loss, metrics


def preferred(out, x):
    """The first completion of each tree over its second; the reference is given a token at a time."""
    said, ref = sequence_logps(out.logps_N, out.lengths), sequence_logps(x["ref"], out.lengths)
    starts = torch.tensor([sum(out.sizes[:i]) for i in range(len(out.sizes))])
    return pairwise(said[starts], said[starts + 1], ref[starts], ref[starts + 1], torch.full((len(starts),), 1 / len(TREES)))


METHODS = {
    "rloo": (policy, leave_one_out(REWARDS), "sequence_sum", {}),
    "grpo": (partial(policy, beta=0.1), group_relative(REWARDS), "sequence_mean", {}),
    "gspo": (partial(policy, sequence=True), group_relative(REWARDS), "token_mean", {}),
    "ppo": (partial(policy, critic=True), leave_one_out(REWARDS), "token_mean", {"head": "value"}),
    "dpo": (preferred, REWARDS, "sequence_sum", {})}


def unshared(data):
    """Each completion with a copy of its prompt."""
    rows = []
    for d in data:
        start = 0
        for completion in d.tree.completions:
            part = slice(start, start := start + len(completion))
            rows.append(Datum(Tree(d.tree.prompt, (completion,)), {n: x[part] for n, x in d.inputs.items()}))
    return rows


def test_a_group_of_equal_rewards_has_no_advantage():
    for advantages in (leave_one_out(REWARDS), group_relative(REWARDS)):
        assert (advantages[1] == 0).all() and advantages[0].any()


@pytest.mark.parametrize("name", METHODS)
def test_odd_shapes_learn_the_same_however_they_are_packed(toy_engine, name):
    objective, advantages, aggregation, options = METHODS[name]
    data = data_of(advantages, aggregation)

    def learnt(data, **more):
        with ONE_AT_A_TIME:
            engine = toy_engine(seed=1, **options, **more)
        metrics = engine.forward_backward(data, objective)
        return metrics, gradients(engine)

    metrics, wanted = learnt(data, tokens_per_micro_batch=10_000)
    assert any(float(g.abs().max()) > 1e-3 for g in wanted.values())
    others = {"packed": learnt(data, tokens_per_micro_batch=60), "one by one": learnt(data, tokens_per_micro_batch=1),
              "computed anew": learnt(data, tokens_per_micro_batch=60, recompute_layers=True)}
    if name != "dpo":  # its loss needs both completions of a tree
        others["unshared"] = learnt(unshared(data), tokens_per_micro_batch=1)
    halves = in_two(lambda: learnt(data, tokens_per_micro_batch=60))
    names = {n for _, grads in halves for n in grads}
    others["two processes"] = halves[0][0], {n: sum(grads[n] for _, grads in halves if n in grads) for n in names}
    for way, (found, grads) in others.items():
        assert found == pytest.approx(metrics, abs=2e-5), way
        assert_same(grads, wanted, 2e-5)
