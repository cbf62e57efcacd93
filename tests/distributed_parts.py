"""One of two processes that read a model in parts: says what it holds and computes; for tests/test_shard_loading.py."""

import json
import sys

import torch

from harken.core.protocols import Tree
from harken.engines import gathers, sharding
from harken.engines.distributed import joined
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.streaming import Split

read: list[int] = []
original = sharding.cut_rows


def cut_rows(tensor: torch.Tensor) -> torch.Tensor:
    """What is read whole is cut afterwards."""
    read.append(1)
    return original(tensor)


sharding.cut_rows = cut_rows
with joined():
    results = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        loaded = load(sys.argv[1], dtype=dtype, split=Split(trained=False))
        engine = Engine(loaded, lora_rank=4, dtype=name, shard=True, recompute_layers=True)
        held = sum(gathers.own_part(p).numel() for n, p in engine.model.named_parameters() if "lora_" not in n)
        logps = engine.logprobs([Tree((5, 6, 7), ((20, 21, 3), (22, 3))), Tree((9, 4), ((30, 31, 3),))])
        results[name] = {"held": held, "read_whole": len(read), "logps": [x.tolist() for t in logps for x in t]}
    print(json.dumps(results))
