"""Launch containers and look after them: the asynchronous side of zygote and keepers.

Laws:
- ``launch`` returns when the program was executed, and raises when it was not; nothing in between.
- A task's ``exited`` is always resolved: by the keeper's report, by the record the keeper left, or, when the
  keeper was killed, by ending the container (137) and saying so.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

from sampan.errors import Conflict, Internal, StartCutShort, StartFailed
from sampan.runtime.attendants import Attendants, ExecFailed, ExecTask
from sampan.runtime.link import KeeperGone, Link
from sampan.runtime.zygote import Zygote
from sampan.sandbox import cgroups, channel, keeper_socket
from sampan.sandbox.entering import REQUEST_FAILED
from sampan.sandbox.expected import EXPECT
from sampan.sandbox.messages import (
    AttachOptions,
    Exit,
    InitialClient,
    Keeping,
    Launch,
    decode_exit,
    encode,
    fields_of,
)
from sampan.sandbox.stdio import forget_exit, read_exit, write_exit

if TYPE_CHECKING:
    from sampan.spec.runtime import LinuxResources, Process

log = logging.getLogger(__name__)

_KILLED = 137
_REMEMBERED = 16
"""How many of those that were expected may still be made by a launcher that is slow."""
START_PATIENCE = 120.0
"""Seconds until a container that is set up, but does not become its program, is given up."""
_RUN_PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "unable to start container process: "
)
_EXEC_PREFIX = "OCI runtime exec failed: exec failed: unable to start container process: "


class ClientStream(Protocol):
    """A hijacked connection; see ``engine.ports``."""

    def detach(self) -> tuple[socket.socket, bytes]: ...


class Task:
    """A running container.

    ``entrance`` is how others get into it, if that is known: a pidfd, owned from now on, and what they need
    to know.
    """

    def __init__(
        self,
        link: Link,
        state: dict[str, Any],
        attendants: Attendants,
        entrance: tuple[int, dict[str, Any]] | None = None,
    ) -> None:
        self.link = link
        self._attendants = attendants
        self._entrance = entrance
        self.pid: int = state["pid"]
        self.started_at: float = state["started_at"]
        self.host_ids: str = state.get("host_ids", "")
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_detach: Callable[[], None] = lambda: None
        self.on_log: Callable[[str], None] = lambda _what: None
        self.cgroup: str = state["cgroup"]
        self._state: str = state["state"]
        self._execs: dict[str, asyncio.Future[int]] = {}
        self._burial: asyncio.Task[None] | None = None
        link.on_event = self._happened
        link.on_end = self._keeper_ended

    async def signal(self, number: int) -> None:
        with suppress(KeeperGone):
            await self.link.ask("signal", number=int(number))

    async def log(self, *, patient: bool) -> None:
        with suppress(KeeperGone):
            await self.link.ask("log", patient=patient)

    async def pause(self) -> None:
        await self._ask("pause")

    async def resume(self) -> None:
        await self._ask("resume")

    async def resize(self, height: int, width: int) -> None:
        with suppress(KeeperGone):
            await self.link.ask("resize", height=height, width=width)

    async def attach(self, stream: ClientStream, options: AttachOptions) -> None:
        sock, early = stream.detach()
        with sock:
            await self._ask(
                "attach", (sock.fileno(),), options=asdict(options), early=early.decode("latin-1")
            )

    async def update(self, resources: LinuxResources) -> None:
        # The kernel may take pages back before it answers. The keeper need not know.
        await asyncio.to_thread(update_group, self.cgroup, resources)

    async def exec(
        self,
        exec_id: str,
        process: Process,
        *,
        user: str | None,
        filtered: bool,
        stdin: bool,
        stream: ClientStream | None,
        detach_keys: str | None,
        console_size: tuple[int, int] | None,
        limit: float | None = None,
    ) -> ExecTask:
        sock, early = stream.detach() if stream else (None, b"")
        request = {
            "exec": exec_id,
            "process": process,
            "user": user,
            "filtered": filtered,
            "stdin": stdin,
            "detach_keys": detach_keys,
            "console_size": console_size,
            "early": early.decode("latin-1"),
            "limit": limit,
        }
        fds = (sock.fileno(),) if sock else ()
        try:
            entrance = self._entrance or await self._ask_entrance()
            try:
                if entrance is None:
                    return await self._exec_by_keeper(fds, request)
                init, container = entrance
                return await self._attendants.run((init, *fds), {**request, "container": container})
            except ExecFailed as error:
                raise start_failed(_EXEC_PREFIX, str(error), error.code) from error
        finally:
            if sock:
                sock.close()

    async def _ask_entrance(self) -> tuple[int, dict[str, Any]] | None:
        """The keeper's, which an earlier daemon was told; None where only the keeper can have execs run.

        So it is with another runtime's containers, and with keepers of earlier versions.
        """
        answer = await self.link.ask("entrance")
        if "failed" in answer:
            return None
        (init,) = answer["fds"]
        if self._entrance is not None or self.released.done():
            os.close(init)
        else:
            self._entrance = (init, answer["container"])
        return self._entrance

    async def _exec_by_keeper(self, fds: Sequence[int], request: dict[str, Any]) -> ExecTask:
        exec_id = request["exec"]
        exited = self._execs[exec_id] = asyncio.get_running_loop().create_future()
        try:
            answer = await self.link.ask("exec", fds, **request)
            if "failed" in answer:
                raise ExecFailed(answer["failed"], answer["code"])
        except BaseException:
            self._execs.pop(exec_id, None)
            raise
        return ExecTask(functools.partial(self.link.ask, "resize", exec=exec_id), answer["pid"], exited)

    async def _ask(self, op: str, fds: Sequence[int] = (), **arguments: object) -> None:
        answer = await self.link.ask(op, fds, **arguments)
        if "failed" in answer:
            raise Conflict(answer["failed"])

    # -- from the keeper ------------------------------------------------------------------------------

    def _happened(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "exit":
                self._resolve(decode_exit(event["exit"].encode()))
            case "exec-exit":
                exited = self._execs.pop(event["exec"], None)
                if exited is not None and not exited.done():
                    exited.set_result(event["code"])
            case "released":
                self._release()
            case "detached":
                self.on_detach()
            case "log":
                self.on_log(event["what"])

    def _resolve(self, ended: Exit) -> None:
        if not self.exited.done():
            self.exited.set_result(ended)

    def _release(self) -> None:
        if self._entrance is not None:
            os.close(self._entrance[0])
            self._entrance = None
        if not self.released.done():
            self.released.set_result(None)

    def _keeper_ended(self) -> None:
        for exited in self._execs.values():
            if not exited.done():
                exited.set_result(_KILLED)
        self._execs.clear()
        if self.exited.done():
            self._release()
        else:
            self._burial = asyncio.create_task(self._bury())

    async def _bury(self) -> None:
        """The keeper is gone without a word: take its record, or end the container and make one."""
        ended = read_exit(self._state)
        if ended is None:
            log.warning("the keeper of pid %d was killed; ending its container", self.pid)
            await asyncio.to_thread(end_group, self.cgroup)
            ended = Exit(
                code=_KILLED, finished_at=time.time(), error="the container's keeper process was killed"
            )
            write_exit(self._state, ended)
        self._resolve(ended)
        self._release()


class Runtime:
    """``bundles`` is the directory of run-time directories, one for each container; ``request`` tells the
    number of the request that is being answered, 0 outside of any."""

    def __init__(self, zygote: Zygote, bundles: str, *, request: Callable[[], int] = int) -> None:
        self._request = request
        self._zygote = zygote
        self._bundles = bundles
        self._tasks: dict[str, Task] = {}
        self._ahead: dict[str, tuple[str, str]] = {}  # bundles and groups of what was expected, by id
        self._told: set[str] = set()  # what was expected since the last launch
        self._cleared: dict[str, set[asyncio.Future[None]]] = {}  # what is being given up, by id
        self.starting = 0
        """How many launches are under way."""

    async def launch(self, launch: Launch, attachments: Sequence[tuple[ClientStream, AttachOptions]]) -> Task:
        """Start a container and join ``attachments`` to its streams. Raises StartFailed."""
        while (clearing := self._cleared.get(launch.id)) is not None:
            await asyncio.wait(clearing)
        # Whoever stands by may have made another container's first process, and clears that away now.
        others, self._told = self._told - {launch.id}, set()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clearing(others, done)
        self.starting += 1
        try:
            return await self._launch(launch, attachments)
        finally:
            self.starting -= 1
            done.set_result(None)

    def _clearing(self, ids: Iterable[str], done: asyncio.Future[None]) -> None:
        """Hold back starts of these containers until ``done``, and whatever else they are held back for."""
        for container_id in ids:
            self._cleared.setdefault(container_id, set()).add(done)
            done.add_done_callback(functools.partial(self._clear, container_id))

    def _clear(self, container_id: str, done: asyncio.Future[None]) -> None:
        pending = self._cleared[container_id]
        pending.discard(done)
        if not pending:
            del self._cleared[container_id]

    async def _launch(
        self, launch: Launch, attachments: Sequence[tuple[ClientStream, AttachOptions]]
    ) -> Task:
        self._ahead.pop(launch.id, None)
        if (earlier := self._tasks.get(launch.id)) is not None:
            await earlier.released
        forget_exit(launch.state)
        detached = [(*stream.detach(), options) for stream, options in attachments]
        try:
            try:
                task = await self._try(launch, detached)
            except _NoWord:
                # The zygote died with the request in its hands: nothing was told to anybody yet.
                await asyncio.to_thread(end_group, launch.spec["linux"]["cgroupsPath"])
                task = await self._try(launch, detached)
        except _NoWord as error:
            raise StartCutShort(_RUN_PREFIX + "its keeper ended without a word", exit_code=128) from error
        finally:
            for sock, _, _ in detached:
                sock.close()
        return self._known(launch.id, task)

    async def _try(
        self, launch: Launch, clients: Sequence[tuple[socket.socket, bytes, AttachOptions]]
    ) -> Task:
        initial = (InitialClient(options=o, early=early.decode("latin-1")) for _, early, o in clients)
        launch = replace(launch, clients=tuple(initial))
        document = channel.as_memfd(encode(launch))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fds = [document, theirs.fileno(), *(sock.fileno() for sock, _, _ in clients)]
            keeping = Keeping.of(launch, self._request())
            await self._zygote.request(keeping.encode(), fds)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(document)
            theirs.close()
        try:
            async with asyncio.timeout(START_PATIENCE):
                container = fields_of(keeping.surroundings)
                return await _first_word(ours, self._zygote.attendants, container)
        except TimeoutError as error:
            # What it waits for may never come. Its launcher hears of its end, and tidies up.
            await asyncio.to_thread(end_group, launch.spec["linux"]["cgroupsPath"])
            reason = f"no answer from the container in {START_PATIENCE:.0f} seconds"
            raise StartFailed(_RUN_PREFIX + reason, exit_code=128) from error

    def expect(self, launch: Launch) -> None:
        """Let what can be done ahead of such a launch be done. Never fails."""
        document = channel.as_memfd(encode(launch))
        try:
            self._zygote.tell(EXPECT, (document,))
        finally:
            os.close(document)
        self._told.add(launch.id)
        # Nobody is to start what was expected before. What is there of it has a launcher that was killed, or
        # one that was slow and will find it gone.
        for former, (bundle, group) in list(self._ahead.items()):
            if os.path.exists(bundle):
                del self._ahead[former]
                cleared = asyncio.get_running_loop().run_in_executor(None, clear_ahead, bundle, group)
                self._clearing((former,), cleared)
        self._ahead[launch.id] = (launch.bundle, launch.spec["linux"]["cgroupsPath"])
        if len(self._ahead) > _REMEMBERED:
            del self._ahead[next(iter(self._ahead))]

    async def adopt(self, container_id: str) -> Task | None:
        """The task of a container whose keeper outlived an earlier daemon; None when there is none."""
        try:
            sock = keeper_socket.connect(f"{self._bundles}/{container_id}")
        except OSError:
            return None
        try:
            return self._known(container_id, await _first_word(sock, self._zygote.attendants))
        except (StartFailed, _NoWord):
            return None

    async def settle(self) -> None:
        """Wait until every container that has ended has let go of its cgroup and mounts."""
        tasks = self._tasks.values()
        ended = [t.released for t in tasks if t.exited.done() and not t.exited.cancelled()]
        if ended:
            await asyncio.wait(ended)

    def _known(self, container_id: str, task: Task) -> Task:
        """Remember a task until it has let go of what a next start needs."""
        self._tasks[container_id] = task

        def forget(_released: asyncio.Future[None]) -> None:
            if self._tasks.get(container_id) is task:
                del self._tasks[container_id]

        task.released.add_done_callback(forget)
        return task


class _NoWord(Exception):
    """The keeper's socket ended before it said anything."""


