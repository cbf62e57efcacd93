"""One timed training by Harken. usage: harken_side.py WORK STEPS FOLDER; prints one JSON line."""

import json
import os
import resource
import statistics
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "30000")
import work

from harken import launch
from harken.core.run import read_jsonl

WARM_UP = 2


def save(folder: Path) -> str:
    work.llama().save_pretrained(folder)
    work.tokenizer().save_pretrained(folder)
    return str(folder)


def main(kind: str, steps: int, folder: Path) -> dict:
    model = save(folder / "model")
    common = {"model": model, "lora_rank": 0, "schedule": "constant", "learning_rate": 1e-4, "checkpoint_seconds": 1e9,
              "tokens_per_micro_batch": 4096, "out": str(folder / "run")}
    if kind == "sft":
        data = work.write(folder / "d.jsonl", work.demonstrations(work.SFT_BATCH * steps))
        launch.train(launch.find_method("sft"), launch.find_method("sft").Config(
            data=data, batch_size=work.SFT_BATCH, epochs=1, holdout=0, max_length=256, **common), quiet=True)
        unit = "tokens"
    elif kind.startswith("reward_model"):
        data = work.write(folder / "d.jsonl", work.rankings(work.RANKINGS * steps, int(kind[-1])))
        launch.train(launch.find_method("reward_model"), launch.find_method("reward_model").Config(
            data=data, batch_size=work.RANKINGS, epochs=1, holdout=0, ties="drop", max_length=512, **common), quiet=True)
        unit = "rankings"
    else:
        data = work.write(folder / "c.jsonl", work.rankings(4, 2))
        scorer = launch.find_method("reward_model").Config(data=data, batch_size=4, holdout=0,
                                                           **common | {"out": str(folder / "rm")})
        launch.train(launch.find_method("reward_model"), scorer, quiet=True)
        data = work.write(folder / "p.jsonl", work.prompts(work.RL_PROMPTS * steps))
        launch.train(launch.find_method("rloo"), launch.find_method("rloo").Config(
            data=data, reward=str(folder / "rm"), prompts_per_step=work.RL_PROMPTS, completions_per_prompt=work.RL_GROUP,
            max_tokens=work.NEW_TOKENS, missing_eos_penalty=0.0, **common), quiet=True)
        unit = "completions"
    rows = [r for r in read_jsonl(folder / "run" / "metrics.jsonl") if "grad_norm" in r]
    each = [b["seconds"] - a["seconds"] for a, b in zip(rows[WARM_UP - 1:], rows[WARM_UP:])]
    amount = {"tokens": None, "rankings": work.RANKINGS, "completions": work.RL_PROMPTS * work.RL_GROUP}[unit]
    return {"side": "harken", "work": kind, "step_s": statistics.median(each), "mean_step_s": statistics.mean(each),
            "unit": unit, "per_s": amount and amount / statistics.mean(each),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))), flush=True)
