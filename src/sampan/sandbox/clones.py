"""How a container's first process is cloned where a user namespace is made or joined.

Law: what is made belongs to the container's user namespace and counts against its own root, not the host's.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from sampan.linux import process as p
from sampan.sandbox import channel
from sampan.sandbox.hostmounts import acting_as


@contextmanager
def owning_users(owner: int | None) -> Iterator[None]:
    """Make a user namespace as its own root on the host, ``owner``; None: none is made.

    The kernel counts what a user namespace uses (inotify instances, keys, …) also against the user who made
    it: made by root, all containers would share one quota.
    """
    if owner is None:
        yield
        return
    with acting_as(owner, None, saved=True):
        # Files are opened as root still: the child joins its cgroup before it has ids of its own.
        p.set_fsuid(0)
        yield


def clone_within(
    flags: int,
    namespaces: dict[int, int],
    run_child: Callable[[], NoReturn],
    cgroup_fd: int | None,
    *,
    sibling: bool,
) -> tuple[int, int, tuple[int, ...]]:
    """Clone from inside another container's user namespace: (pid, pidfd, what is left to reap).

    What is made there belongs to that namespace, but who has entered it cannot come back: so a process goes
    in between, and ends when it has cloned. Nobody in there may look into it.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        between, between_fd = p.clone3(sibling=sibling)
        if between == 0:
            try:
                ours.close()
                p.set_dumpable(dumpable=False)
                if p.CLONE_NEWPID in namespaces:
                    p.setns(namespaces[p.CLONE_NEWPID], p.CLONE_NEWPID)
                p.setns(namespaces[p.CLONE_NEWUSER], p.CLONE_NEWUSER)
                pid, pidfd = p.clone3(flags, cgroup_fd=cgroup_fd, sibling=True)
                if pid == 0:
                    theirs.close()
                    run_child()
                channel.send(theirs, {"pid": pid}, (pidfd,))
            except OSError as error:
                channel.send(theirs, {"errno": error.errno})
            finally:
                os._exit(0)
        theirs.close()
        try:
            message = channel.receive(ours)
            await_death(between_fd)
        finally:
            os.close(between_fd)
    document, fds = message if message is not None else ({"errno": errno.ESRCH}, [])
    if not fds:
        raise OSError(document["errno"], os.strerror(document["errno"]))
    return document["pid"], fds[0], (between,) if sibling else ()


def await_death(pidfd: int) -> None:
    """Wait for the end of a child or sibling, and reap it if it is a child."""
    dead = select.poll()
    dead.register(pidfd, select.POLLIN)
    dead.poll()
    with suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
