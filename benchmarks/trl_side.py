"""One timed training by TRL 1.16 on the same work. usage: trl_side.py WORK STEPS FOLDER; prints one JSON line.

Tuned in its favour: float32 without gradient checkpointing (its own defaults are slower on a CPU), allocator
thresholds raised by the caller. A ranking of K becomes its K (K - 1) / 2 pairs, 8 a forward pass: TRL has no K-wise
reward model.
"""

import itertools
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TRL_EXPERIMENTAL_SILENCE", "ACCELERATE_USE_CPU"):
    os.environ[name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import work
from datasets import Dataset
from transformers import TrainerCallback

WARM_UP = 2


def loaded(scorer=False):
    """In bfloat16 where it is frozen under an adapter, which is less memory than autocast's copies; else autocast's float32."""
    import torch
    made = work.llama(scorer)
    return made.to(torch.bfloat16) if work.LORA and work.BF16 else made


class Timer(TrainerCallback):
    def __init__(self):
        self.at = []

    def on_step_end(self, args, state, control, **_):
        self.at.append(time.perf_counter())


def main(kind: str, steps: int, folder: Path) -> dict:
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    timer, tokenizer = Timer(), work.tokenizer()
    common = {"output_dir": str(folder / "run"), "report_to": "none", "save_strategy": "no", "logging_steps": 1000,
              "use_cpu": True, "bf16": work.BF16, "gradient_checkpointing": False,
              "seed": 0, "disable_tqdm": True, "lr_scheduler_type": "constant",
              "learning_rate": 1e-4, "dataloader_pin_memory": False, "max_steps": steps}
    adapter = {}
    if work.LORA:
        from peft import LoraConfig
        task = "SEQ_CLS" if kind.startswith("reward_model") else "CAUSAL_LM"
        adapter = {"peft_config": LoraConfig(r=work.LORA, lora_alpha=2 * work.LORA, target_modules="all-linear", task_type=task)}
    if kind == "sft":
        from trl import SFTConfig, SFTTrainer
        rows = [{**r, "prompt": r["prompt"] + " "} for r in work.demonstrations(work.SFT_BATCH * steps)]
        trainer = SFTTrainer(loaded(), SFTConfig(**common, max_length=256, per_device_train_batch_size=work.SFT_BATCH,
                                                    completion_only_loss=True),
                             train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[timer], **adapter)
        amount, unit = None, "tokens"
    elif kind.startswith("reward_model"):
        from trl import RewardConfig, RewardTrainer
        k = int(kind[-1])
        rows = [{"prompt": r["prompt"] + " ", "chosen": r["completions"][i], "rejected": r["completions"][j]}
                for r in work.rankings(work.RANKINGS * steps, k) for i, j in itertools.combinations(range(k), 2)]
        pairs = work.RANKINGS * k * (k - 1) // 2
        settings = RewardConfig(**common, max_length=512, per_device_train_batch_size=8,
                                gradient_accumulation_steps=pairs // 8)
        trainer = RewardTrainer(loaded(scorer=True), settings, **adapter,
                                train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[timer])
        amount, unit = work.RANKINGS, "rankings"
    elif kind == "dpo":
        from trl import DPOConfig, DPOTrainer
        rows = [{"prompt": r["prompt"] + " ", "chosen": r["completions"][0], "rejected": r["completions"][1]}
                for r in work.rankings(work.PAIRS * steps, 2)]
        settings = DPOConfig(**common, max_length=256, per_device_train_batch_size=work.PAIRS, beta=0.1)
        trainer = DPOTrainer(model=loaded(), ref_model=None if adapter else loaded(), **adapter, args=settings,
                             train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[timer])
        amount, unit = work.PAIRS, "pairs"
    elif kind == "ppo":  # TRL 1.12: the last with PPO
        from trl.experimental.ppo import PPOConfig, PPOTrainer
        amount, unit = work.PPO_PROMPTS, "completions"
        data = Dataset.from_list([{"input_ids": tokenizer(r["prompt"])["input_ids"]} for r in work.prompts(amount * steps)])
        settings = PPOConfig(**common | {"max_steps": -1}, per_device_train_batch_size=amount, num_ppo_epochs=work.PPO_EPOCHS,
                             num_mini_batches=1, gradient_accumulation_steps=1, total_episodes=amount * steps,
                             response_length=work.NEW_TOKENS, local_rollout_forward_batch_size=amount, kl_coef=0.05,
                             num_sample_generations=0)
        trainer = PPOTrainer(args=settings, processing_class=tokenizer, model=work.llama(), ref_model=work.llama(),
                             reward_model=work.llama(scorer=True), value_model=work.llama(scorer=True), train_dataset=data,
                             eval_dataset=data.select(range(8)), callbacks=[timer])
    else:
        import trl
        name = kind.upper()
        policy, scorer = str(folder / "model"), str(folder / "rm")  # paths: TRL reloads both by name
        for path, model in ((policy, work.llama()), (scorer, work.llama(scorer=True))):
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
        batch = work.RL_PROMPTS * work.RL_GROUP
        settings = getattr(trl, f"{name}Config")(
            **common, per_device_train_batch_size=batch, num_generations=work.RL_GROUP, beta=0.05,
            **({"model_init_kwargs": {"dtype": "bfloat16"}} if work.LORA and work.BF16 else {}),
            max_completion_length=work.NEW_TOKENS, temperature=1.0, generation_kwargs={"min_new_tokens": work.NEW_TOKENS})
        trainer = getattr(trl, f"{name}Trainer")(
            policy, reward_funcs=scorer, reward_processing_classes=work.tokenizer(), processing_class=tokenizer, args=settings,
            train_dataset=Dataset.from_list(work.prompts(work.RL_PROMPTS * steps)), callbacks=[timer], **adapter)
        amount, unit = batch, "completions"
    trainer.train()
    each = [b - a for a, b in zip(timer.at[WARM_UP - 1:], timer.at[WARM_UP:])]
    return {"side": "trl", "work": kind, "step_s": statistics.median(each), "mean_step_s": statistics.mean(each), "unit": unit,
            "per_s": amount and amount / statistics.mean(each),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))), flush=True)
