"""llama.cpp's greedy answers, for tests: python llama_greedy.py MODEL.gguf, and on standard input a JSON list of messages a line.

Prints {"ids": [prompt's ids], "text"} a line, as the file's own chat template, tokenizer and weights make them. Needs xllamacpp,
which carries a built llama.cpp; a process of its own, as its OpenMP and torch's do not share one.
"""

import json
import sys

import xllamacpp


def main(path: str, tokens: int) -> None:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_parallel, params.n_ctx = path, 1, 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    for line in sys.stdin:
        asked = json.loads(line)
        options = {"max_tokens": tokens, "temperature": 0.0, "cache_prompt": False, "logprobs": True, "top_logprobs": 1}
        by_ids = server.handle_completions({"prompt": asked["ids"], **options, "logprobs": 1})["choices"][0]
        by_words = server.handle_chat_completions({"messages": asked["messages"], **options})["choices"][0]
        print(json.dumps({"ids": [t["id"] for t in by_ids["logprobs"]["content"]],
                          "chat": [t["id"] for t in by_words["logprobs"]["content"]]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
