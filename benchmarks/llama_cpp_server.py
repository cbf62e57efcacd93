"""llama.cpp's own HTTP server. usage: llama_cpp_server.py MODEL.gguf PARALLEL THREADS

Needs `pip install xllamacpp`, which carries a built llama.cpp. Prints the address it answers at, and serves until it is killed.
"""

import sys
import time

import xllamacpp


def main(path: str, parallel: int, threads: int) -> None:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_parallel, params.n_ctx, params.kv_unified = path, parallel, parallel * 256, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
