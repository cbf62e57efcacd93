"""With --shard each process reads its own part of a model, both ends included, and computes what one process does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
import torch

from harken.core.protocols import Tree
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.toy import toy_model, toy_tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_each_process_reads_its_part(tmp_path, tied):
    """Half of the weights each, but for the last norm; nothing was read whole; log-probs to rounding, tied ends and apart."""
    model = toy_model(seed=3)
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.1)
    model.save_pretrained(tmp_path / "model")
    toy_tokenizer().save_pretrained(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        together = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    worker = str(Path(__file__).with_name("distributed_parts.py"))
    started = [subprocess.Popen([sys.executable, worker, str(tmp_path / "model")], env={**together, "RANK": str(rank)}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in range(2)]
    said = [p.communicate(timeout=300) for p in started]
    assert [p.returncode for p in started] == [0, 0], said
    results = [json.loads(out.splitlines()[-1]) for out, _ in said]
    for name in ("float32", "bfloat16"):
        alone = Engine(load(str(tmp_path / "model"), dtype=getattr(torch, name)), lora_rank=4, dtype=name)
        count = sum(p.numel() for n, p in alone.model.named_parameters() if "lora_" not in n)
        logps = alone.logprobs([Tree((5, 6, 7), ((20, 21, 3), (22, 3))), Tree((9, 4), ((30, 31, 3),))])
        found = [r[name] for r in results]
        assert [f["read_whole"] for f in found] == [0, 0]
        assert all(0.49 * count < f["held"] < 0.52 * count for f in found), (count, found)
        for wanted, *here in zip([x for t in logps for x in t], *(f["logps"] for f in found)):
            assert all(torch.allclose(wanted, torch.tensor(h), atol=1e-5) for h in here)
