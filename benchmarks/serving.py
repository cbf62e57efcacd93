"""Load on `harken serve`: streaming clients, tokens a second beside the offline sampler at the same batch, what is shed.

    python benchmarks/serving.py                 # SmolLM2, 64 clients, three interleaved rounds; minutes
    python benchmarks/serving.py --quick         # 64 clients, 24 tokens each, one round

    python benchmarks/serving.py --llama-cpp PYTHON --gguf model-F32.gguf --transformers FOLDER     # beside others' servers

The others answer the same requests in the same rounds, one server at a time (the idle ones wait): llama.cpp's HTTP server by
xllamacpp in another Python, on float weights (`harken export model smollm2 --out FOLDER --gguf F32`), and `transformers serve` on
the same folder.

All answers are greedy, so that everybody does the same work. Server and clients are processes of their own on this machine: the
clients' work is in the server's figures; the sampler runs alone. Each stream is compared with the sampler's answer to its prompt.
Rounding may part them at a near tie, so the number of equal streams is printed; a stream nearer to another prompt's answer than
to its own is counted as mixed. TTFT is from the request to the first text, ITL between two texts of one stream (as guidellm
defines them). The idle servers wait in memory while one is measured. Leave OMP_NUM_THREADS unset: it would bind harken and not
llama.cpp.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from harken.core.records import Prompt
from harken.launch.policies import open_sampler

HOST = "127.0.0.1"


async def stream(port: int, text: str, seed: int, tokens: int, model: str = "m") -> dict:
    """One streaming client: its status, text, and the times of its chunks."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "seed": seed,
                       "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}).encode()
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json"
                 + f"\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    status = int((await reader.readline()).split()[1])
    said, times, used, failed = "", [], 0, status != 200
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            failed = failed or "error" in chunk
            used = (chunk.get("usage") or {}).get("completion_tokens", used)
            for choice in chunk.get("choices", ()):
                if content := (choice.get("delta") or {}).get("content"):
                    said += content
                    times.append(time.perf_counter())
    writer.close()
    return {"status": status, "failed": failed, "text": said, "tokens": used, "began": began, "times": times}


async def crowd(port: int, texts: list[str], tokens: int, model: str = "m") -> list[dict]:
    return list(await asyncio.gather(*(stream(port, text, i, tokens, model) for i, text in enumerate(texts))))


def figures(found: list[dict], seconds: float) -> dict:
    """Tokens a second, time to the first text and between texts. A server that counts no tokens is counted by its chunks."""
    first = [f["times"][0] - f["began"] for f in found if f["times"]]
    gaps = [np.diff(f["times"]) for f in found if len(f["times"]) > 1]
    between = np.concatenate(gaps) if gaps else np.zeros(1)
    count = sum(f["tokens"] or len(f["times"]) for f in found)
    return {"tokens_per_s": count / seconds, "failed": sum(f["failed"] for f in found),
            "ttft_p50": float(np.quantile(first, 0.5)), "ttft_p95": float(np.quantile(first, 0.95)),
            "itl_p50": float(np.quantile(between, 0.5)), "itl_p95": float(np.quantile(between, 0.95))}


