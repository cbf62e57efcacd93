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
from collections.abc import Callable
from typing import Any

from harken.core.errors import UserError
from harken.launch.loop import approval
from harken.launch.loop.drive import name_of
from harken.launch.loop.recipe import Recipe, recipe_of
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
        self.loaded: dict[int, Backend] = {}
        self.pointer: Any = None
        self.retired: list[Backend] = []

    def arms(self) -> Arms:
        """The models of the pointer, loaded. Raises `UserError` where the one to be served was not approved as it lies there."""
        self.pointer = self.loop.pointer
        weights = shares(self.pointer)
        for number in weights:
            try:
                self.loaded[number] = self._open(number)
            except UserError as error:
                if number == self.pointer["serving"]:
                    raise
                log.error("%s is not loaded: %s", name_of(number), error)
        present = {n: w for n, w in weights.items() if n in self.loaded}
        return Arms([self.loaded[n] for n in present], self.name, list(present.values()))

    def _open(self, number: int) -> Backend:
        if number:
            turn = self.loop.turn(number)
            approval.check(recipe_of(turn.begun["recipe"], str(turn.path)), turn)
        return self.opening(name_of(number), self.loop.model(number, self.recipe.start))

    async def watch(self, server: Server) -> None:
        """Follows the pointer until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                pointer = self.loop.pointer
                if pointer != self.pointer:
                    await self.follow(server, pointer)
                self._close_retired(server)
            except UserError as error:  # what answers goes on
                log.error("the loop: %s", error)
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
        present = {n: w for n, w in weights.items() if n in self.loaded}
        server.arms.turn_to([self.loaded[n] for n in present], list(present.values()))
        for number in self.loaded.keys() - present.keys():
            self.retired.append(self.loaded.pop(number))
        server.note(loop={name_of(n): w for n, w in present.items()})

    def _close_retired(self, server: Server) -> None:
        for backend in [b for b in self.retired if not server.busy(b)]:
            self.retired.remove(backend)
            backend.close()


def shares(pointer: Any) -> dict[int, float]:
    """Turn → its share of the conversations; the model before has 0."""
    canary = pointer["canary"]
    share = float(canary["share"]) if canary else 0.0
    weights = {int(pointer["serving"]): 1.0 - share}
    if canary:
        weights[int(canary["turn"])] = share
    if pointer["previous"] is not None:
        weights.setdefault(int(pointer["previous"]), 0.0)
    return weights
