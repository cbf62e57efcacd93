"""Two processes learn what one does: the same losses, samples and weights, to rounding; and survive being killed."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from harken.cli.main import main
from harken.core import processes
from harken.core.files import read_jsonl
from harken.core.protocols import Datum, Tree
from harken.core.run import Run
from harken.engines.distributed import sum_gradients
from harken.engines.hf import Engine
from harken.engines.sampler import HFSampler
from harken.launch.find import find_method
from harken.launch.train import train as launch_train
from harken.text.packing import shares

WORKER = str(Path(__file__).with_name("distributed_worker.py"))
WORDS = ["red", "blue", "green", "old", "new", "warm", "cold", "tall"]
BATCH = {"batch_size": 12, "epochs": 0.5, "learning_rate": 3e-3}
ROLLOUT = {"reward": "gold", "max_tokens": 8, "steps": 2, "prompts_per_step": 7, "completions_per_prompt": 3,
           "learning_rate": 3e-3, "samples_per_step": 100, "max_length": 64}
JOBS = {"sft": BATCH, "reward_model": {**BATCH, "labelers": "reliability"}, "dpo": BATCH, "rloo": ROLLOUT,
        "ppo": {**ROLLOUT, "minibatches": 2, "ema": 0.9}}
FILES = {"sft": "demos", "reward_model": "comparisons", "dpo": "comparisons"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    prompts = [f"Say {a} {b}{'!' * rng.randrange(6)}" for a in WORDS for b in WORDS]
    rng.shuffle(prompts)
    rows = {"prompts": [{"prompt": p} for p in prompts], "demos": [{"prompt": p, "completion": p[4:]} for p in prompts],
            "comparisons": [{"prompt": p, "completions": [" ".join(rng.sample(WORDS, 3)), p[4:], "no"], "ranks": [2, 1, 3],
                             "labeler": f"l{i % 4}"} for i, p in enumerate(prompts)]}
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    return {name: str(folder / f"{name}.jsonl") for name in rows}


def settings(method, files, out, **more):
    return {"model": "toy", "data": files[FILES.get(method, "prompts")], "out": str(out), "tokens_per_micro_batch": 256,
            **JOBS[method], **more}


def start(*command):
    """Two processes, told of each other as torchrun would tell them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2",
                    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return [subprocess.Popen([sys.executable, *command], env={**os.environ, **together, "RANK": str(rank)}, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in range(2)]


def finish(started, seconds=300):
    """[(exit status, stdout, stderr)] of each; none is left."""
    try:
        return [(p.returncode, *said) for p, said in [(p, p.communicate(timeout=seconds)) for p in started]]
    finally:
        for p in started:
            p.kill()


def train_together(path, jobs):
    path.write_text(json.dumps(jobs))
    for status, _, err in finish(start(WORKER, str(path))):
        assert status == 0, err


def weights(run):
    from safetensors.torch import load_file
    found = load_file(next((Path(run) / "model").glob("*.safetensors")))
    if (head := Path(run) / "model" / "head.pt").is_file():
        found |= torch.load(head, weights_only=True)
        found["shift"] = found["shift"] + found.pop("bias")  # only their sum shows: the bias alone learns rounding
    return found


def assert_close(one, two, tolerance=1e-5):
    """Every metric but the time, every sampled text, every weight but one in a thousand at most: where a gradient is
    nothing but rounding, Adam divides it by its own size. Another packing in one process does the same."""
    a, b = (read_jsonl(Path(run) / "metrics.jsonl") for run in (one, two))
    assert len(a) == len(b) > 0
    for x, y in zip(a, b):
        assert x.keys() == y.keys()
        for name in x.keys() - {"seconds"}:
            allowed = 0.02 if name.endswith("fraction") else tolerance  # a count of tokens past a threshold: one may flip
            assert x[name] == pytest.approx(y[name], abs=allowed, rel=allowed), (name, x["step"])
    texts = [[r["completion"] for r in read_jsonl(Path(run) / "samples.jsonl")] for run in (one, two)]
    assert texts[0] == texts[1]
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    far = torch.cat([(a[name] - b[name]).abs().reshape(-1) > tolerance for name in a])
    assert far.float().mean() <= 1e-3


def one_process(method, files, out, **more):
    module = find_method(method)
    return launch_train(module, module.Config(**settings(method, files, out, **more)), quiet=True).path


ONE_AT_A_TIME = threading.Lock()  # making a model seeds the generator that threads share


class Threads(processes.Group):
    """Two processes played by threads: what they tell each other goes through a list."""

    def __init__(self, rank, meeting):
        self.rank, self.size = rank, 2
        self.barrier, self.said = meeting

    def gather(self, value):
        self.said[self.rank] = value
        self.barrier.wait(30)
        found = list(self.said)
        self.barrier.wait(30)
        return found

    def agree(self, value):
        return self.gather(value)[0]

    def add(self, numbers):
        numbers.copy_(sum(self.gather(numbers.clone())))


def in_two(work):
    """[work(), work()] of two processes at once."""
    meeting, found, failed = (threading.Barrier(2), [None, None]), [None, None], []

    def process(rank):
        processes.GROUP.set(Threads(rank, meeting))
        try:
            found[rank] = work()
        except BaseException as error:
            failed.append(error)
            meeting[0].abort()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    [t.start() for t in threads], [t.join() for t in threads]
    if failed:
        raise failed[0]
    return found


def test_shares_are_even_and_whole():
    """Largest first, each to the least loaded: 8 | 7, 5 to the 7 (12), 3 to the 8 (11), 2 to the 11: 13 and 12."""
    assert shares([3, 8, 2, 7, 5], 2) == [[0, 1, 2], [3, 4]]
    assert shares([4], 3) == [[0], [], []]
    sizes = [random.Random(0).randrange(1, 99) for _ in range(50)]
    parts = shares(sizes, 4)
    assert sorted(i for part in parts for i in part) == list(range(50))
    loads = [sum(sizes[i] for i in part) for part in parts]
    assert max(loads) <= 4 / 3 * sum(sizes) / 4


TREES = [Tree((5, 6, 7 + i), tuple((8 + j, 9 + i, 3) for j in range(1 + i % 3))) for i in range(9)]


def test_p7_gradients_metrics_and_norm_are_sums_over_processes(toy_engine):
    def objective(out, x):
        return -(x["weights"] * out.logps_N).sum(), {"nll": -(x["weights"] * out.logps_N.detach()).sum()}

    def work():
        with ONE_AT_A_TIME:
            engine = toy_engine(lora_rank=4, seed=3, max_grad_norm=0.01)
        count = sum(len(c) for t in trees for c in t.completions)
        data = [Datum(t, {"weights": [1 / count] * sum(map(len, t.completions))}) for t in trees]
        rows = [engine.rows(trees), engine.forward_backward(data, objective), engine.step(1e-3)]
        return *rows, {n: p.detach().clone() for n, p in engine.trainable.items()}, engine.logprobs(trees)

    for trees in (TREES, TREES[:1]):  # and one tree: a process without work
        alone, both = work(), in_two(work)
        assert sorted(i for rows, *_ in both for row in rows for i in row) == list(range(len(trees)))
        for _, metrics, step, weights, logps in both:
            assert metrics == pytest.approx(alone[1], abs=1e-6) and step == pytest.approx(alone[2], abs=1e-6)
            assert all((weights[n] - w).abs().max() < 1e-6 for n, w in alone[3].items())
            assert all(torch.allclose(a, b, atol=1e-6) for x, y in zip(logps, alone[4]) for a, b in zip(x, y))
        assert all(torch.equal(both[0][3][n], both[1][3][n]) for n in both[0][3]), "replicas must not drift"


def test_a_parameter_without_a_gradient_anywhere_stays_without():
    def work():
        parameters = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
        if processes.group().rank == 1:
            parameters[0].grad = torch.ones(3)
        parameters[1].grad = torch.full((3,), 2.0)
        sum_gradients(parameters)
        return [None if p.grad is None else p.grad.tolist() for p in parameters]

    assert in_two(work) == [[[1.0] * 3, [4.0] * 3, None]] * 2


def test_p23_processes_share_weights_and_draw_apart(toy_engine):
    prompts = [(5, 6, 7), (5, 6), (8, 9, 10, 11), (7,), (5, 6, 7)]
    drawn = {}

    def work():
        with ONE_AT_A_TIME:
            engine = toy_engine(lora_rank=4, seed=1)
        found = HFSampler(engine, max_batch=6).sample_ids(prompts, 3, max_tokens=9, seed=5)
        if isinstance(group := processes.group(), Threads):
            drawn[group.rank] = group.said[group.rank]
        return {n: p.detach().clone() for n, p in engine.trainable.items()}, [[s.ids for s in g] for g in found]

    alone = work()
    both = in_two(work)
    assert both[0][1] == both[1][1] == alone[1], "together they sample exactly what one process does"
    assert all(torch.equal(both[0][0][n], both[1][0][n]) for n in alone[0]), "initial weights are the same"
    own = [[s.ids for group in drawn[rank].values() for s in group] for rank in (0, 1)]
    assert len(own[0]) + len(own[1]) == 15 and set(own[0]).isdisjoint(own[1]), "each draws its own"


def test_a_process_without_a_prompt_takes_part_in_gathering_split_layers(toy_engine, monkeypatch):
    engine, took_part = toy_engine(), []

    @contextmanager
    def gathered(self):
        took_part.append(processes.group().rank)
        yield

    monkeypatch.setattr(Engine, "gathered", gathered)
    one, other = in_two(lambda: HFSampler(engine).sample_ids([(5, 6, 7)], 2, max_tokens=3))
    assert one == other and sorted(took_part) == [0, 1]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(files, tmp_path):
    """P7, P23: data split over two processes, and layers too, of adapters and of all parameters."""
    ways = {"split": {}, "sharded": {"shard": True}, "whole": {"lora_rank": 0, "learning_rate": 1e-3},
            "whole-sharded": {"lora_rank": 0, "learning_rate": 1e-3, "shard": True}}
    plan = [(m, w) for m in JOBS for w in ways if not w.startswith("whole") or m == "ppo"]
    train_together(tmp_path / "jobs.json", [{"method": m, "settings": settings(m, files, tmp_path / f"{m}-{w}-2", **ways[w])}
                                            for m, w in plan])
    for method, way in plan:
        alone = tmp_path / f"{method}-{way.removesuffix('sharded') or 'split'}-1"
        if not alone.exists():
            one_process(method, files, alone, **{**ways[way], "shard": False})
        assert_close(alone, tmp_path / f"{method}-{way}-2")


def killed(path, job, step):
    """Runs a job with two processes and kills both when a checkpoint of `step` or later is there."""
    path.write_text(json.dumps([job]))
    started, folder, until = start(WORKER, str(path)), Path(job["settings"]["out"]) / "checkpoints", time.monotonic() + 300
    while not any(int(p.name[5:]) >= step for p in folder.glob("step-*")):
        assert all(p.poll() is None for p in started) and time.monotonic() < until, finish(started, 5)
        time.sleep(0.01)
    for p in started:
        p.kill()
    finish(started)


class Stop(Exception):
    pass


@pytest.mark.slow
def test_p22_killed_and_resumed_by_as_many_by_fewer_and_by_more(files, tmp_path, monkeypatch):
    """With as many processes bit for bit; a checkpoint of two is read by one and the reverse, whether layers are split or not."""
    def job(out, **more):
        return {"method": "ppo", "settings": settings("ppo", files, tmp_path / out, **often, **more)}

    often = {"steps": 5, "prompts_per_step": 4, "checkpoint_seconds": 0.0}
    killed(tmp_path / "first.json", job("again", shard=True), 2)
    shutil.copytree(tmp_path / "again", tmp_path / "fewer")
    one_process("ppo", files, tmp_path / "fewer", **often)

    original = Run.checkpoint

    def checkpoint(self, step, save, **options):
        original(self, step, save, **options)
        if step == 2:
            raise Stop

    monkeypatch.setattr(Run, "checkpoint", checkpoint)
    with pytest.raises(Stop):
        one_process("ppo", files, tmp_path / "more", **often)
    monkeypatch.undo()
    train_together(tmp_path / "jobs.json", [job("whole", shard=True), job("again", shard=True), job("more", shard=True)])
    assert len(read_jsonl(tmp_path / "again" / "metrics.jsonl")) == 5
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "again")
    assert all(torch.equal(a[n], b[n]) for n in a)
    for name in ("fewer", "more"):
        assert_close(tmp_path / "whole", tmp_path / name, 1e-4)


