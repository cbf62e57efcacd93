"""Training throughput of `harken train phf` beside a bare PyTorch loop and transformers' Trainer: one model, windows, precision.

    python benchmarks/phf_speed.py ANNOTATED [--size 1M] [--steps 6] [--rounds 4] [--quick]

All learn windows of 256 tokens, 16 a step; ours reads, tokenises and packs the corpus as well, the others are given the ids. They
alternate, and CPU seconds of one thread are compared. The Trainer is at its best for this: a ready tensor dataset, no logging, no
saving, fused AdamW.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.launch.find import find_method
from harken.loops.feedback import Feedback
from harken.loops.stream import Stream
from harken.store.annotations import Annotated
from harken.text.tags import Control, end_of_text

B, T = 16, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotated")
    parser.add_argument("--size", default="1M")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--row", type=int, default=B * (T + 1), help="tokens of one packed pass")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="one round of two steps")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.rounds = 2, 1
    torch.set_num_threads(1)
    method = find_method("phf")
    config = method.prepare(method.Config(data=args.annotated, size=args.size, vocabulary=2048, max_length=T, batch_size=B,
                                          objective="mle"))
    annotated, engine = Annotated(args.annotated), Engine(load(config.model), weight_decay=0.1, tokens_per_micro_batch=args.row)
    stream = Stream(annotated, engine.template.tokenizer, length=T, seed=0)
    control = Control.read(method._folder(config.model))
    feedback = Feedback(config, annotated, control, end_of_text(engine.template), None)
    bare = AutoModelForCausalLM.from_pretrained(config.model, attn_implementation="sdpa").train()
    optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    given: list[torch.Tensor] = []
    trained = AutoModelForCausalLM.from_pretrained(config.model, attn_implementation="sdpa")

    def ours() -> float:
        windows = stream.take(B, feedback.writer(True))
        given.append(torch.stack([torch.tensor(w.ids, dtype=torch.long) for w in windows]))
        data = [feedback.datum(w, 1 / (B * T), True) for w in windows]
        found = engine.forward_backward(data, feedback.objective(True))
        engine.step(1e-3)
        return found["loss"]

    def theirs() -> float:
        ids = given.pop(0)
        logits = bare(input_ids=ids[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.view(B * T, -1).float(), ids[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def trainer(batches: list[torch.Tensor]) -> float:
        """Seconds of the Trainer's steps; its start is not counted."""
        rows = [{"input_ids": row, "labels": row} for ids in batches for row in ids]
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(folder, per_device_train_batch_size=B, max_steps=len(batches), learning_rate=1e-3,
                                         weight_decay=0.1, optim="adamw_torch_fused", lr_scheduler_type="constant", use_cpu=True,
                                         save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True)
            times: list[float] = []

            class Watch(TrainerCallback):
                def on_step_begin(self, *_: object, **__: object) -> None:
                    times.append(time.process_time())

                def on_step_end(self, *_: object, **__: object) -> None:
                    times.append(time.process_time())
            Trainer(trained, settings, train_dataset=rows, callbacks=[Watch()]).train()
        return times[-1] - times[0]

    ours(), theirs()
    ratios: dict[str, list[float]] = {"bare": [], "Trainer": []}
    for k in range(args.rounds):
        seconds, losses = [], []
        for step in (ours, theirs):
            if step is theirs:
                kept = list(given)
            start = time.process_time()
            losses.append([step() for _ in range(args.steps)])
            seconds.append(time.process_time() - start)
        seconds.append(trainer(kept))
        ratios["bare"].append(seconds[1] / seconds[0])
        ratios["Trainer"].append(seconds[2] / seconds[0])
        rates = [B * T * args.steps / s for s in seconds]
        print(f"round {k}: ours {rates[0]:.0f} tokens a CPU second, bare {rates[1]:.0f}, Trainer {rates[2]:.0f}; "
              f"losses {losses[0][-1]:.5f} {losses[1][-1]:.5f}", flush=True)
    for name, values in ratios.items():
        print(f"ours is {statistics.median(values):.3f} ({min(values):.3f} – {max(values):.3f}) times as fast as {name}")


if __name__ == "__main__":
    main()
