"""A keeper before anything has happened, and how it comes to be.

The zygote has keepers forked ahead of need (``seed``). Such a keeper begins with everything that any
container may want (pipes, a control connection, a listening socket to be) and forks its launcher, which waits
for a job. When one comes, no fork stands between the request and the container.

A quiet container should cost next to nothing, and every page that the keeper writes to is its own from then
on. So what is here does no more than to learn the first process's pid and to sleep, until there is output, an
exit or a request; what else the launcher said waits in its socket, and ``keeper.Keeper`` is made then. What
is called on the way was made by the seed: a line more here is measured with ``benchmarks/memory.py``.

The launcher's packets: the flags of what is to be kept (``messages.Keeping``); the clients' sockets if there
are any; the pid; what is to be kept, encoded, with the namespace of the mounts; the terminal if there is one;
and the time of the start. The end instead of any of them means that the container was not started, and so
does a launcher that ends with another status than 0; the daemon has been told why.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sampan.linux.process import set_child_subreaper
from sampan.sandbox import channel, lastwords
from sampan.sandbox.keeper import Keeper
from sampan.sandbox.launch import Started
from sampan.sandbox.launcher import Launcher
from sampan.sandbox.messages import CLIENTS, EXTERNAL, LOGGED, STDIN, TERMINAL, TIMED

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.sandbox.cgroups import Hierarchy

    Ready = list[tuple[int, int]]
    Clients = tuple[tuple[int, dict[str, Any]], ...]

# Descriptors that are there from the beginning: the launcher's, one for both, and the keeper's own.
JOB, THEIRS, DAEMONS, STDIN_READ, STDOUT_WRITE, STDERR_WRITE = range(4, 10)
LISTENER = 10
OURS, CONTROL, STDIN_WRITE, STDOUT, STDERR = range(11, 16)
ORDERS = 3  # the seed's own, which keepers close
_PIDFD = ORDERS  # the lowest number that is free then, and the first to be taken


class Sleep:
    """What a keeper of a container without terminal sleeps in, made before it is forked."""

    def __init__(self) -> None:
        awaited = (_PIDFD, CONTROL, LISTENER, STDOUT, STDERR)
        self.beside_launcher = _poll(awaited, OURS)
        self.alone = _poll(awaited)


def _poll(awaited: tuple[int, ...], ending: int = -1) -> Callable[[], Ready]:
    poll = select.poll()
    for fd in awaited:
        poll.register(fd, select.POLLIN)
    if ending >= 0:
        poll.register(ending, 0)  # there is unread data: only the end counts
    poll.poll(0)  # which lays out what the kernel is given
    return poll.poll


def stand_by(hierarchy: Hierarchy, fork: Callable[[], int], sleep: Sleep) -> None:
    """Have a launcher wait for a job on ``JOB``, and keep its container until that has ended."""
    launcher = fork()
    if launcher == 0:
        os.close(ORDERS)
        os.closerange(OURS, STDERR + 1)
        streams = (STDIN_READ, STDOUT_WRITE, STDERR_WRITE)
        Launcher(hierarchy, job=JOB, keeper=THEIRS, control=DAEMONS, listener=LISTENER, stdio=streams).run()
    os.closerange(ORDERS, LISTENER)
    said = os.read(OURS, 1)
    if not said:
        return
    flags = said[0]
    special = flags & ~(STDIN | LOGGED)
    clients = _prepare(flags) if special else ()
    said = os.read(OURS, 32)
    if not said or clients is None:
        return
    pidfd = _open_process(said)
    if not flags & (STDIN | TERMINAL):
        os.closerange(STDIN_WRITE, STDOUT)
    reaped = not special and pidfd == _PIDFD and _sleep(sleep.beside_launcher, sleep.alone, launcher)
    found = read_rest(OURS, flags)
    if found is None:
        # A launcher that was killed may leave a program of which nobody knows.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return
    keeping, mounts, console, at = found
    if special:
        outputs = _settle(flags, console)
        # Who has a clock to look at begins at once, and pays for it.
        if not clients and not flags & TIMED:
            awaited = (pidfd, CONTROL, LISTENER, *outputs)
            reaped = _sleep(_poll(awaited, OURS), _poll(awaited), launcher)
    # The process is our child: its pid is its own until it is reaped.
    pid = int(said.split()[0])
    keeper = Keeper(
        keeping,
        hierarchy,
        Started(pid=pid, pidfd=pidfd, mounts=mounts, console=console, at=at),
        control=CONTROL,
        listener=LISTENER,
    )
    if reaped:
        os.close(OURS)
    else:
        keeper.reap_at_end_of(OURS, launcher)
    try:
        keeper.run({0: STDIN_WRITE, 1: STDOUT, 2: STDERR}, list(clients))
    except BaseException:
        lastwords.say("keeper", keeping)
        os._exit(1)  # the zygote ends what nobody watches


def _prepare(flags: int) -> Clients | None:
    """What comes before a start that is no plain one: the clients; None when the launcher has ended."""
    if flags & EXTERNAL:
        # A runtime leaves the container's first process to whoever is next above it.
        set_child_subreaper()
        os.write(OURS, b".")
    if not flags & CLIENTS:
        return ()
    if (message := _receive(OURS)) is None:
        return None
    options, fds = message
    return tuple(zip(fds, options, strict=True))


def _open_process(said: bytes) -> int:
    """The process, our child, exists once its pid is said. It may be over by now, and its mounts with it."""
    try:
        pid = int(said)
    except ValueError:  # others were needed to start it, and are dead
        pid, *dead = map(int, said.split())
        for corpse in dead:
            os.waitpid(corpse, 0)
    return os.pidfd_open(pid)


def _sleep(beside_launcher: Callable[[], Ready], alone: Callable[[], Ready], launcher: int) -> bool:
    """Wait until anything happens; whether the launcher has ended meanwhile, and was reaped.

    Its end takes longer than a short program: it is not waited for before the program is looked at.
    """
    ready = beside_launcher()
    if len(ready) != 1 or ready[0][0] != OURS:
        return False
    _, status = os.waitpid(launcher, 0)
    if not status:
        alone()
    return True


def read_rest(launcher: int, flags: int) -> tuple[bytes, int, int, float] | None:
    """(keeping, mounts, terminal, time) of a start, of which the pid is known; None when there was none."""
    sock = socket.socket(fileno=launcher)
    try:
        if (message := channel.receive_bytes(sock)) is None:
            return None
        keeping, fds = message
        mounts = fds[0] if fds else -1
        console = -1
        if flags & TERMINAL and (last := channel.receive(sock)) is not None:
            (console,) = last[1]
        at = sock.recv(32)
    finally:
        sock.detach()
    return (keeping, mounts, console, float(at)) if at else None


def _settle(flags: int, console: int) -> tuple[int, ...]:
    """Take a container that is no plain one over: where its output comes from."""
    if flags & EXTERNAL:
        set_child_subreaper(on=False)
    if not flags & TERMINAL:
        return STDOUT, STDERR
    for fd in (STDIN_WRITE, STDOUT, STDERR):
        os.close(fd)
    return (console,)


def _receive(fd: int) -> tuple[Any, list[int]] | None:
    sock = socket.socket(fileno=fd)
    try:
        return channel.receive(sock)
    finally:
        sock.detach()
