"""Signals to a running container, and waiting for its end: what stop, kill, forced removal and health share.

A container is ended by its stop rules: its stop signal, then SIGKILL when its time for stopping is over. Who
asks for an end from outside calls the restart policy off; the engine itself does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import lifecycle
from sampan.engine.lifecycle import Move
from sampan.engine.model import Container, Status
from sampan.errors import Conflict, Internal, InvalidArgument, StartFailed, Unavailable
from sampan.spec import signals

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.restarts import Restarts
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance

_LAST_WORDS = 5.0  # seconds from a keeper's silence to the record of its container's exit
_JOINING = 0.05  # seconds, when a process could not join its container: it may be ending
_KILL_PATIENCE = 30.0  # seconds from SIGKILL until a process that does not die is reported


class Killing:
    """Sends signals and waits for recorded exits."""

    def __init__(
        self, *, store: ContainerStore, events: Events, restarts: Restarts, settings: Settings
    ) -> None:
        self._store = store
        self._events = events
        self._restarts = restarts
        self._settings = settings

    async def stop(self, instance: Instance, number: int | None = None, *, ref: str = "") -> None:
        """Send ``number``, by default the container's stop signal, because somebody wants it to end."""
        self._note_request(instance)
        self._restarts.call_off(instance)
        if instance.state.running:
            await self.signal(instance, number or stop_signal(instance.container), ref=ref)

    async def send(self, instance: Instance, number: int, *, ref: str = "") -> None:
        """Send a signal on somebody's request; Conflict when the container does not run.

        One that asks for the end gives up the start that a ``restarting`` container waits for; any other
        does nothing then, as in Docker.
        """
        lifecycle.after(instance.container, Move.KILL, ref=ref)
        self._note_request(instance)
        if _asks_to_end(instance.container, number):
            self._restarts.call_off(instance)
        if instance.state.running:
            await self.signal(instance, number, ref=ref)

    def _note_request(self, instance: Instance) -> None:
        # As in Docker every signal counts, whatever the program makes of it.
        container = instance.container
        if not container.has_been_manually_stopped:
            self._store.update(instance, replace(container, has_been_manually_stopped=True))

    async def signal(self, instance: Instance, number: int, *, ref: str = "") -> None:
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
            if instance.monitor is not None:
                instance.monitor.resume()

    async def kill(self, instance: Instance, *, ref: str = "") -> None:
        """SIGKILL, and return when the exit has been recorded."""
        stopped = instance.stopped
        await self.send(instance, signal.SIGKILL, ref=ref)
        await self.await_end(stopped, ref=ref or instance.id)

    async def see_off(
        self,
        instance: Instance,
        stopped: asyncio.Future[None] | None,
        seconds: float | None,
        *,
        ref: str = "",
    ) -> None:
        """Wait for the end of the run ``stopped``, which was asked to end; SIGKILL after ``seconds``.

        Somebody else may have started it again meanwhile: only the run that was to end is killed.
        """
        if await self.ended(stopped, seconds) or instance.stopped is not stopped:
            return
        try:
            await self.signal(instance, signal.SIGKILL, ref=ref)
            await self.await_end(stopped, ref=ref or instance.id)
        except Conflict:
            if instance.stopped is stopped:
                raise

    def grace(self, container: Container, asked: int | None = None) -> float | None:
        """Seconds from the stop signal to SIGKILL, None for ever; ``asked`` by whoever stops it."""
        seconds = container.config.stop_timeout if asked is None else asked
        if seconds is None:
            seconds = self._settings.options.stop_timeout
        return None if seconds < 0 else float(seconds)

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
        over = asyncio.get_running_loop().create_future()
        timer = None if seconds is None else self._settings.later(seconds, lambda: over.set_result(None))
        try:
            await asyncio.wait((stopped, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if timer is not None:
                timer.cancel()
        return stopped.done()

    def _set_status(self, instance: Instance, status: Status) -> None:
        state = replace(instance.state, status=status)
        self._store.update(instance, replace(instance.container, state=state))


def stop_signal(container: Container) -> int:
    """The container's stop signal; SIGTERM when the image's cannot be understood, as in Docker."""
    try:
        return signals.sendable(container.config.stop_signal or signals.DEFAULT_STOP_SIGNAL)
    except InvalidArgument:
        return signals.number(signals.DEFAULT_STOP_SIGNAL)


def _asks_to_end(container: Container, number: int) -> bool:
    """Docker's rule: SIGKILL and the stop signal that the container names, every signal if it names none."""
    named = container.config.stop_signal
    return not named or number == signal.SIGKILL or number == stop_signal(container)


def _patience(error: Exception) -> float:
    if isinstance(error, StartFailed):
        return 0.0 if error.exit_code == 127 else _JOINING
    return _LAST_WORDS
