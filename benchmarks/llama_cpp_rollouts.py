"""llama.cpp as a server that samples for a trainer. usage: llama_cpp_rollouts.py MODEL.gguf PORT [--parallel 32] [--threads 1]

    harken export model runs/sft --out sft --gguf Q8_0
    PYTHON llama_cpp_rollouts.py sft/model-Q8_0.gguf 8790
    harken train rloo --model runs/sft … --rollouts http://127.0.0.1:8790/v1

Needs `pip install xllamacpp gguf safetensors`, in an environment of its own; no torch. llama.cpp cannot take an adapter while it
runs, so each load (vLLM's route) writes the adapter as GGUF and begins llama.cpp anew under it. The model's weights stay
quantised, the adapter's do not: the log-probs differ from the trainer's by the quantisation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import xllamacpp
from safetensors.numpy import load_file

PARTS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "n_probs": 1,
            "return_tokens": True, "cache_prompt": True}
"""The whole distribution at temperature 1, and the log-prob of each token in it."""
SLOT_TOKENS = 512
VOCABULARY = 1_000_000
"""As many log-probs as there are tokens: llama.cpp gives what it has."""


def heads_of(path: str) -> dict[str, int]:
    """Rows of queries and keys are stored in another order in GGUF, by head."""
    fields = gguf.GGUFReader(path).fields
    return {name: int(fields[f"llama.attention.{key}"].contents()) for name, key in
            (("attn_q", "head_count"), ("attn_k", "head_count_kv"))}


def as_gguf(folder: Path, heads: dict[str, int], target: Path) -> None:
    """A peft adapter on a model of the Llama kind, as llama.cpp reads it."""
    config = json.loads((folder / "adapter_config.json").read_text())
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config["lora_alpha"]))
    for name, value in sorted(load_file(folder / "adapter_model.safetensors").items()):
        layer, _, rest = name.removeprefix("base_model.model.model.layers.").partition(".")
        module, _, factor = rest.removesuffix(".weight").rpartition(".lora_")
        part = PARTS[module]
        if factor == "B" and part in heads:
            n = heads[part]
            value = value.reshape(n, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(f"blk.{layer}.{part}.weight.lora_{factor.lower()}", np.ascontiguousarray(value, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Speaker:
    """One llama.cpp, under the adapter `name`."""

    def __init__(self, path: str, parallel: int, threads: int) -> None:
        self.path, self.parallel, self.threads, self.heads = path, parallel, threads, heads_of(path)
        self.name, self.server, self.lock = "", None, threading.Lock()

    def load(self, name: str, folder: Path) -> None:
        with self.lock, tempfile.TemporaryDirectory() as there:
            target = Path(there) / "adapter.gguf"
            as_gguf(folder, self.heads, target)
            params = xllamacpp.CommonParams()
            params.model.path, params.n_parallel, params.n_ctx = self.path, self.parallel, self.parallel * SLOT_TOKENS
            params.kv_unified, params.warmup = True, False
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.threads
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(target), 1.0)]
            self.server = None  # the one before ends first
            self.server = xllamacpp.Server(params)
            self.word = self.post("/tokenize", {"content": " the", "add_special": False})["tokens"][0]
            self.name = name

    def ask(self, prompt: list[int], n: int, tokens: int, seed: int, **options: object) -> list[dict]:
        """`n` completions of one prompt, which is computed once; the i-th draws with seed + i."""
        body = {**SAMPLING, "prompt": prompt, "n_predict": tokens, "seed": seed, "n_cmpl": n, **options}
        answer = self.post("/completion", body)
        return answer if isinstance(answer, list) else [answer]

    def post(self, route: str, body: dict) -> Any:
        request = urllib.request.Request(f"{self.server.listening_address}{route}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.loads(reply.read())

    def logps(self, prompt: list[int], answer: dict) -> list[float]:
        """The log-prob of each token. llama.cpp tells none of a token that ends within a character (an emoji is several tokens),
        and leaves it out of the list without a word: then all of the completion's are asked for, a token at a time."""
        ids, listed = answer["tokens"], answer["completion_probabilities"]
        if [t["id"] for t in listed] == ids:
            return [t["logprob"] for t in listed]
        return [self.logp([*prompt, *ids[:k]], token) for k, token in enumerate(ids)]

    def logp(self, before: list[int], token: int) -> float:
        """The log-prob of one token, before anything is said: llama.cpp is made to say a whole word, or it would tell none."""
        said = self.ask(before, 1, 1, 0, n_probs=VOCABULARY, logit_bias=[[self.word, 1e3]])[0]
        return next(t["logprob"] for t in said["completion_probabilities"][0]["top_logprobs"] if t["id"] == token)

    def complete(self, body: dict) -> dict:
        choices = []
        for answer in self.ask(body["prompt"], body["n"], body["max_tokens"], body["seed"]):
            choices.append({"index": len(choices), "token_ids": answer["tokens"], "text": answer["content"],
                            "logprobs": {"token_logprobs": self.logps(body["prompt"], answer)}})
        return {"model": self.name, "choices": choices}


def handler(speaker: Speaker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = body.get("lora_name") or body.get("model")
            if self.path == "/v1/load_lora_adapter":
                speaker.load(name, Path(body["lora_path"]))
                self.answer(200, {"status": "loaded", "lora_name": name})
            elif name != speaker.name:
                self.answer(404, {"error": {"message": f"No weights {name} are here."}})
            elif self.path == "/v1/completions":
                self.answer(200, speaker.complete(body))
            else:
                self.answer(404, {"error": {"message": f"There is no {self.path}."}})

        def answer(self, status: int, body: dict) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("port", type=int)
    parser.add_argument("--parallel", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    site = ThreadingHTTPServer(("127.0.0.1", args.port), handler(Speaker(args.model, args.parallel, args.threads)))
    print(f"http://127.0.0.1:{args.port}/v1", flush=True)
    site.serve_forever()


if __name__ == "__main__":
    main()
