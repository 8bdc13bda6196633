"""A running container standing still while its files are read: for a commit, for a copy of its volumes.

Laws:
- The pause is shown and not recorded: a daemon that dies meanwhile leaves a container that the next one lets
  go on, which it knows by a mark in the container's directory.
- Who is paused already stays so. Of several who want it to stand still the last one lets it go on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine.lifecycle import Move
from sampan.engine.model import Status
from sampan.errors import Failure

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.killing import Killing
    from sampan.engine.ports import Task
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance

_MARK = "frozen"


class Stillness:
    """Pauses containers and resumes them."""

    def __init__(
        self, *, store: ContainerStore, killing: Killing, events: Events, settings: Settings
    ) -> None:
        self._store = store
        self._killing = killing
        self._events = events
        self._settings = settings
        self._wanted: Counter[Task] = Counter()

    @asynccontextmanager
    async def of(self, instance: Instance, *, wanted: bool = True) -> AsyncIterator[None]:
        """The container stands still while the context lasts, if it runs, and if it is ``wanted``."""
        task = await self._pause(instance) if wanted else None
        try:
            yield
        finally:
            if task is not None:
                await self._go_on(instance, task)

    async def _pause(self, instance: Instance) -> Task | None:
        """Its run, if it stands still for us now."""
        async with instance.lock:
            task = instance.task
            if task is None:
                return None
            if instance.state.status is Status.RUNNING:
                with open(self._mark(instance), "w"):
                    pass
                async with self._killing.asking(instance, Move.PAUSE):
                    await task.pause()
                state = replace(instance.state, status=Status.PAUSED)
                self._store.show(instance, replace(instance.container, state=state))
                self._events.container(instance.container, "pause")
            elif not self._wanted[task]:
                return None
            self._wanted[task] += 1
            return task

    async def _go_on(self, instance: Instance, task: Task) -> None:
        async with instance.lock:
            self._wanted[task] -= 1
            if self._wanted[task] > 0:
                return
            del self._wanted[task]
            # It may have been resumed, killed, started again or even removed meanwhile.
            if instance.task is task and instance.state.paused:
                with suppress(Failure):
                    await self._killing.resume(instance)
            with suppress(FileNotFoundError):
                os.unlink(self._mark(instance))

    def _mark(self, instance: Instance) -> str:
        return f"{self._settings.paths.container(instance.id)}/{_MARK}"


async def let_go(home: str, task: Task) -> None:
    """Let a container go on that a daemon had standing still when it died; ``home`` is its directory."""
    if not os.path.exists(f"{home}/{_MARK}"):
        return
    with suppress(Failure):
        await task.resume()
    with suppress(FileNotFoundError):
        os.unlink(f"{home}/{_MARK}")
