"""A server that follows a loop: it answers with the model that the loop's pointer names, and changes when the pointer does.

    followed = Follow(recipe, opening)         # opening(name, word) loads a model
    arms = followed.arms()                     # the promoted model, its predecessor loaded beside it, a canary with its share
    server.beside.append(lambda: followed.watch(server))

A promoted model is loaded only if a person's signed record stands for it as it lies there (launch.loop.approval). The model
before stays in memory with weight 0, so that a rollback is a change of weights. A model that may not be served changes nothing:
what answers goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from harken.core.errors import UserError
from harken.launch.loop import approval
from harken.launch.loop.drive import name_of
from harken.launch.loop.recipe import Recipe
from harken.launch.loop.turns import Loop
from harken.serve.arms import Arms
from harken.serve.backends import Backend
from harken.serve.server import Server

LOOK_SECONDS = 0.2
"""Between two looks at the pointer: a rollback takes effect within this."""
log = logging.getLogger("harken.serve")


class Follow:
    """`opening` gives the backend of a name and a model's word; called in a thread."""

    def __init__(self, recipe: Recipe, opening: Callable[[str, str], Backend], name: str = "") -> None:
        self.recipe, self.loop, self.opening, self.name = recipe, Loop(recipe.out), opening, name
        self.approved: dict[int, float] = {}
        self.loaded: dict[int, Backend] = {}
        self.pointer: Any = None
        self.retired: list[Backend] = []

    def arms(self) -> Arms:
        """The models of the pointer, loaded. Raises `UserError` where the one to be served was not approved as it lies there."""
        self.pointer = self.loop.trusted()
        for number in shares(self.pointer):
            try:
                self.loaded[number] = self._open(number)
            except UserError as error:
                if number == self.pointer["serving"]:
                    raise
                log.error("%s is not loaded: %s", name_of(number), error)
        present = self._present(self.pointer)
        return Arms([self.loaded[n] for n in present], self.name, list(present.values()))

    def _open(self, number: int) -> Backend:
        if number:
            record = approval.check(self.loop.turn(number))
            self.approved[number] = float(record["canary"]["share"])
        return self.opening(name_of(number), self.loop.model(number, self.recipe.start))

    def _present(self, pointer: Any) -> dict[int, float]:
        """The shares of what is loaded; a canary's is at most what was signed for, whatever the pointer says."""
        return {n: w for n, w in shares(pointer, self.approved).items() if n in self.loaded}

    async def watch(self, server: Server) -> None:
        """Follows the pointer until it is cancelled. The same trouble is told once."""
        trouble = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                pointer = self.loop.trusted()
                if pointer != self.pointer:
                    await self.follow(server, pointer)
                self._close_retired(server)
                trouble = ""
            except Exception as error:  # what answers goes on, and so does the watch: a rollback must still be heard
                if trouble != (trouble := repr(error)):
                    log.error("the loop: %s", error, exc_info=not isinstance(error, UserError))
                    server.metrics.count("harken_loop_refused_total")

    async def follow(self, server: Server, pointer: Any) -> None:
        """Loads what the pointer names and is not loaded yet, then changes the shares at once."""
        self.pointer = pointer
        weights = shares(pointer)
        for number in weights:
            if number not in self.loaded:
                try:
                    backend = await asyncio.to_thread(self._open, number)
                except UserError:
                    if weights[number]:
                        raise
                    continue
                await backend.start()
                server.metrics.set("harken_rows", backend.rows, model=backend.name)
                self.loaded[number] = backend
        present = self._present(pointer)
        server.arms.turn_to([self.loaded[n] for n in present], list(present.values()))
        for number in self.loaded.keys() - present.keys():
            self.retired.append(self.loaded.pop(number))
        server.note(loop={name_of(n): w for n, w in present.items()})

    def _close_retired(self, server: Server) -> None:
        for backend in [b for b in self.retired if not server.busy(b)]:
            self.retired.remove(backend)
            backend.close()


def shares(pointer: Any, most: Mapping[int, float] | None = None) -> dict[int, float]:
    """Turn → its share of the conversations, a canary's at most `most` of it; the model before has 0."""
    canary = pointer["canary"]
    share = float(canary["share"]) if canary else 0.0
    if canary and most is not None:
        share = min(share, most.get(int(canary["turn"]), 0.0))
    weights = {int(pointer["serving"]): 1.0 - share}
    if canary:
        weights[int(canary["turn"])] = share
    if pointer["previous"] is not None:
        weights.setdefault(int(pointer["previous"]), 0.0)
    return weights
