"""Where the time goes: sections, and FLOPs against PyTorch's own counter."""

import json
import time

import pytest

torch = pytest.importorskip("torch")

from harken.core.files import read_json  # noqa: E402
from harken.core.protocols import Datum, Tree  # noqa: E402
from harken.engines import profile  # noqa: E402
from harken.engines.attention import row_of  # noqa: E402
from harken.engines.profile import Profile, profiling, timed  # noqa: E402
from harken.engines.sampler import HFSampler  # noqa: E402
from harken.launch.find import find_method  # noqa: E402
from harken.launch.train import train as launch_train  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_section_keeps_its_own_time_and_scoring_all_inside_it(clock):
    """decode 1 + 2 around a prefill of 5; scoring 1 with a forward of 4 inside: 5; before and after, 10 of other."""
    with profiling(True, CPU, torch.float32) as found:
        clock[0] += 7
        with timed("decode"):
            clock[0] += 1
            with timed("prefill"):
                clock[0] += 5
            clock[0] += 2
        with timed("scoring"):
            clock[0] += 1
            with timed("forward"):
                clock[0] += 4
        clock[0] += 3
        found._turn()
    seconds = {n: s for n, s in found.seconds.items() if s}
    assert seconds == {"decode": 3, "prefill": 5, "scoring": 5, "other": 10}


def test_an_error_inside_a_section_closes_it(clock):
    with profiling(True, CPU, torch.float32) as found:
        with pytest.raises(KeyError), timed("backward"):
            raise KeyError
        assert found.stack == ["other"]
    with timed("forward"):
        pass  # nobody profiles: nothing happens
    assert profile._ACTIVE is None


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("lora", [0, 4])
def test_flops_are_those_pytorch_counts_in_its_products(toy_engine, architecture, lora):
    """Linear layers alone, forward and backward; attention, which PyTorch counts with the pairs that are masked, by hand."""
    from torch.utils.flop_counter import FlopCounterMode
    engine = toy_engine(architecture, lora_rank=lora)
    tree = Tree((5, 6, 7), ((8, 9, 3), (10, 3)))
    data = [Datum(tree, {"weights": [1.0] * 5})]
    with FlopCounterMode(display=False) as counter, profiling(True, CPU, torch.float32) as found:
        engine.forward_backward(data, lambda out, x: (-(out.logps_N * x["weights"]).sum(), {}))
    linear = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op).split(".")[-1] in ("mm", "addmm"))
    cost = next(iter(found.costs.values()))
    row = row_of([tree], CPU, keep_last=False)
    tokens, pairs = row.ids.shape[1], 6 + (2 * 3 + 3) + (1 * 3 + 1)  # the last token of a completion is not computed
    work = tokens, pairs, 5
    assert found.flops["forward"] == cost.forward(*work) and found.flops["backward"] == cost.backward(*work)
    ours = cost.forward(tokens, 0, 5) + cost.backward(tokens, 0, 5)
    if lora == 0:
        assert ours == linear + 2 * cost.last * 5  # our last layer adds its weights' gradient in place, which PyTorch overlooks
    else:
        assert 0.9 * ours < linear <= ours  # below the first adapter no gradient is needed
    assert cost.pair == 4 * 64 * 2


def test_what_the_sampler_computes_is_counted(toy_engine):
    with profiling(True, CPU, torch.float32) as found:
        (group,) = HFSampler(toy_engine()).sample_ids([(5, 6, 7, 8)], 2, max_tokens=4, min_tokens=4)
    assert [len(s.ids) for s in group] == [4, 4]
    assert found.tokens["prefill"] == 4 and found.tokens["decode"] == 2 * 3  # the last token drawn is not computed
    cost = next(iter(found.costs.values()))
    assert found.flops["decode"] == cost.forward(6, 2 * (5 + 6 + 7), 6)


def test_rows_that_stand_idle_while_sampling_are_not_counted(toy_engine):
    sampler = HFSampler(toy_engine(), max_batch=32)
    with profiling(True, CPU, torch.float32) as found:
        drawn = sampler.sample_ids([(5, 6, 7), (8,), (9, 10)], 20, max_tokens=40, seed=1)
    lengths = [len(s.ids) for group in drawn for s in group]
    assert len(set(lengths)) > 5 and found.tokens["decode"] == sum(lengths) - len(lengths)


def test_train_profile_says_where_the_time_went(tmp_path, capsys):
    data = tmp_path / "p.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {i}."}) + "\n" for i in range(40)))
    module = find_method("rloo")
    config = module.Config(model="toy", data=str(data), out=str(tmp_path / "r"), reward="gold", steps=2, max_tokens=8,
                           held_out_reward="toxicity", monitor_prompts=8, lora_rank=4, profile=True)
    run = launch_train(module, config, quiet=True)
    found = read_json(run.path / "profile.json")
    names = {"prefill", "decode", "scoring", "reference", "forward", "backward", "optimizer", "audit", "other"}
    assert set(found["sections"]) == names
    assert sum(part["share"] for part in found["sections"].values()) == pytest.approx(1)
    assert 0 < found["peak_share"] < 1 and found["peak_flops"] > 1e8
    assert found["flops"] == sum(part["flops"] for part in found["sections"].values())
    assert "sampling: decode" in capsys.readouterr().err


def test_a_profile_of_a_gpu_waits_for_it(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    found = Profile(torch.device("cuda"), torch.float32)
    found.enter("forward")
    found.leave()
    assert len(waits) == 2
