"""A further process in a running container (``exec``): joins the namespaces of the first one.

It is a child of the keeper; see ``joining`` for how it gets in.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.linux import process as p
from sampan.sandbox import channel, external
from sampan.sandbox.joining import JOINED, SETUP_FAILED, Joiner
from sampan.sandbox.launch import (
    LaunchError,
)
from sampan.sandbox.loop import READ, Loop
from sampan.sandbox.messages import AttachOptions, Keeping
from sampan.sandbox.program import Program
from sampan.sandbox.stdio import exit_code, null_streams, read_file, standard_pipes, terminal_ends
from sampan.sandbox.streams import Streams

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup
    from sampan.spec.runtime import Process

_FROZEN = "the container is paused"
_PATIENCE = 10.0  # seconds until a child that does not become the program is given up
_GLANCE_MS = 200
TIMED_OUT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One exec. ``user`` is Docker's USER string, or None when the process names numbers; ``filtered`` says
    whether the container's seccomp filter applies; ``early`` is input that the client sent ahead; ``limit``
    are the seconds that it may take."""

    id: str
    process: Process
    user: str | None
    filtered: bool
    stdin: bool
    detach_keys: str | None
    console_size: tuple[int, int] | None
    early: bytes
    limit: float | None

    @property
    def terminal(self) -> bool:
        return bool(self.process.get("terminal"))


def decode(document: dict[str, Any]) -> Request:
    size = document["console_size"]
    return Request(
        id=document["exec"],
        process=document["process"],
        user=document["user"],
        filtered=document["filtered"],
        stdin=document["stdin"],
        detach_keys=document["detach_keys"],
        console_size=(size[0], size[1]) if size else None,
        early=document["early"].encode("latin-1"),
        limit=document.get("limit"),
    )


class Exec:
    """A running exec: ``on_end`` gets its exit code before its clients see the end of its output.

    When it was killed for taking too long, the code is ``TIMED_OUT``.
    """

    def __init__(
        self, loop: Loop, request: Request, pid: int, pidfd: int, on_end: Callable[[Exec, int], None]
    ) -> None:
        self.id = request.id
        self.pid = pid
        self.console = -1
        self.streams: Streams | None = None
        self._loop = loop
        self._pidfd = pidfd
        self._on_end = on_end
        self._timed_out = False
        self._timer = None if request.limit is None else loop.after(request.limit, self._expire)
        loop.watch(pidfd, READ, self._ended)

    def _expire(self) -> None:
        """Kill it and what it started, as far as that stayed in the process group that it leads."""
        self._timer = None
        self._timed_out = True
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.kill()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _ended(self, _events: int) -> None:
        self._loop.forget(self._pidfd)
        if self._timer is not None:
            self._timer.cancel()
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert result is not None
        os.close(self._pidfd)
        if self.streams is not None:
            self.streams.drain()
        if self.console >= 0:
            os.close(self.console)
        self._on_end(self, TIMED_OUT if self._timed_out else exit_code(result))
        if self.streams is not None:
            self.streams.release()


def start(
    loop: Loop,
    request: Request,
    fds: Sequence[int],
    init: int,
    cgroup: Cgroup,
    container: Keeping,
    on_end: Callable[[Exec, int], None],
) -> Exec:
    """Run ``request`` beside the process of pidfd ``init``; ``fds`` holds the client's socket, if any.

    Raises LaunchError when the program cannot be run; the client's socket is closed then.
    """
    client = socket.socket(fileno=fds[0]) if fds else None
    inside: list[int] = []
    outside: dict[int, int] = {}
    if not request.terminal:
        inside, outside = standard_pipes(stdin=request.stdin) if client else (null_streams(), {})
    try:
        pid, pidfd, console = _clone(loop, request, inside, init, cgroup, container)
    except BaseException:
        for fd in outside.values():
            os.close(fd)
        if client is not None:
            client.close()
        raise
    finally:
        for fd in inside:
            os.close(fd)
    running = Exec(loop, request, pid, pidfd, on_end)
    if console >= 0:
        running.console = console
        outside = terminal_ends(console)
    running.streams = _streams(loop, request, outside)
    if client is not None:
        options = AttachOptions(
            stdin=request.stdin,
            stdout=True,
            stderr=True,
            detach_keys=request.detach_keys,
            multiplex=not request.terminal,
        )
        running.streams.attach(client, options, owner=True, early=request.early)
    running.streams.begin()
    return running


def _streams(loop: Loop, request: Request, outside: dict[int, int]) -> Streams:
    stdin = outside.pop(0, -1)
    if stdin >= 0 and not request.stdin:
        os.close(stdin)
        stdin = -1
    return Streams(
        loop,
        outputs=outside,
        stdin=stdin,
        stdin_once=True,
        terminal=request.terminal,
        on_quiet=lambda: None,
        on_detach=lambda: None,
    )


def _clone(
    loop: Loop, request: Request, stdio: Sequence[int], init: int, cgroup: Cgroup, container: Keeping
) -> tuple[int, int, int]:
    """(pid, pidfd, console master or -1) of the program, once it runs."""
    if cgroup.frozen():
        raise LaunchError(_FROZEN, SETUP_FAILED)
    if container.runtime is not None:
        return external.start_exec(container, request, stdio, init, cgroup)
    filter_path = container.seccomp_filter if request.filtered else None
    program = Program(
        process=request.process,
        user=request.user,
        group_add=container.group_add,
        filter=read_file(filter_path) if filter_path else None,
        make_directory=False,
    )
    flags = 0
    for kind in container.namespaces:
        flags |= JOINED.get(kind, 0)
    cgroup_fd = cgroup.clone_fd()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        p.setns(init, p.CLONE_NEWPID)  # for children only
        pid, pidfd = p.clone3(cgroup_fd=cgroup_fd)
        if pid == 0:
            ours.close()
            joiner = Joiner(theirs, program, stdio, request.console_size)
            joiner.run(init, flags, cgroup, cloned=cgroup_fd is not None)
    except OSError as error:
        ours.close()
        raise LaunchError(f"cannot join the container: {error.strerror}", SETUP_FAILED) from error
    finally:
        theirs.close()
        if cgroup_fd is not None:
            os.close(cgroup_fd)
    console = -1
    try:
        with ours:
            while (message := _hear(ours, cgroup)) is not None:
                document, fds = message
                if "failed" in document:
                    raise LaunchError(document["failed"], document["code"])
                (console,) = fds
    except BaseException:
        if console >= 0:
            os.close(console)
        _bury(loop, pidfd)
        raise
    return pid, pidfd, console


def _hear(ours: socket.socket, cgroup: Cgroup) -> tuple[Any, list[int]] | None:
    """What the child says next; LaunchError when it cannot, for the keeper has others to serve."""
    ready = select.poll()
    ready.register(ours, select.POLLIN)
    deadline = time.monotonic() + _PATIENCE
    while not ready.poll(_GLANCE_MS):
        if cgroup.frozen():
            raise LaunchError(_FROZEN, SETUP_FAILED)
        if time.monotonic() >= deadline:
            raise LaunchError(f"no answer from the container in {_PATIENCE:.0f} seconds", SETUP_FAILED)
    return channel.receive(ours)


def _bury(loop: Loop, pidfd: int) -> None:
    """Kill a child that did not get far; one that is frozen dies when it thaws and is not waited for."""
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def ended(_events: int) -> None:
        loop.forget(pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)

    loop.watch(pidfd, READ, ended)
