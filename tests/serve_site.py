"""A server of the toy model on a free port, for the tests of `harken serve`."""

import json
import threading
import time
import urllib.error
import urllib.request

import torch

from harken.engines.attention import NAME
from harken.engines.hf import Engine
from harken.engines.pretrained import Loaded
from harken.engines.sampler import HFSampler
from harken.engines.toy import toy_model, toy_tokenizer
from harken.text.template import Template


def toy_sampler(seed=0, ends=False):
    """The toy model; with `ends` every third token or so is the end, else one in eighty."""
    loaded = Loaded(toy_model(seed=seed).eval(), Template(toy_tokenizer()), {"name": f"toy {seed}"})
    loaded.model.config._attn_implementation = NAME
    if ends:
        head = loaded.model.get_output_embeddings()
        head.bias = torch.nn.Parameter(torch.zeros(head.out_features))
        head.bias.data[loaded.template.end_id] = 4.0
    return HFSampler(Engine(loaded, train=False))


def weights(name="toy", sampler=None, rows=8, context=512, max_tokens=24):
    from harken.serve.weights import Weights
    return Weights(name, sampler or toy_sampler(), rows=rows, context=context, max_tokens=max_tokens)


class Served:
    """A running server; `options` are the `Server`'s."""

    def __init__(self, backends=None, folder=None, name="", arms=(), address=None, **options):
        import uvicorn

        from harken.serve.app import create_app
        from harken.serve.arms import Arms
        from harken.serve.server import Server
        from harken.store.database import open_database

        db = open_database(address or folder / "feedback.db") if folder or address else None
        self.server = Server(Arms(backends or [weights()], name, arms), db=db, **options)
        self.uvicorn = uvicorn.Server(uvicorn.Config(create_app(self.server), port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.uvicorn.run, daemon=True)
        self.thread.start()
        while not self.uvicorn.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self):
        self.uvicorn.should_exit = True
        self.thread.join(20)

    def call(self, method, path, body=None, **headers):
        """(status, answer, headers)"""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, _read(reply), reply.headers
        except urllib.error.HTTPError as error:
            return error.code, _read(error), error.headers

    def chat(self, text="Hi", headers=None, **fields):
        body = {"model": self.server.arms.names[0], "messages": [{"role": "user", "content": text}], **fields}
        return self.call("POST", "/v1/chat/completions", body, **(headers or {}))

    def stream(self, text="Hi", **fields):
        """The chunks of a streamed chat."""
        body = {"model": self.server.arms.names[0], "messages": [{"role": "user", "content": text}], "stream": True, **fields}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            lines = [line[6:].strip() for line in reply if line.startswith(b"data: ")]
        assert lines[-1] == b"[DONE]"
        return [json.loads(line) for line in lines[:-1]]


def _read(reply):
    raw = reply.read().decode()
    return json.loads(raw) if "json" in (reply.headers.get("content-type") or "") else raw
