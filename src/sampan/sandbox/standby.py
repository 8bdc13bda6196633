"""A keeper before anything has happened, and how it comes to be.

The zygote forks keepers ahead of need. Such a keeper makes everything that any container may want (pipes, a
control connection, a listening socket to be) and forks its launcher, which waits for a job. When one comes,
no fork stands between the request and the container.

A quiet container should cost next to nothing, and every page that the keeper writes to is its own from then
on. So what is here does no more than to read a few packets from the launcher and to sleep, on plain
descriptors, until there is output, an exit or a request; ``keeper.Keeper`` is made then.

The launcher's packets: what is to be kept (``messages.Keeping``, encoded), the clients' sockets if there are
any, the pid, the terminal if there is one, and the time of the start. The end instead of any of them means
that the container was not started; the daemon has been told why.
"""

from __future__ import annotations

import _socket
import os
import select
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sampan.linux.process import set_child_subreaper
from sampan.sandbox import channel
from sampan.sandbox.keeper import Keeper
from sampan.sandbox.launch import Started
from sampan.sandbox.launcher import Launcher
from sampan.sandbox.messages import CLIENTS, EXTERNAL, STDIN, TERMINAL, TIMED

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Hierarchy

_PACKET = 8 << 10


def _pair() -> tuple[int, int]:
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
    return one.detach(), other.detach()


def stand_by(job: int, hierarchy: Hierarchy) -> None:
    """Wait for a job on the socket ``job``, and keep its container until it has ended."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0).detach()
    ours, theirs = _pair()
    control, daemons = _pair()
    stdin_read, stdin = os.pipe2(os.O_CLOEXEC)
    stdout, stdout_write = os.pipe2(os.O_CLOEXEC)
    stderr, stderr_write = os.pipe2(os.O_CLOEXEC)
    stdio = (stdin_read, stdout_write, stderr_write)
    fork = os.fork()
    if fork == 0:
        for fd in (ours, control, stdin, stdout, stderr):
            os.close(fd)
        Launcher(hierarchy, job=job, keeper=theirs, control=daemons, listener=listener, stdio=stdio).run()
    for fd in (job, theirs, daemons, *stdio):
        os.close(fd)
    keeping = os.read(ours, _PACKET)
    flags = keeping[0] if keeping else 0
    if flags & EXTERNAL:
        # A runtime leaves the container's first process to whoever is next above it.
        set_child_subreaper()
        os.write(ours, b".")
    running = _await_start(ours, flags) if keeping else None
    if running is None:
        os.waitpid(fork, 0)
        return
    pid, pidfd, mounts, console, at, clients = running
    if flags & EXTERNAL:
        set_child_subreaper(on=False)
    if flags & TERMINAL:
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        outputs: tuple[int, ...] = (console,)
    else:
        outputs = (stdout, stderr)
        if not flags & STDIN:
            os.close(stdin)
    # Who has a clock to look at begins at once, and pays for it.
    sleeps = not clients and not flags & TIMED
    reaped = sleeps and _sleep((pidfd, control, listener, *outputs), ours, fork)
    keeper = Keeper(
        keeping,
        hierarchy,
        Started(pid=pid, pidfd=pidfd, mounts=mounts, console=console, at=at),
        control=control,
        listener=listener,
    )
    if reaped:
        os.close(ours)
    else:
        keeper.reap_at_end_of(ours, fork)
    keeper.run({0: stdin, 1: stdout, 2: stderr}, clients)


def _await_start(launcher: int, flags: int) -> tuple[int, int, int, int, float, list[tuple[int, Any]]] | None:
    """(pid, pidfd, mounts, terminal, time, clients) of a start; None when there was none."""
    clients: list[tuple[int, Any]] = []
    if flags & CLIENTS:
        if (message := _receive(launcher)) is None:
            return None
        options, fds = message
        clients = list(zip(fds, options, strict=True))
    said = os.read(launcher, 32)
    if not said:
        return None
    # The process, our child, exists once its pid is said. It may be over by now, and its mounts with it.
    try:
        pid = int(said)
    except ValueError:  # others were needed to start it, and are dead
        pid, *dead = map(int, said.split())
        for corpse in dead:
            os.waitpid(corpse, 0)
    pidfd = os.pidfd_open(pid)
    mounts = console = -1
    with suppress(FileNotFoundError):
        mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    if flags & TERMINAL and (message := _receive(launcher)) is not None:
        (console,) = message[1]
    at = os.read(launcher, 32)
    if not at:
        # A launcher that was killed may leave a program of which nobody knows.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return None
    return pid, pidfd, mounts, console, float(at), clients


def _receive(fd: int) -> tuple[Any, list[int]] | None:
    sock = socket.socket(fileno=fd)
    try:
        return channel.receive(sock)
    finally:
        sock.detach()


def _sleep(fds: tuple[int, ...], launcher: int, fork: int) -> bool:
    """Wait until anything happens; whether the launcher has ended meanwhile, and was reaped.

    Its end takes longer than a short program: it is not waited for before the program is looked at.
    """
    anything = select.poll()
    for fd in (*fds, launcher):
        anything.register(fd, select.POLLIN)
    if [fd for fd, _ in anything.poll()] != [launcher]:
        return False
    os.waitpid(fork, 0)
    anything.unregister(launcher)
    anything.poll()
    return True
