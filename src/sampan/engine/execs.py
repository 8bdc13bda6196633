"""Commands in running containers: created, started once, inspected for a while after their end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import lifecycle, oci, security, validation
from sampan.engine.handover import with_head_read
from sampan.engine.lifecycle import Move
from sampan.engine.model import Container, Exec, ExecConfig
from sampan.engine.store import RunningExec
from sampan.errors import Conflict, Failure, Internal, InvalidArgument, NotFound, StartFailed

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.killing import Killing
    from sampan.engine.ports import ClientStream, ExecTask, TakeStream, Task
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance

_KEPT_NS = 300 * 1_000_000_000  # how long an ended exec can be inspected, as in Docker
_UNKNOWN_FAILURE = 126
_KILLED = 137
_REQUEST_FAILED = 125  # a user that there is not, and the like: Docker tells 126 of an exec


class Execs:
    """The execs of all containers."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        events: Events,
        killing: Killing,
        settings: Settings,
        available: frozenset[str],
    ) -> None:
        self._store = store
        self._events = events
        self._killing = killing
        self._settings = settings
        self._available = available
        self._execs: dict[str, tuple[Instance, RunningExec]] = {}
        self._ended: deque[tuple[int, str]] = deque()

    async def create(self, ref: str, config: ExecConfig) -> str:
        """The id of a new exec. Conflict unless the container runs."""
        self._forget_old()
        instance = self._store.find(ref)
        lifecycle.after(instance.container, Move.EXEC, ref=ref)
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        validation.check_environment(config.env or ())
        validation.check_texts("exec command", (*config.cmd, config.user, config.working_dir))
        held = self._admit(instance, config)
        self._execs[held.value.id] = (instance, held)
        return held.value.id

    def _admit(self, instance: Instance, config: ExecConfig) -> RunningExec:
        found = Exec(
            id=self._settings.new_id(),
            container_id=instance.id,
            config=config,
            user=config.user or instance.container.config.user,
        )
        held = RunningExec(found)
        instance.execs[found.id] = held
        self._tell(instance.container, f"exec_create: {_command(config)}", found)
        return held

    async def run(
        self, instance: Instance, config: ExecConfig, stream: ClientStream, *, limit: float
    ) -> asyncio.Future[int]:
        """Run a command of the engine's own for at most ``limit`` seconds, joined to ``stream``.

        It is told as any other and is forgotten at its end, which is told before the future has its exit
        code: -1 when it took too long. Raises Failure when it cannot be run.
        """
        held = self._admit(instance, config)
        try:
            # As in ``start``: never half-way into a pause.
            async with instance.lock:
                lifecycle.after(instance.container, Move.EXEC)
                task = instance.task
                if task is None:
                    raise Internal(f"container {instance.id} has no keeper")
                self._tell(instance.container, f"exec_start: {_command(config)}", held.value)
                started = await self._run(instance.container, held, task, stream, None, limit=limit)
        except BaseException:
            instance.execs.pop(held.value.id, None)
            raise
        held.task = started
        held.value = replace(held.value, running=True, started=True, pid=started.pid)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        started.exited.add_done_callback(lambda exited: self._ran(instance, held, exited, ended))
        return ended

    def _ran(
        self,
        instance: Instance,
        held: RunningExec,
        exited: asyncio.Future[int],
        ended: asyncio.Future[int],
    ) -> None:
        instance.execs.pop(held.value.id, None)
        if exited.cancelled():
            ended.cancel()
            return
        code = exited.result()
        self._tell(instance.container, "exec_die", held.value, exitCode=str(code if code >= 0 else _KILLED))
        if not ended.done():  # nobody waits for a check of what has been paused
            ended.set_result(code)

    def inspect(self, exec_id: str) -> Exec:
        return self._find(exec_id)[1].value

    async def start(
        self,
        exec_id: str,
        *,
        detach: bool = False,
        tty: bool = False,
        console_size: tuple[int, int] | None = None,
        take: TakeStream | None = None,
    ) -> None:
        """Run it, joined to the caller's connection unless ``detach``; returns when it runs.

        Docker's body says ``tty`` again; where the two differ, what was created counts.

        What fails after the connection was taken is told in the stream, as in Docker: the client sees the
        message and reads the exit code from inspect.
        """
        del tty
        instance, held = self._find(exec_id)
        # A container that is being paused must not get a further process: it would be frozen half-way.
        async with instance.lock:
            if held.value.exit_code is not None:
                raise Conflict(f"Error: Exec command {exec_id} has already run")
            if held.value.running:
                raise Conflict(f"Error: Exec command {exec_id} is already running")
            lifecycle.after(instance.container, Move.EXEC)
            task = instance.task
            if task is None:
                raise Internal(f"container {instance.id} has no keeper")
            kept = None
            if take is not None and not detach:
                kept = _KeptStream(await with_head_read(take()))
            try:
                await self._begin(instance, held, task, kept, console_size)
            finally:
                if kept is not None:
                    kept.close()

    async def _begin(
        self,
        instance: Instance,
        held: RunningExec,
        task: Task,
        kept: _KeptStream | None,
        console_size: tuple[int, int] | None,
    ) -> None:
        self._tell(instance.container, f"exec_start: {_command(held.value.config)}", held.value)
        try:
            async with self._killing.asking(instance, Move.EXEC):
                started = await self._run(instance.container, held, task, kept, console_size)
        except (Failure, OSError) as error:
            self._failed(held, error)
            if kept is None:
                raise _refusal(error) from error
            kept.tell(f"{error}\r\n", framed=not held.value.config.tty)
        else:
            held.task = started
            held.value = replace(held.value, running=True, started=True, pid=started.pid)
            started.exited.add_done_callback(lambda exited: self._exited(instance, held, exited))

    async def _run(
        self,
        container: Container,
        held: RunningExec,
        task: Task,
        stream: ClientStream | None,
        console_size: tuple[int, int] | None,
        *,
        limit: float | None = None,
    ) -> ExecTask:
        config = held.value.config
        return await task.exec(
            held.value.id,
            oci.exec_process(container, config, self._available),
            user=held.value.user,
            filtered=not config.privileged and filtered(container),
            stdin=config.attach_stdin and stream is not None,
            stream=stream,
            detach_keys=config.detach_keys or None,
            console_size=console_size or config.console_size,
            limit=limit,
        )

    def _failed(self, held: RunningExec, error: Exception) -> None:
        code = _UNKNOWN_FAILURE
        if isinstance(error, StartFailed) and error.exit_code != _REQUEST_FAILED:
            code = error.exit_code
        held.value = replace(held.value, exit_code=code, running=False, started=True)
        self._ended.append((self._settings.now(), held.value.id))

    def _exited(self, instance: Instance, held: RunningExec, exited: asyncio.Future[int]) -> None:
        if exited.cancelled():
            return
        code = _KILLED if exited.exception() is not None else exited.result()
        held.task = None
        held.value = replace(held.value, running=False, exit_code=code, pid=0)
        self._ended.append((self._settings.now(), held.value.id))
        self._tell(instance.container, "exec_die", held.value, exitCode=str(code))

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of its terminal, in characters."""
        _, held = self._find(exec_id)
        if held.task is None:
            raise Conflict(f"exec {exec_id} is not running")
        await held.task.resize(height, width)

    def _find(self, exec_id: str) -> tuple[Instance, RunningExec]:
        found = self._execs.get(exec_id)
        if found is None or found[0].removed:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def _forget_old(self) -> None:
        oldest = self._settings.now() - _KEPT_NS
        while self._ended and self._ended[0][0] < oldest:
            exec_id = self._ended.popleft()[1]
            found = self._execs.pop(exec_id, None)  # gone already with a container that was removed
            if found is not None:
                found[0].execs.pop(exec_id, None)
        for exec_id in [key for key, (instance, _) in self._execs.items() if instance.removed]:
            del self._execs[exec_id]

    def _tell(self, container: Container, action: str, found: Exec, **attributes: str) -> None:
        self._events.container(container, action, execID=found.id, **attributes)


def filtered(container: Container) -> bool:
    """Whether the container runs under a seccomp filter."""
    options = security.parse(container.host.security_opt or ())
    return not container.host.privileged and options.seccomp != security.UNCONFINED


def _command(config: ExecConfig) -> str:
    """Program, a blank, arguments: Docker leaves the blank where there are none."""
    program, *arguments = config.cmd or ("",)
    return f"{program} {' '.join(arguments)}"


def _refusal(error: Exception) -> Failure:
    if isinstance(error, StartFailed):
        return InvalidArgument(str(error))
    return error if isinstance(error, Failure) else Internal(str(error))


class _KeptStream:
    """A client's stream of which a copy is kept until the command runs, to tell why it does not."""

    def __init__(self, stream: ClientStream) -> None:
        self._sock, self._early = stream.detach()

    def detach(self) -> tuple[socket.socket, bytes]:
        return self._sock.dup(), self._early

    def tell(self, message: str, *, framed: bool) -> None:
        data = message.encode()
        if framed:
            data = struct.pack(">BxxxI", 1, len(data)) + data
        # A client that went away, or that reads nothing, is not waited for.
        with contextlib.suppress(OSError):
            self._sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._sock.close()