async def _first_word(
    sock: socket.socket, attendants: Attendants, container: dict[str, Any] | None = None
) -> Task:
    """The task that a keeper, or its launcher, tells of on ``sock``, which is owned from now on.

    A launcher sends the keeper's own connection along, and a pidfd of the container, which is ``container``
    for who enters it. Raises StartFailed, or _NoWord at the end.
    """
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    heard: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), _settle, heard)
    try:
        await heard
        message = channel.receive(sock)
    except (OSError, asyncio.CancelledError) as error:
        loop.remove_reader(sock.fileno())
        sock.close()
        if isinstance(error, OSError):
            raise _NoWord from error
        raise
    loop.remove_reader(sock.fileno())
    if message is not None and message[0]["event"] == "started":
        event, fds = message
        entrance = None
        if fds:
            sock.close()
            sock = socket.socket(fileno=fds[0])
            if container is not None and len(fds) > 1:
                entrance = (fds[1], container)
        # The task listens before the link begins: an exit may be the very next message.
        link = Link(sock)
        task = Task(link, event, attendants, entrance)
        link.begin()
        return task
    sock.close()
    if message is None:
        raise _NoWord
    raise start_failed(_RUN_PREFIX, message[0]["message"], message[0]["code"])


def _settle(heard: asyncio.Future[None]) -> None:
    if not heard.done():
        heard.set_result(None)


def start_failed(prefix: str, message: str, code: int) -> StartFailed:
    """As Docker words it: what its runtime found carries its runtime's prefix, a wrong request does not."""
    return StartFailed(message if code == REQUEST_FAILED else prefix + message, exit_code=code)


def update_group(path: str, resources: LinuxResources) -> None:
    """Change the limits of a container's cgroup that ``resources`` mentions. Raises a Failure."""
    try:
        cgroups.detect().group(path).update(resources)
    except OSError as error:
        raise Internal(f"{error.filename or path}: {(error.strerror or str(error)).lower()}") from error


def end_group(path: str) -> None:
    """Kill everything in a container's cgroup and remove it."""
    group = cgroups.detect().group(path)
    with suppress(OSError):
        group.kill()
    with suppress(OSError):
        group.remove()


def clear_ahead(bundle: str, group: str) -> None:
    """Remove what was made for a container that never came."""
    end_group(group)
    keeper_socket.remove(bundle)


def is_frozen(path: str) -> bool:
    """Whether the processes in a container's cgroup stand still; not where there is no such group."""
    return cgroups.detect().group(path).frozen()
