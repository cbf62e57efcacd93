"""A server with vLLM's routes and answers, as its documentation (0.29 to 0.33) gives them, speaking with the toy model.

OpenAI's completions with token ids; adapters at run time; and of its development mode: sleep, wake_up, collective_rpc and
reset_prefix_cache. A server that sleeps does not answer; reload_weights reads a folder into the model, whose name stays.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.sampler import HFSampler

NAME = "served-name"


class FakeVLLM:
    """`asked` are the routes of every request, in order; `dev` opens those of the development mode."""

    def __init__(self, dev=True, lora=True):
        self.dev, self.lora, self.asked, self.asleep, self.adapters = dev, lora, [], False, {}
        self.engine = Engine(load("toy"), train=False)
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(*fake.answer(self.path, json.loads(raw)))

            def do_GET(self):
                self.reply(*fake.answer(self.path, {}))

            def reply(self, status, body):
                text = isinstance(body, str)
                raw = (body if text else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if text else "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        self.site = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.site.server_port}/v1"
        threading.Thread(target=self.site.serve_forever, daemon=True).start()

    def stop(self):
        self.site.shutdown()
        self.site.server_close()

    def answer(self, path, body):
        self.asked.append(path)
        with self.lock:
            if path == "/v1/models":
                return 200, {"data": [{"id": NAME}, *({"id": name} for name in self.adapters)]}
            if path == "/v1/completions":
                return self.complete(body)
            if path == "/v1/load_lora_adapter" and self.lora:
                self.adapters[body["lora_name"]] = self.engine.under(Path(body["lora_path"]), {}, "it")
                return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
            if path == "/v1/unload_lora_adapter" and self.lora:
                found = self.adapters.pop(body["lora_name"], None)
                return (200, "Success") if found else (404, {"error": {"message": "not found"}})
            if self.dev and path in ("/sleep?level=1", "/wake_up"):
                self.asleep = path.startswith("/sleep")
                return 200, ""
            if self.dev and path == "/collective_rpc":
                assert body["method"] == "reload_weights", body
                self.engine = Engine(load(body["kwargs"]["weights_path"]), train=False)
                return 200, {"results": [None]}
            if self.dev and path == "/reset_prefix_cache":
                return 200, ""
        return 404, {"detail": "Not Found"}

    def complete(self, body):
        engine = self.engine if body["model"] == NAME else self.adapters.get(body["model"])
        if engine is None:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        assert not self.asleep and body["return_token_ids"] and body["logprobs"] == 0, body
        (samples,) = HFSampler(engine).sample_ids([tuple(body["prompt"])], body["n"], max_tokens=body["max_tokens"],
                                                  seed=body["seed"])
        return 200, {"model": body["model"], "choices": [
            {"index": i, "text": s.text, "token_ids": list(s.ids), "prompt_token_ids": body["prompt"],
             "logprobs": {"token_logprobs": list(s.logps)}} for i, s in enumerate(samples)]}
