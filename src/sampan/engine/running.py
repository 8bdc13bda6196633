"""Start, stop, kill, pause: a container between created and exited.

``start`` holds the container's lock from its first look to the running state; ``stop`` and ``kill`` hold it
only while they look and signal, so that whoever comes meanwhile (a forced removal, a second stop) is served.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import lifecycle, signals
from sampan.engine.exits import announce_network, announce_volumes
from sampan.engine.launches import disconnected
from sampan.engine.lifecycle import Move
from sampan.engine.model import Container, Status
from sampan.errors import Conflict, Failure, Internal, InvalidArgument, NotFound, StartFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sampan.engine.events import Events
    from sampan.engine.exits import Exits
    from sampan.engine.killing import Killing
    from sampan.engine.launches import Launches
    from sampan.engine.ports import ClientStream, Runtime, Task
    from sampan.engine.removal import Removal
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance
    from sampan.sandbox.messages import AttachOptions

_UNKNOWN_FAILURE = 128
_CANNOT_RUN = (125, 126, 127)


class Starting:
    """What a start needs beside the store: the request, the runtime, and who follows the run to its end."""

    def __init__(
        self, *, launches: Launches, runtime: Runtime, exits: Exits, removal: Removal, events: Events
    ) -> None:
        self._launches = launches
        self._runtime = runtime
        self._exits = exits
        self._removal = removal
        self._events = events

    async def start(self, store: ContainerStore, instance: Instance) -> None:
        """Run the container, whose lock the caller holds and whose state allows it.

        A failure is recorded in the container (exit code, error), removes it when it is ``--rm``, and is
        raised as InvalidArgument (the program cannot be run) or Internal.
        """
        if instance.teardown is not None:
            await asyncio.wait((instance.teardown,))
        before = instance.container
        attachments, instance.pending = instance.pending, []
        handed_over = False
        try:
            launch, prepared = await self._launches.prepare(before)
            handed_over = True
            task = await self._runtime.launch(launch, attachments)
        except (Failure, OSError) as error:
            if not handed_over:
                hang_up(attachments)
            await self._failed(store, instance, error)
            raise _start_error(error) from error
        self._begin(store, instance, prepared, task)

    def _begin(self, store: ContainerStore, instance: Instance, prepared: Container, task: Task) -> None:
        state = replace(
            prepared.state,
            status=lifecycle.after(instance.container, Move.START),
            pid=task.pid,
            exit_code=0,
            error="",
            oom_killed=False,
            started_at=int(task.started_at * 1e9),
        )
        container = replace(prepared, state=state, has_been_manually_stopped=False)
        store.update(instance, container)
        announce_network(self._events, container, "connect")
        announce_volumes(self._events, container, "mount")
        self._events.container(container, "start")
        self._exits.follow(instance, task)

    async def _failed(self, store: ContainerStore, instance: Instance, error: Exception) -> None:
        await self._launches.release(instance.id)
        code = error.exit_code if isinstance(error, StartFailed) else _UNKNOWN_FAILURE
        before = disconnected(instance.container)
        state = replace(before.state, exit_code=code, error=str(error))
        store.update(instance, replace(before, state=state))
        if instance.container.host.auto_remove:
            self._removal.withdraw(instance)
            await self._removal.clear(instance, volumes=True)


def hang_up(attachments: Iterable[tuple[ClientStream, AttachOptions]]) -> None:
    """Close the connections of clients that wait for a start."""
    for stream, _ in attachments:
        sock, _ = stream.detach()
        sock.close()


def _start_error(error: Exception) -> Failure:
    if isinstance(error, StartFailed):
        return InvalidArgument(str(error)) if error.exit_code in _CANNOT_RUN else error
    if isinstance(error, Failure):
        return error
    return Internal(f"failed to start the container: {error}")


class Running:
    """The use cases of a container that runs or is to run."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        starting: Starting,
        killing: Killing,
        events: Events,
        settings: Settings,
    ) -> None:
        self._store = store
        self._starting = starting
        self._killing = killing
        self._events = events
        self._settings = settings

    @contextlib.asynccontextmanager
    async def _held(self, ref: str) -> AsyncIterator[Instance]:
        """The container with its lock held; NotFound when it went away while we waited."""
        instance = self._store.find(ref)
        async with instance.lock:
            if instance.removed:
                raise NotFound(f"No such container: {ref}")
            yield instance

    async def start(self, ref: str) -> bool:
        async with self._held(ref) as instance:
            if instance.state.status is Status.RUNNING:
                return False
            lifecycle.after(instance.container, Move.START, ref=ref)
            await self._starting.start(self._store, instance)
            return True

    async def stop(self, ref: str, *, signal: str | None = None, timeout: int | None = None) -> bool:
        number = None if signal is None else signals.sendable(signal)
        async with self._held(ref) as instance:
            if not instance.state.running:
                return False
            stopped = instance.stopped
            container = replace(instance.container, has_been_manually_stopped=True)
            self._store.update(instance, container)
            await self._killing.send(instance, number or stop_signal(container), ref=ref)
        seconds = self._grace(container, timeout)
        # Somebody else may have started it again meanwhile: only the run that was to end is killed.
        if not await self._killing.ended(stopped, seconds) and instance.stopped is stopped:
            try:
                await self._killing.kill(instance, ref=ref)
            except Conflict:
                if instance.stopped is stopped:
                    raise
        self._events.container(instance.container, "stop")
        return True

    def _grace(self, container: Container, timeout: int | None) -> float | None:
        if timeout is None:
            timeout = container.config.stop_timeout
        if timeout is None:
            timeout = self._settings.options.stop_timeout
        return None if timeout < 0 else float(timeout)

    async def restart(self, ref: str, *, signal: str | None = None, timeout: int | None = None) -> None:
        instance = self._store.find(ref)
        instance.keep = True  # a --rm container survives the stop in between
        try:
            await self.stop(ref, signal=signal, timeout=timeout)
            await self.start(instance.id)
        finally:
            instance.keep = False
        self._events.container(instance.container, "restart")

    async def kill(self, ref: str, signal: str | None = None) -> None:
        number = signals.sendable(signal or "KILL")
        async with self._held(ref) as instance:
            lifecycle.after(instance.container, Move.KILL, ref=ref)
            stopped = instance.stopped
            await self._killing.send(instance, number, ref=ref)
        if number == signals.number("KILL"):
            await self._killing.await_end(stopped, ref=ref)

    async def pause(self, ref: str) -> None:
        async with self._held(ref) as instance:
            status = lifecycle.after(instance.container, Move.PAUSE, ref=ref)
            task = _task(instance)
            async with self._killing.asking(instance, Move.PAUSE, ref=ref):
                await task.pause()
            # It may have ended before it could be frozen.
            if instance.task is task:
                self._set_status(instance, status)
                self._events.container(instance.container, "pause")

    async def unpause(self, ref: str) -> None:
        async with self._held(ref) as instance:
            lifecycle.after(instance.container, Move.UNPAUSE, ref=ref)
            await self._killing.resume(instance)

    async def resize(self, ref: str, height: int, width: int) -> None:
        instance = self._store.find(ref)
        lifecycle.after(instance.container, Move.RESIZE, ref=ref)
        await _task(instance).resize(height, width)
        self._events.container(instance.container, "resize", height=str(height), width=str(width))

    def _set_status(self, instance: Instance, status: Status) -> None:
        state = replace(instance.state, status=status)
        self._store.update(instance, replace(instance.container, state=state))


def stop_signal(container: Container) -> int:
    """The container's stop signal; SIGTERM when the image's cannot be understood, as in Docker."""
    try:
        return signals.sendable(container.config.stop_signal or signals.DEFAULT_STOP_SIGNAL)
    except InvalidArgument:
        return signals.number(signals.DEFAULT_STOP_SIGNAL)


def _task(instance: Instance) -> Task:
    if instance.task is None:
        raise Internal(f"container {instance.id} has no keeper")
    return instance.task
