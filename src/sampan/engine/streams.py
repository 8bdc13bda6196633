"""A container's output: live (attach) and recorded (logs)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sampan import errors
from sampan.engine import logfiles
from sampan.engine.handover import with_head_read
from sampan.engine.logs import LogStream
from sampan.engine.model import LogQuery, Status
from sampan.errors import Conflict, NotFound
from sampan.wire import stdcopy, websocket

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.ports import ClientStream, TakeStream
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance
    from sampan.engine.watching import Watching
    from sampan.sandbox.messages import AttachOptions


class Streams:
    """Attach and logs."""

    def __init__(
        self, *, store: ContainerStore, events: Events, watching: Watching, settings: Settings
    ) -> None:
        self._store = store
        self._events = events
        self._watching = watching
        self._settings = settings

    def logs(self, ref: str, query: LogQuery) -> LogStream:
        """Following ends with the run; a container that does not run has nothing to follow, as in Docker."""
        instance = self._store.find(ref)
        if not logfiles.readable(instance.container.host.log_config):
            raise errors.NotImplemented("configured logging driver does not support reading")
        return self._read(instance, query)

    def _read(self, instance: Instance, query: LogQuery) -> LogStream:
        return LogStream(
            self._settings.paths.container_log(instance.id),
            query,
            watching=self._watching,
            ended=instance.stopped,
            now=self._settings.now,
        )

    async def attach(self, ref: str, options: AttachOptions, take: TakeStream) -> None:
        """Hand the client's connection over: to the keeper, or to the next start when it does not run."""
        instance = self._store.find(ref)
        # A start under way holds the lock: the client then joins what it started.
        async with instance.lock:
            if instance.removed:
                raise NotFound(f"No such container: {ref}")
            if instance.state.paused:
                raise Conflict(f"container {instance.id} is paused, unpause the container before attach")
            if instance.state.status is Status.RESTARTING:
                raise Conflict(f"container {ref} is restarting, wait until the container is running")
            stream: ClientStream = take()
            if options.stream:
                self._events.container(instance.container, "attach")
            if instance.task is None and options.stream:
                # The start comes from who has read the answer.
                instance.pending.append((stream, options))
                return
            stream = await with_head_read(stream)
            if instance.task is not None:
                await instance.task.attach(stream, options)
            else:
                await self._replay(instance, stream, options)

    async def _replay(self, instance: Instance, stream: ClientStream, options: AttachOptions) -> None:
        """Send the log of a container that does not run, when it was asked for, and hang up."""
        sock, _ = stream.detach()
        with sock:
            if not options.logs or not logfiles.readable(instance.container.host.log_config):
                return
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            query = LogQuery(stdout=options.stdout, stderr=options.stderr)
            async for texts in self._read(instance, query).texts():
                for stream_number, text in texts:
                    await loop.sock_sendall(sock, _framed(options, stream_number, text))


def _framed(options: AttachOptions, stream: int, text: bytes) -> bytes:
    """Output as a client that attached takes it."""
    if options.websocket:
        return websocket.frame(text)
    return stdcopy.frame(stream, text) if options.multiplex else text