def alike(a: str, b: str) -> int:
    """Characters that two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def llama_cpp(python: str, gguf: str, rows: int) -> tuple[subprocess.Popen, int]:
    command = [python, str(Path(__file__).parent / "llama_cpp_server.py"), gguf, str(rows), str(os.cpu_count() or 1)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("http"):
            return process, int(line.rsplit(":", 1)[1].split("/")[0])
    raise SystemExit("llama.cpp's server ended. Does its Python have xllamacpp, and is the .gguf file there?")


def transformers_serve(folder: str, command: str, flags: list[str]) -> tuple[subprocess.Popen, int]:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*command.split(), "serve", folder, "--host", HOST, "--port", str(port), "--device", "cpu",
                                "--dtype", "float32", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(1500):
        if process.poll() is not None:
            raise SystemExit(f"{command} serve ended. It needs: pip install 'transformers[serving]'")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return process, port
        time.sleep(0.2)
    process.kill()
    raise SystemExit(f"transformers serve does not answer for {folder}.")


def serve(model: str, rows: int, queue: int) -> tuple[subprocess.Popen, int]:
    """A server process, once it answers."""
    command = [sys.executable, "-m", "harken", "serve", "--model", f"m={model}", "--port", "0", "--rows", str(rows), "--queue",
               str(queue)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, int(line.rsplit(":", 1)[1].split("/")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--llama-cpp", metavar="PYTHON", help="a Python with xllamacpp; needs --gguf")
    parser.add_argument("--gguf", metavar="FILE", help="the model's float weights for llama.cpp")
    parser.add_argument("--transformers", metavar="FOLDER", help="the model's folder, for transformers serve")
    parser.add_argument("--transformers-command", metavar="FILE", default=str(Path(sys.executable).parent / "transformers"),
                        help="the program transformers of an environment that has transformers[serving] (default: this one's)")
    parser.add_argument("--transformers-flags", default="", help="as: --transformers-flags=--continuous-batching")
    args = parser.parse_args()
    if args.quick:
        args.tokens, args.rounds = 24, 1
    asked = [[f"Write one line about the number {i}." for i in range(at, at + args.clients)]
             for at in range(0, (args.rounds + 1) * args.clients, args.clients)]  # none twice: others keep prompts
    sampler = open_sampler(args.model)
    process, port = serve(args.model, args.clients, args.clients // 2)
    rows, others = [], {}
    try:
        if args.llama_cpp:
            others["llama.cpp"] = (*llama_cpp(args.llama_cpp, args.gguf, args.clients), "m")
        if args.transformers:
            others["transformers serve"] = (*transformers_serve(args.transformers, args.transformers_command,
                                                                args.transformers_flags.split()), args.transformers)
        for _, other, name in others.values():
            asyncio.run(crowd(other, asked[-1][:2], 4, name))
        asyncio.run(crowd(port, asked[-1][:2], 4))
        sampler.sample([Prompt.of(t) for t in asked[-1][:2]], 1, max_tokens=4)
        for round_ in range(args.rounds):
            texts = asked[round_]
            began = time.perf_counter()
            offline = sampler.sample([Prompt.of(t) for t in texts], 1, max_tokens=args.tokens, temperature=0.0)
            rate = sum(len(s[0].ids) for s in offline) / (time.perf_counter() - began)
            began = time.perf_counter()
            found = asyncio.run(crowd(port, texts, args.tokens))
            seconds = time.perf_counter() - began
            assert not any(f["failed"] for f in found), "a stream was lost"
            own = figures(found, seconds)
            rows.append({"round": round_, "offline_tokens_per_s": rate, "harken": own, "ratio": own["tokens_per_s"] / rate})
            for label, (_, other, name) in others.items():
                began = time.perf_counter()
                theirs = asyncio.run(crowd(other, texts, args.tokens, name))
                rows[-1][label] = figures(theirs, time.perf_counter() - began)
            print(json.dumps(rows[-1]), flush=True)
        expected = [s[0].text for s in offline]
        equal = sum(f["text"] == e for f, e in zip(found, expected))
        nearest = [max(range(len(expected)), key=lambda j: (alike(f["text"], expected[j]), j == i)) for i, f in enumerate(found)]
        mixed = [i for i, j in enumerate(nearest) if expected[i] != expected[j]]
        twice = asyncio.run(crowd(port, texts * 2, args.tokens))
        after = asyncio.run(crowd(port, texts[:4], 4))
        result = {"model": args.model, "clients": args.clients, "tokens": args.tokens, "rounds": rows,
                  "median_ratio": float(np.median([r["ratio"] for r in rows])),
                  "harken_over": {label: float(np.median([r["harken"]["tokens_per_s"] / r[label]["tokens_per_s"] for r in rows]))
                                  for label in others},
                  "streams_equal_to_the_samplers": f"{equal} of {len(expected)}", "mixed": mixed, "at_twice_the_capacity": {
                      "answered": sum(f["status"] == 200 and not f["failed"] for f in twice),
                      "shed_with_429": sum(f["status"] == 429 for f in twice), "of": len(twice),
                      "recovers": all(f["status"] == 200 for f in after)},
                  "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        print(json.dumps(result, indent=1))
        if args.out:
            args.out.write_text(json.dumps(result, indent=1))
    finally:
        for one in (process, *(other for other, _, _ in others.values())):
            one.kill()
            one.wait()


if __name__ == "__main__":
    main()
