"""Visitors seen from the daemon: sent to a container's files by the zygote, heard, and ended.

Laws:
- A visit is closed by whoever opened it; closing ends the visitor, wherever it hangs.
- Only the process that a container's pid was given to is entered: a pid that another process has by now is
  told by its cgroup, which bears the container's id.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure, HostFailure, Internal, InvalidArgument, NotFound, Unavailable
from sampan.sandbox import channel
from sampan.sandbox.messages import encode
from sampan.sandbox.visit import VISIT

if TYPE_CHECKING:
    from sampan.runtime.zygote import Zygote
    from sampan.sandbox.messages import RootFilesystem

log = logging.getLogger(__name__)

_PIECE = 1 << 18
_F_SETPIPE_SZ = 1031
_PIPE = 1 << 20  # bytes
_LAST_BREATH = 10.0  # seconds


class Gone(Exception):
    """The container ended before its files could be visited as a running one's."""


class Visits:
    """Sends visitors."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote

    async def begin(
        self,
        container_id: str,
        op: str,
        *,
        pid: int = 0,
        root: RootFilesystem | None = None,
        directory: str = "",
        flow: str = "",
        **arguments: Any,
    ) -> Visit:
        """Begin ``op`` (see ``sandbox.visit``) in the running container whose first process is ``pid``, in
        ``root``, which the caller knows not to be mounted, or in a directory of the host.

        ``flow`` is the direction of data: ``in``, ``out`` or nothing. Raises Gone.
        """
        place = {"root": None if root is None else asdict(root), "directory": directory}
        request = {"op": op, **place, **arguments}
        given: list[int] = []
        data = -1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fds = [theirs.fileno()]
            if root is None and not directory:
                given.append(_first_process(container_id, pid))
                fds.append(given[-1])
            if flow:
                read, write = os.pipe2(os.O_CLOEXEC)
                data, far = (write, read) if flow == "in" else (read, write)
                given.append(far)
                fds.append(far)
                os.set_blocking(data, False)
                _widen(data)
            await self._zygote.request(bytes((VISIT,)) + encode(request), fds)
        except BaseException:
            ours.close()
            if data >= 0:
                os.close(data)
            raise
        finally:
            theirs.close()
            for fd in given:
                os.close(fd)
        return Visit(ours, data)

    async def unpack(
        self, request: Mapping[str, Any], archive: int, directory: str, pace: int | None = None
    ) -> Any:
        """Unpack a layer as ``request`` says onto ``directory``; the result: see ``sandbox.unpacker``.

        Descriptors stay the caller's. Cancelled, the process is ended and waited for.
        """
        libraries = [path for path in sys.path if os.path.isabs(path)]
        document = encode({"op": "unpack", "libraries": libraries, **request})
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fds = [theirs.fileno(), archive, root, *([] if pace is None else [pace])]
                await self._zygote.request(bytes((VISIT,)) + document, fds)
            except BaseException:
                ours.close()
                raise
            finally:
                os.close(root)
        visit = Visit(ours, -1)
        try:
            return (await visit.answer())["result"]
        finally:
            await visit.aclose()

    async def pack(self, root: RootFilesystem, take: Callable[[int], None]) -> None:
        """Pack what a container changed in ``root`` as a layer; see ``sandbox.packer``.

        ``take`` reads the archive from a descriptor that it closes, in a thread. Cancelled, the process is
        ended and waited for.
        """
        visit = await self.begin("", "upper", root=root, flow="out")
        taking: asyncio.Future[None] | None = None
        try:
            await visit.answer()
            taking = asyncio.ensure_future(asyncio.to_thread(take, visit.hand_over()))
            try:
                await visit.answer()
            except Failure:
                await taking  # why nobody reads any more says more than that nobody does
                raise
            await taking
        finally:
            await visit.aclose()
            if taking is not None:
                await asyncio.gather(taking, return_exceptions=True)


class Visit:
    """One visitor at work."""

    def __init__(self, control: socket.socket, data: int) -> None:
        self._control = control
        self._data = data
        self._process = -1
        self._ended = False
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._loop = asyncio.get_running_loop()
        control.setblocking(False)

    async def answer(self) -> dict[str, Any]:
        """What the visitor says next. Raises what it failed with: Gone, or a Failure."""
        if self._ended:
            raise _ended()
        answer = await self._hear()
        if answer is None:
            raise Internal("the visitor of a container's files ended without a word")
        if "failed" in answer:
            raise _failure(answer["failed"], answer["message"])
        return answer

    async def _hear(self) -> dict[str, Any] | None:
        """Its next message; None when it has ended. Its pidfd, which comes first, is kept."""
        while True:
            try:
                message = channel.receive(self._control)
            except BlockingIOError:
                await self._ready(self._control.fileno())
                continue
            except OSError:
                return None
            if message is None:
                return None
            if not message[1]:
                answer: dict[str, Any] = message[0]
                return answer
            (self._process,) = message[1]

    async def read(self) -> bytes:
        """The next of the data that flows out; empty at its end."""
        while not self._ended:
            try:
                return os.read(self._data, _PIECE)
            except BlockingIOError:
                await self._ready(self._data)
        raise _ended()

    async def write(self, data: bytes) -> bool:
        """Let data flow in, at the visitor's pace; False when it takes no more."""
        view = memoryview(data)
        while view:
            if self._data < 0:
                raise _ended()
            try:
                view = view[os.write(self._data, view) :]
            except BlockingIOError:
                await self._ready(self._data, writing=True)
            except BrokenPipeError:
                return False
        return True

    def hand_over(self) -> int:
        """The descriptor of what flows out, which blocks and is the caller's from now on."""
        data, self._data = self._data, -1
        os.set_blocking(data, True)
        return data

    def end_of_data(self) -> None:
        """No more data flows in. Idempotent."""
        if self._data >= 0:
            self._wake(self._data, _ended())
            os.close(self._data)
            self._data = -1

    async def aclose(self) -> None:
        """End the visitor, if it has not ended, and wait until its mounts are gone. Idempotent.

        Whoever waits for it, for data or for an answer, hears Unavailable.
        """
        if self._ended:
            return
        self._ended = True
        self.end_of_data()
        self._wake(self._control.fileno(), _ended())
        try:
            with suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)  # which ends it
            async with asyncio.timeout(_LAST_BREATH):
                while await self._hear() is not None:
                    pass
                if self._process >= 0:
                    await self._ready(self._process)
        except TimeoutError:
            log.warning("a visitor of a container's files does not end")
        finally:
            self._control.close()
            if self._process >= 0:
                os.close(self._process)
                self._process = -1

    async def _ready(self, fd: int, *, writing: bool = False) -> None:
        """Wait for something to read or room to write. Unavailable if the visit ends meanwhile."""
        waiting = self._waiting.setdefault(fd, [])
        if not waiting:
            (self._loop.add_writer if writing else self._loop.add_reader)(fd, self._wake, fd)
        ready: asyncio.Future[None] = self._loop.create_future()
        waiting.append(ready)
        try:
            await ready
        finally:
            if ready in waiting:
                waiting.remove(ready)
                if not waiting:
                    self._unwatch(fd)

    def _wake(self, fd: int, failure: Failure | None = None) -> None:
        waiting = self._waiting.pop(fd, [])
        self._unwatch(fd)
        for ready in waiting:
            if ready.done():
                continue
            if failure is None:
                ready.set_result(None)
            else:
                ready.set_exception(failure)

    def _unwatch(self, fd: int) -> None:
        self._waiting.pop(fd, None)
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)


def _ended() -> Unavailable:
    return Unavailable("the container is being started or removed")


def _widen(pipe: int) -> None:
    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE)
    except OSError:
        return  # a smaller pipe is only slower


def _first_process(container_id: str, pid: int) -> int:
    """A descriptor of the container's first process. Raises Gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise Gone from error
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            known = container_id in file.read()
        signal.pidfd_send_signal(pidfd, 0)  # what was read was read of this very process
    except OSError as error:
        os.close(pidfd)
        raise Gone from error
    if not known:
        os.close(pidfd)
        raise Gone
    return pidfd


def _failure(kind: str, message: str) -> Failure | Gone:
    if kind == "gone":
        return Gone(message)
    kinds: dict[str, type[Failure]] = {"missing": NotFound, "invalid": InvalidArgument, "host": HostFailure}
    return kinds.get(kind, Internal)(message)
