"""llama.cpp's server, in process, on the prompts it is sent. usage: llama_cpp_side.py MODEL.gguf PARALLEL THREADS

Needs `pip install xllamacpp numpy`, which carries a built llama.cpp. Each line of standard input is {"prompts": [[token]], "n",
"tokens"}; the answer is {"seconds", "tokens"}: n completions of each prompt, all at once, of exactly so many tokens, sampled at
temperature 1 from the whole distribution.
"""

import json
import sys
import threading
import time

import xllamacpp


def main(path: str, parallel: int, threads: int) -> None:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_parallel, params.n_ctx, params.kv_unified = path, parallel, parallel * 256, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_prompt = True  # completions of one prompt may share its prefill
    server = xllamacpp.Server(params)
    print(json.dumps({"version": xllamacpp.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        made: list[int] = []

        def one(prompt: list[int], tokens: int = asked["tokens"], made: list[int] = made) -> None:
            found = server.handle_completions({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 1.0,
                                               "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0})
            made.append(found["usage"]["completion_tokens"])

        workers = [threading.Thread(target=one, args=(p,)) for p in asked["prompts"] for _ in range(asked["n"])]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(json.dumps({"seconds": time.perf_counter() - start, "tokens": sum(made)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
