"""One timed training by Harken. usage: harken_side.py WORK STEPS FOLDER; prints one JSON line."""

import json
import os
import resource
import statistics
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "30000")
import work

from harken.core.files import read_jsonl
from harken.launch.find import find_method
from harken.launch.train import train as launch_train

WARM_UP = 2


def save(folder: Path) -> str:
    work.llama().save_pretrained(folder)
    work.tokenizer().save_pretrained(folder)
    return str(folder)


def main(kind: str, steps: int, folder: Path) -> dict:
    common = {"model": save(folder / "model"), "lora_rank": work.LORA, "schedule": "constant", "learning_rate": 1e-4,
              "checkpoint_seconds": 1e9, "tokens_per_micro_batch": 4096, "dtype": "bfloat16" if work.BF16 else "float32",
              "out": str(folder / "run")}
    rl = {"completions_per_prompt": work.RL_GROUP, "prompts_per_step": work.RL_PROMPTS, "max_tokens": work.NEW_TOKENS,
          "missing_eos_penalty": 0.0}

    def train(name: str, rows: list[dict], **settings) -> None:
        method = find_method(name)
        data = work.write(folder / f"{name}.jsonl", rows)
        launch_train(method, method.Config(**common | {"data": data} | settings), quiet=True)

    def scorer() -> dict:
        train("reward_model", work.rankings(4, 2), batch_size=4, holdout=0, out=str(folder / "rm"))
        return {"reward": str(folder / "rm")}

    amount, unit = work.RL_PROMPTS * work.RL_GROUP, "completions"
    if kind == "sft":
        amount, unit = None, "tokens"
        train("sft", work.demonstrations(work.SFT_BATCH * steps), batch_size=work.SFT_BATCH, epochs=1, holdout=0, max_length=256)
    elif kind.startswith("reward_model"):
        amount, unit = work.RANKINGS, "rankings"
        train("reward_model", work.rankings(work.RANKINGS * steps, int(kind[-1])), batch_size=work.RANKINGS, epochs=1, holdout=0,
              ties="drop", max_length=512)
    elif kind == "dpo":
        amount, unit = work.PAIRS, "pairs"
        train("dpo", work.rankings(work.PAIRS * steps, 2), batch_size=work.PAIRS, epochs=1, holdout=0, max_length=256, warmup=0.0)
    elif kind == "ppo":
        amount = work.PPO_PROMPTS
        train("ppo", work.prompts(amount * steps), **scorer(), **rl | {"prompts_per_step": amount, "completions_per_prompt": 1},
              critic="separate", epochs_per_step=work.PPO_EPOCHS, minibatches=1, beta=0.05)
    else:
        train(kind, work.prompts(work.RL_PROMPTS * steps), **scorer(), **rl, beta=0.05)
    rows = [r for r in read_jsonl(folder / "run" / "metrics.jsonl") if "grad_norm" in r]
    each = [b["seconds"] - a["seconds"] for a, b in zip(rows[WARM_UP - 1:], rows[WARM_UP:])]
    return {"side": "harken", "work": kind, "step_s": statistics.median(each), "mean_step_s": statistics.mean(each),
            "unit": unit, "per_s": amount and amount / statistics.mean(each),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))), flush=True)