@pytest.mark.slow
def test_a_fault_in_one_process_is_told_once_and_ends_all(files, tmp_path):
    """And a fault of all is told once."""
    command = ["-m", "harken", "train", "distributed_faults", "--model", "toy", "--out", str(tmp_path / "out")]
    for data, told in ((files["prompts"], "The second process met a fault.\n  Mend it."), ("none.jsonl", "no file none.jsonl")):
        found = finish(start(*command, "--data", data))
        assert [status for status, *_ in found] == [2, 2], found
        err = "".join(err for *_, err in found)
        assert err.count("harken: ") == 1 and told in err and "Traceback" not in err
        assert not any(out for _, out, _ in found) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_torchrun_starts_a_run_and_one_process_speaks(files, tmp_path):
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "harken", "train", "rloo", "--model", "toy",
               "--reward", "gold", "--data", files["prompts"], "--out", str(tmp_path / "run"), "--steps", "2",
               "--max-tokens", "8", "--shard"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run: done") == 1 and done.stdout.count("steps: 2") == 1
    assert [row["step"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1, 2]


def test_other_commands_say_that_they_are_for_one_process(monkeypatch, capsys):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    assert main(["report", "runs"]) == 2
    assert "harken report is the work of one process" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert main(["report", "runs"]) == 2 and not capsys.readouterr().err, "only the first speaks"
