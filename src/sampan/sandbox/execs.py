"""A further process in a running container (``exec``), seen by its parent: its streams, its end.

The parent is an ``attendant``; or the keeper, where another runtime puts it into the container.
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

from sampan.sandbox import channel
from sampan.sandbox.joining import SETUP_FAILED
from sampan.sandbox.launch import LaunchError
from sampan.sandbox.loop import READ, Loop
from sampan.sandbox.messages import AttachOptions
from sampan.sandbox.stdio import exit_code, null_streams, standard_pipes, terminal_ends
from sampan.sandbox.streams import Streams

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup
    from sampan.spec.runtime import Process

FROZEN = "the container is paused"
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

    When it was killed for taking too long, the code is ``TIMED_OUT``. ``on_quiet`` is called when it has
    ended and the client has all of its output. Owned from now on: ``console``, the master of its terminal or
    -1, ``outside``, our ends of its streams by number, and the client's socket, if ``client`` holds one.
    """

    def __init__(
        self,
        loop: Loop,
        request: Request,
        *,
        pid: int,
        pidfd: int,
        console: int,
        outside: dict[int, int],
        client: Sequence[int],
        on_end: Callable[[Exec, int], None],
        on_quiet: Callable[[], None],
    ) -> None:
        self.id = request.id
        self.pid = pid
        self.console = console
        self._loop = loop
        self._pidfd = pidfd
        self._on_end = on_end
        self._timed_out = False
        stdin = outside.pop(0, -1)
        if stdin >= 0 and not request.stdin:
            os.close(stdin)
            stdin = -1
        self._streams = Streams(
            loop,
            outputs=outside,
            stdin=stdin,
            stdin_once=True,
            terminal=request.terminal,
            on_quiet=on_quiet,
            on_detach=lambda: None,
        )
        for fd in client:
            options = AttachOptions(
                stdin=request.stdin,
                stdout=True,
                stderr=True,
                detach_keys=request.detach_keys,
                multiplex=not request.terminal,
            )
            self._streams.attach(socket.socket(fileno=fd), options, owner=True, early=request.early)
        self._timer = None if request.limit is None else loop.after(request.limit, self._expire)
        loop.watch(pidfd, READ, self._ended)
        self._streams.begin()

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
        self._streams.drain()
        if self.console >= 0:
            os.close(self.console)
        self._on_end(self, TIMED_OUT if self._timed_out else exit_code(result))
        self._streams.release()


def start(
    loop: Loop,
    request: Request,
    client: Sequence[int],
    clone: Callable[[Loop, Request, Sequence[int]], tuple[int, int, int]],
    on_end: Callable[[Exec, int], None],
    on_quiet: Callable[[], None] = lambda: None,
) -> Exec:
    """Run ``request``: ``clone`` gives pid, pidfd and console (or -1) of the program, given its streams.

    ``client`` holds the client's socket, if any; it is closed when the program cannot be run.
    """
    inside: list[int] = []
    outside: dict[int, int] = {}
    if not request.terminal:
        inside, outside = standard_pipes(stdin=request.stdin) if client else (null_streams(), {})
    try:
        pid, pidfd, console = clone(loop, request, inside)
    except BaseException:
        for fd in (*outside.values(), *client):
            os.close(fd)
        raise
    finally:
        for fd in inside:
            os.close(fd)
    return Exec(
        loop,
        request,
        pid=pid,
        pidfd=pidfd,
        console=console,
        outside=outside if console < 0 else terminal_ends(console),
        client=client,
        on_end=on_end,
        on_quiet=on_quiet,
    )


def see_in(loop: Loop, child: socket.socket, pidfd: int, cgroup: Cgroup) -> int:
    """Let a child that waits become the program, and return when it is: its terminal's master, or -1.

    Raises LaunchError, and has it buried, when it does not.
    """
    console = -1
    try:
        with child:
            with suppress(BrokenPipeError):  # it has failed: what it said is still to be received
                child.send(b".")
            while (message := hear(child, cgroup)) is not None:
                document, fds = message
                if "failed" in document:
                    raise LaunchError(document["failed"], document["code"])
                (console,) = fds
    except BaseException:
        if console >= 0:
            os.close(console)
        _bury(loop, pidfd)
        raise
    return console


def hear(ours: socket.socket, cgroup: Cgroup) -> tuple[Any, list[int]] | None:
    """What a process that joins ``cgroup`` says next; LaunchError when it cannot. None at its end."""
    ready = select.poll()
    ready.register(ours, select.POLLIN)
    deadline = time.monotonic() + _PATIENCE
    while not ready.poll(_GLANCE_MS):
        if cgroup.frozen():
            raise LaunchError(FROZEN, SETUP_FAILED)
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
