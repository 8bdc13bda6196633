"""Signals to a running container, and waiting for its end: what stop, kill and forced removal share."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import lifecycle
from sampan.engine.lifecycle import Move
from sampan.engine.model import Status
from sampan.errors import Conflict, Internal, StartFailed, Unavailable

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.store import ContainerStore, Instance

_LAST_WORDS = 5.0  # seconds from a keeper's silence to the record of its container's exit
_JOINING = 0.05  # seconds, when a process could not join its container: it may be ending
_KILL_PATIENCE = 30.0  # seconds from SIGKILL until a process that does not die is reported


class Killing:
    """Sends signals and waits for recorded exits."""

    def __init__(self, *, store: ContainerStore, events: Events) -> None:
        self._store = store
        self._events = events

    async def send(self, instance: Instance, number: int, *, ref: str = "") -> None:
        """Send a signal and tell it; Conflict when the container does not run.

        A paused container gets it at once and is resumed, as in Docker, so that the signal takes effect.
        """
        lifecycle.after(instance.container, Move.KILL, ref=ref)
        task = instance.task
        if task is None:
            raise Internal(f"container {instance.id} has no keeper")
        await task.signal(number)
        self._events.container(instance.container, "kill", signal=str(number))
        if instance.state.paused and instance.task is task:
            # The signal may have ended it already: then there is nothing to resume.
            with contextlib.suppress(Conflict, Unavailable):
                await self.resume(instance)

    async def resume(self, instance: Instance) -> None:
        """Let a paused container run again."""
        if instance.task is not None:
            async with self.asking(instance, Move.UNPAUSE):
                await instance.task.resume()
        if instance.state.paused:
            self._set_status(instance, Status.RUNNING)
            self._events.container(instance.container, "unpause")

    async def kill(self, instance: Instance, *, ref: str = "") -> None:
        """SIGKILL, and return when the exit has been recorded."""
        stopped = instance.stopped
        await self.send(instance, signal.SIGKILL, ref=ref)
        await self.await_end(stopped, ref=ref or instance.id)

    async def await_end(self, stopped: asyncio.Future[None] | None, *, ref: str) -> None:
        """Wait for the end of a run that got SIGKILL; Internal when the kernel does not let go of it."""
        if not await self.ended(stopped, _KILL_PATIENCE):
            raise Internal(
                f"cannot kill container: {ref}: tried to kill container, but did not receive an exit event"
            )

    @contextlib.asynccontextmanager
    async def asking(self, instance: Instance, move: Move, *, ref: str = "") -> AsyncIterator[None]:
        """While its keeper is asked for ``move``: a keeper that goes away took its container with it.

        The caller then hears that the container does not run, once its exit has been recorded.
        """
        stopped = instance.stopped
        try:
            yield
        except (Unavailable, StartFailed) as error:
            if await self.ended(stopped, _patience(error)):
                lifecycle.after(instance.container, move, ref=ref)
            raise

    async def ended(self, stopped: asyncio.Future[None] | None, seconds: float | None) -> bool:
        """Wait until an exit has been recorded, at most ``seconds``; False when it has not."""
        if stopped is None or stopped.done():
            return True
        done, _ = await asyncio.wait((stopped,), timeout=seconds)
        return bool(done)

    def _set_status(self, instance: Instance, status: Status) -> None:
        state = replace(instance.state, status=status)
        self._store.update(instance, replace(instance.container, state=state))


def _patience(error: Exception) -> float:
    if isinstance(error, StartFailed):
        return 0.0 if error.exit_code == 127 else _JOINING
    return _LAST_WORDS
