"""A model whose float32 weights exceed the memory that a process may have: SFT with adapters in bfloat16, alone and with --shard.

    python benchmarks/memory_limit.py [--quick] [--processes 2] [--limit 3.5] [--keep FOLDER]

A Llama of about 1 B random weights (2 GB in bfloat16, 4 GB in float32) trains for two steps in a process that may have --limit
GB of private memory (RLIMIT_DATA: heap and private mappings; weights that stay mapped from their file are among them). Measured,
five times a second, in each process: the highest private resident memory (RssAnon) and with it what is mapped of files (RssFile),
beside what `--plan` says. --processes 2 splits the model (--shard, gloo). --quick is a model of 20 MB, without a limit: it shows
that the script runs. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 14, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": False}
SMALL = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
         "num_key_value_heads": 4, "head_dim": 32, "tie_word_embeddings": False}


def make(folder: Path, sizes: dict[str, Any]) -> None:
    """A Llama with SmolLM2's tokenizer and random weights, in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from harken.engines.loading import load
    tokenizer = load("smollm2").template.tokenizer
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id, **sizes)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size="500MB")
    tokenizer.save_pretrained(folder)


def memory(pid: int) -> tuple[int, int]:
    """(private, of files) resident bytes; zeros once the process is gone."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return tuple(int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))  # type: ignore[return-value]
    except (OSError, KeyError):
        return 0, 0


def train(model: Path, out: Path, processes: int, limit: float, tokens: int) -> dict[str, Any]:
    data = out.with_suffix(".jsonl")
    data.write_text("".join(json.dumps({"prompt": f"Say {i}.", "completion": "word " * 8}) + "\n" for i in range(4)))
    options = {"model": model, "data": data, "out": out, "dtype": "bfloat16", "epochs": 1, "batch-size": 2, "max-length": tokens,
               "tokens-per-micro-batch": tokens}
    command = [sys.executable, "-m", "harken", "train", "sft", *[w for n, v in options.items() for w in (f"--{n}", str(v))],
               "--checkpoint-activations", *(["--shard"] if processes > 1 else [])]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    plan = subprocess.run([*command, "--plan", str(processes)], capture_output=True, text=True, env=environment)
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}

    def limited() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 1e9),) * 2)

    start = time.perf_counter()
    with (out.parent / "log.txt").open("w") as log:
        started = [subprocess.Popen(command, env={**environment, **({"RANK": str(rank)} if processes > 1 else {})}, stdout=log,
                                    stderr=log, preexec_fn=limited) for rank in range(processes)]
        peaks = [(0, 0)] * processes
        while any(p.poll() is None for p in started):
            peaks = [(max(a, c), max(b, c + d)) for (a, b), (c, d) in zip(peaks, (memory(p.pid) for p in started))]
            time.sleep(0.2)
    if any(p.returncode for p in started):
        raise SystemExit((out.parent / "log.txt").read_text()[-3000:])
    needed = next((line.split()[-2] for line in plan.stdout.splitlines() if "needed, a process" in line), "0")
    return {"processes": processes, "limit_GB": limit, "private_GB": [round(a / 1e9, 2) for a, _ in peaks],
            "resident_GB": [round(b / 1e9, 2) for _, b in peaks], "plan_GB": float(needed),
            "seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--limit", type=float, default=3.5)
    parser.add_argument("--keep", type=Path, help="where the model is, or is put")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.keep or Path(folder) / "model"
        if not (model / "config.json").is_file():
            subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
                            "import memory_limit as m, pathlib; "
                            f"m.make(pathlib.Path({str(model)!r}), m.{'SMALL' if args.quick else 'SIZES'})"], check=True)
        result = train(model, Path(folder) / "run", args.processes, 0.0 if args.quick else args.limit, 64)
        result["weights_bfloat16_GB"] = round(sum(f.stat().st_size for f in model.glob("*.safetensors")) / 1e9, 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
