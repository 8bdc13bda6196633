"""Start, stop, kill, pause: a container between created and exited.

``start`` holds the container's lock from its first look to the running state; ``stop`` and ``kill`` hold it
only while they look and signal, so that whoever comes meanwhile (a forced removal, a second stop) is served.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import lifecycle
from sampan.engine.exits import announce_network, announce_volumes
from sampan.engine.launches import disconnected
from sampan.engine.lifecycle import Move
from sampan.engine.model import Cause, Container, Status
from sampan.engine.visitors import leave
from sampan.errors import Failure, Internal, InvalidArgument, NotFound, StartCutShort, StartFailed, of_host
from sampan.spec import signals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sampan.engine.events import Events
    from sampan.engine.exits import Exits
    from sampan.engine.forecast import Forecast
    from sampan.engine.killing import Killing
    from sampan.engine.launches import Launches
    from sampan.engine.ports import ClientStream, Runtime, Task
    from sampan.engine.removal import Removal
    from sampan.engine.restarts import Restarts
    from sampan.engine.store import ContainerStore, Instance
    from sampan.sandbox.messages import AttachOptions

_UNKNOWN_FAILURE = 128
_CANNOT_RUN = (125, 126, 127)


class Starting:
    """What a start needs beside the store: the request, the runtime, and who follows the run to its end."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        launches: Launches,
        runtime: Runtime,
        forecast: Forecast,
        exits: Exits,
        restarts: Restarts,
        removal: Removal,
        events: Events,
    ) -> None:
        self._store = store
        self._restarts = restarts
        self._launches = launches
        self._runtime = runtime
        self._forecast = forecast
        self._exits = exits
        self._removal = removal
        self._events = events

    async def start(self, instance: Instance, *, by_policy: bool = False) -> None:
        """Run the container, whose lock the caller holds and whose state allows it.

        A start ``by_policy`` goes on counting; one that somebody asked for begins anew.
        A failure is recorded in the container (exit code, error), removes it when it is ``--rm``, and is
        raised as InvalidArgument (the program cannot be run) or Internal.
        """
        if instance.teardown is not None:
            await asyncio.wait((instance.teardown,))
        if instance.guests:
            await leave(instance)
        before = instance.container
        attachments, instance.pending = instance.pending, []
        prepared = None
        try:
            launch, prepared = await self._launches.prepare(before)
            task = await self._runtime.launch(launch, attachments)
        except (Failure, OSError) as error:
            if prepared is None:
                hang_up(attachments)
            else:
                self._tell_of_attempt(prepared)
            await self._failed(instance, error)
            raise _start_error(error) from error
        self._begin(instance, prepared, task, by_policy=by_policy)
        self._forecast.started(launch)

    def _begin(self, instance: Instance, prepared: Container, task: Task, *, by_policy: bool) -> None:
        prepared = self._launches.settled(prepared, task)
        state = replace(
            prepared.state,
            status=lifecycle.after(instance.container, Move.START),
            pid=task.pid,
            exit_code=0,
            error="",
            oom_killed=False,
            started_at=int(task.started_at * 1e9),
            cause=Cause.NONE,
        )
        container = replace(prepared, state=state)
        if not by_policy:
            container = replace(container, has_been_manually_stopped=False, restart_count=0)
            instance.backoff = None
        self._store.update(instance, container)
        announce_network(self._events, container, "connect")
        announce_volumes(self._events, container, "mount")
        self._events.container(container, "start")
        self._exits.follow(instance, task)

    def _tell_of_attempt(self, prepared: Container) -> None:
        """What a start that failed had taken and given back, in dockerd's order."""
        announce_network(self._events, prepared, "connect")
        announce_volumes(self._events, prepared, "mount")
        announce_network(self._events, prepared, "disconnect")
        announce_volumes(self._events, prepared, "unmount")

    async def _failed(self, instance: Instance, error: Exception) -> None:
        await self._launches.release(instance.id)
        if instance.state.status is Status.RESTARTING:
            self._store.show(instance, disconnected(instance.container))
            if isinstance(error, StartCutShort):
                self._restarts.put_off(instance)
            else:
                self._restarts.give_up(instance, error=str(error))
            return
        code = error.exit_code if isinstance(error, StartFailed) else _UNKNOWN_FAILURE
        before = disconnected(instance.container)
        state = replace(before.state, exit_code=code, error=str(error))
        self._store.update(instance, replace(before, state=state))
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
    if (host := of_host(error)) is not None:
        return type(host)(f"failed to start the container: {host}")
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
    ) -> None:
        self._store = store
        self._starting = starting
        self._killing = killing
        self._events = events

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
            if instance.state.status in (Status.RUNNING, Status.RESTARTING):
                return False
            lifecycle.after(instance.container, Move.START, ref=ref)
            await self._starting.start(instance)
            return True

    async def stop(self, ref: str, *, signal: str | None = None, timeout: int | None = None) -> bool:
        number = None if signal is None else signals.sendable(signal)
        async with self._held(ref) as instance:
            if not instance.state.active:
                return False
            stopped = instance.stopped
            await self._killing.stop(instance, number, ref=ref)
        await self._killing.see_off(
            instance, stopped, self._killing.grace(instance.container, timeout), ref=ref
        )
        # What was stopped by hand must not come back with the next daemon, nor with the next boot.
        if instance.container.host.restart_policy.name == "unless-stopped":
            await self._store.lasting(instance)
        elif instance.backoff is not None:
            await self._store.recorded()
        self._events.container(instance.container, "stop")
        return True

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
                if instance.monitor is not None:
                    instance.monitor.pause()
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


def _task(instance: Instance) -> Task:
    if instance.task is None:
        raise Internal(f"container {instance.id} has no keeper")
    return instance.task
