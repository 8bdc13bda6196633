"""The seed: a process that does nothing but fork keepers, so that they share nearly all of its pages.

A page that a process writes to is its own from then on, and so is the old content for whoever was forked
before. The zygote writes to many between one keeper and the next; the seed, which it forks once and orders
keepers from, to as few as Python lets it. A keeper is the zygote's child, not the seed's (CLONE_PARENT).

Laws:
- An order is one packet with all the descriptors that a keeper and its launcher begin with. The kernel gives
  each the lowest free number, so the numbers are constants, and what came is compared, not taken apart.
- The answer is the keeper's pid; or a negative errno, and there is no keeper.
- The seed ends when the zygote has closed its end, or is gone.
"""

from __future__ import annotations

import _socket
import ctypes
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from sampan.linux.process import bare_fork, set_title, title_writer
from sampan.sandbox import lastwords
from sampan.sandbox.standby import JOB, ORDERS, STDERR, Sleep, stand_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.sandbox.cgroups import Hierarchy

_EXPECTED = struct.pack(f"{STDERR + 1 - JOB}i", *range(JOB, STDERR + 1))
_WARM = 32  # more runs than the interpreter takes to settle how it runs a function


def order(seed: socket.socket) -> tuple[int, socket.socket]:
    """Have a keeper forked: its pid, and the socket on which its launcher waits for a job. Raises OSError."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
    (job, theirs), (keeper, launcher), (control, daemons) = pairs
    launchers = (theirs.fileno(), launcher.fileno(), daemons.fileno(), pipes[0][0], pipes[1][1], pipes[2][1])
    keepers = (keeper.fileno(), control.fileno(), pipes[0][1], pipes[1][0], pipes[2][0])
    try:
        socket.send_fds(seed, [b"."], [*launchers, listener.fileno(), *keepers])
        pid = int(seed.recv(16) or b"0")
    except BaseException:
        job.close()
        raise
    finally:
        for sock in (theirs, keeper, launcher, control, daemons, listener):
            sock.close()
        for fd in (fd for pipe in pipes for fd in pipe):
            os.close(fd)
    if pid <= 0:
        job.close()
        raise OSError(-pid, os.strerror(-pid)) if pid else BrokenPipeError
    return pid, job


def grow(orders: int, hierarchy: Hierarchy) -> NoReturn:
    """Be the seed: serve ``orders``, the only descriptor that is kept, until its other end is closed."""
    try:
        if orders != ORDERS:
            os.dup2(orders, ORDERS, inheritable=False)
        os.closerange(ORDERS + 1, 1 << 20)
        with open("/proc/self/cmdline") as file:
            zygotes = file.read().rstrip("\0")
        set_title("sampan-seed " + zygotes.partition(" ")[2])
        with suppress(ConnectionError):  # the zygote was killed before it could read the last answer
            _serve(_socket.socket(fileno=ORDERS), hierarchy, title_writer(zygotes))
    except BaseException:
        lastwords.say("seed")
    finally:
        os._exit(0)
    raise AssertionError("unreachable")


def _serve(orders: _socket.socket, hierarchy: Hierarchy, entitle_keeper: Callable[[], object]) -> None:
    fork_keeper, fork_launcher = bare_fork(sibling=True), bare_fork()
    sleep = Sleep()
    receive, send, close = orders.recvmsg, orders.send, os.closerange
    room, flags = _socket.CMSG_SPACE(len(_EXPECTED)), _socket.MSG_CMSG_CLOEXEC
    expected, first, after = _EXPECTED, JOB, STDERR + 1
    _warm_up()
    while True:
        said, sent, _, _ = receive(1, room, flags)
        if not said or sent[0][2] != expected:
            return
        pid = fork_keeper()
        if pid == 0:
            entitle_keeper()
            try:
                stand_by(hierarchy, fork_launcher, sleep)
            except OSError:  # whoever it listened to was killed
                os._exit(0)
            except BaseException:
                lastwords.say("keeper")
                os._exit(1)
            os._exit(0)
        close(first, after)
        send(b"%d" % (pid if pid > 0 else -ctypes.get_errno()))


def _warm_up() -> None:
    """Do what a keeper will, so that nothing of it is done for the first time there."""
    one, other = os.pipe()
    for _ in range(_WARM):
        os.write(other, b"1")
        int(os.read(one, 32))
        os.close(os.pidfd_open(os.getpid()))
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
    os.close(one)
    os.close(other)
