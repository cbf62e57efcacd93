"""A trainer's weights on this server: vLLM's two routes, with which each step of training brings its adapter here, and one for
whole models.

    POST /v1/load_lora_adapter {"lora_name": "harken-…", "lora_path": "/runs/rloo/rollouts/harken-…"}
    POST /v1/unload_lora_adapter {"lora_name": "harken-…"}      the model that the server was started with answers again
    POST /v1/load_weights {"name": "harken-…", "path": "/runs/rloo/rollouts/harken-…"}      a model's folder

From then on the server answers under that name alone: a request for weights that were here before is answered with 404, never by
others. The answer to a load holds the SHA-256 of the file that was read. All adapters stand on one model in memory, of which one
thread computes, so what is being answered ends before another is loaded.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json
from harken.engines.sampler import HFSampler
from harken.serve.errors import Refused, bad
from harken.serve.server import Server
from harken.serve.weights import Weights

WEIGHTS, WHOLE, ABOUT = "adapter_model.safetensors", "model.safetensors", "harken.json"
NAME = re.compile(r"[\w.:-]{1,100}")
WAIT_SECONDS = 60.0
"""How long a load waits for answers under way."""


class Adapters:
    """Adapters of `base`, the one model served, read from folders within `folder`."""

    def __init__(self, base: Weights, folder: Path) -> None:
        self.base, self.folder, self.loaded = base, folder.resolve(), base
        self.lock = asyncio.Lock()

    def path_of(self, body: Any, field: str = "lora_path", file: str = WEIGHTS) -> Path:
        path = Path(_text(body, field)).resolve()
        if not path.is_relative_to(self.folder):
            raise Refused(403, f"{field} is outside of the folder that this server was started with (--adapters).", param=field)
        if not (path / file).is_file():
            raise bad(f"There is no {file} in {field}.", field)
        return path

    async def load(self, server: Server, body: Any) -> dict[str, str]:
        """Answers under `lora_name` from now on, with the adapter of `lora_path`."""
        path, name = self.path_of(body), _name(body)
        digest = await self._put(server, path / WEIGHTS, "lora_path", lambda digest: self._open(name, path, digest))
        return {"status": "loaded", "lora_name": name, "weights": digest}

    async def load_weights(self, server: Server, body: Any) -> dict[str, str]:
        """Answers under `name` from now on, with the model in the folder `path`."""
        path, name = self.path_of(body, "path", WHOLE), _name(body, "name")
        digest = await self._put(server, path / WHOLE, "path", lambda digest: self._open_whole(name, path, digest))
        return {"status": "loaded", "name": name, "weights": digest}

    async def _put(self, server: Server, file: Path, field: str, opened: Callable[[str], Weights]) -> str:
        """Answers with what `opened` makes of the file's hash, which is returned; where it fails, with the first model again."""
        async with self.lock:
            digest = await asyncio.to_thread(file_hash, file)
            await self._leave(server)
            try:
                made = await asyncio.to_thread(opened, digest)
            except UserError as error:
                await self._answer(server, self.base)
                raise bad(str(error), field) from None
            await self._answer(server, made)
        return digest

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
        return self._backend(name, engine.under(path, lineage, f"The adapter {name}"))

    def _open_whole(self, name: str, path: Path, digest: str) -> Weights:
        engine = self.base.sampler.engine.beside(str(path))
        if engine.template.hash != self.base.template.hash:
            raise UserError("The model has another chat template or tokenizer than this server's.",
                            "Start both with the same --model.")
        engine.lineage = {"name": name, "weights": [digest]}
        return self._backend(name, engine)

    def _backend(self, name: str, engine: Any) -> Weights:
        sampler = HFSampler(engine)
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
        engine = old.sampler.engine
        if old is not self.base and engine.base is self.base.sampler.engine.base:
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


def _name(body: Any, field: str = "lora_name") -> str:
    name = _text(body, field)
    if not NAME.fullmatch(name):
        raise bad(f"{field} must have at most 100 letters, digits and . : _ -", field)
    return name
