"""A trainer's weights on this server: vLLM's two routes, with which each step of training brings its adapter here.

    POST /v1/load_lora_adapter {"lora_name": "harken-…", "lora_path": "/runs/rloo/rollouts/harken-…"}
    POST /v1/unload_lora_adapter {"lora_name": "harken-…"}

From then on the server answers under that name alone: a request for weights that were here before is answered with 404, never by
others. The answer to a load holds the SHA-256 of the file that was read. All adapters stand on one model in memory, of which one
thread computes, so what is being answered ends before another is loaded.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json
from harken.engines.sampler import HFSampler
from harken.serve.errors import Refused, bad
from harken.serve.server import Server
from harken.serve.weights import Weights

WEIGHTS, ABOUT = "adapter_model.safetensors", "harken.json"
NAME = re.compile(r"[\w.:-]{1,100}")
WAIT_SECONDS = 60.0
"""How long a load waits for answers under way."""


class Adapters:
    """Adapters of `base`, the one model served, read from folders within `folder`."""

    def __init__(self, base: Weights, folder: Path) -> None:
        self.base, self.folder, self.loaded = base, folder.resolve(), base
        self.lock = asyncio.Lock()

    def path_of(self, body: Any) -> Path:
        path = Path(_text(body, "lora_path")).resolve()
        if not path.is_relative_to(self.folder):
            raise Refused(403, "lora_path is outside of the folder that this server was started with (--adapters).",
                          param="lora_path")
        if not (path / WEIGHTS).is_file():
            raise bad(f"There is no {WEIGHTS} in lora_path.", "lora_path")
        return path

    async def load(self, server: Server, body: Any) -> dict[str, str]:
        """Answers under `lora_name` from now on, with the adapter of `lora_path`."""
        path, name = self.path_of(body), _name(body)
        async with self.lock:
            digest = await asyncio.to_thread(file_hash, path / WEIGHTS)
            await self._leave(server)
            try:
                made = await asyncio.to_thread(self._open, name, path, digest)
            except UserError as error:
                await self._answer(server, self.base)
                raise bad(str(error), "lora_path") from None
            await self._answer(server, made)
        return {"status": "loaded", "lora_name": name, "weights": digest}

    async def unload(self, server: Server, body: Any) -> dict[str, str]:
        """The model without an adapter answers again."""
        name = _name(body)
        async with self.lock:
            if self.loaded is self.base or self.loaded.name != name:
                raise Refused(404, f"No adapter {name} is loaded.", param="lora_name", code="model_not_found")
            await self._leave(server)
            await self._answer(server, self.base)
        return {"status": "unloaded", "lora_name": name}

    def _open(self, name: str, path: Path, digest: str) -> Weights:
        engine, about = self.base.sampler.engine, path / ABOUT
        if about.is_file() and read_json(about).get("base_weights") != engine.lineage.get("weights"):
            raise UserError("The adapter was trained on another model than this server has.",
                            "Start both with the same --model.")
        lineage = {"name": name, "weights": [digest], "base": dict(engine.lineage)}
        sampler = HFSampler(engine.under(path, lineage, f"The adapter {name}"))
        return Weights(name, sampler, rows=self.base.rows, context=self.base.context, max_tokens=self.base.max_tokens)

    async def _leave(self, server: Server) -> None:
        """Takes no more requests, waits for those under way, and gives up the adapter that answered."""
        old, names = self.loaded, server.arms.names
        server.arms.backends, server.arms.names = [], []
        waited = 0.0
        while server.busy(old):
            if waited > WAIT_SECONDS:
                server.arms.backends, server.arms.names = [old], names
                raise Refused(409, "Other answers of this server do not end.", retry_after=5)
            await asyncio.sleep(0.01)
            waited += 0.01
        await asyncio.to_thread(old.close)
        if old is not self.base:
            engine = old.sampler.engine
            await asyncio.to_thread(engine.base.drop, engine.read[0])

    async def _answer(self, server: Server, backend: Weights) -> None:
        await backend.start()
        self.loaded = backend
        server.arms.backends, server.arms.names = [backend], [backend.name]


def _text(body: Any, field: str) -> str:
    value = body.get(field) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise bad(f"{field} must be a string.", field, "invalid_type")
    return value


def _name(body: Any) -> str:
    name = _text(body, "lora_name")
    if not NAME.fullmatch(name):
        raise bad("lora_name must have at most 100 letters, digits and . : _ -", "lora_name")
    return name
