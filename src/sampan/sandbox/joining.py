"""Getting into a running container, for a further process in it.

Law: who enters is not dumpable before: nothing inside may look into it or reach the interpreter through it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import NoReturn

from sampan.linux import process as p
from sampan.sandbox import channel
from sampan.sandbox.entering import become_root, failure_of, keep_only, make_controlling_terminal
from sampan.sandbox.program import Program, become, bequeath, ready
from sampan.sandbox.steps import open_terminal

JOINED = {
    "user": p.CLONE_NEWUSER,
    "mount": p.CLONE_NEWNS,
    "ipc": p.CLONE_NEWIPC,
    "uts": p.CLONE_NEWUTS,
    "network": p.CLONE_NEWNET,
    "cgroup": p.CLONE_NEWCGROUP,
}
SETUP_FAILED = 126


def enter(init: int, flags: int) -> None:
    """Join the namespaces ``flags`` of pidfd ``init``, as their root."""
    if flags and _join(init, flags) & p.CLONE_NEWUSER:
        become_root()
        p.set_dumpable(dumpable=False)  # a change of identity makes a process dumpable again


class Joiner:
    """A child cloned into the container's pid namespace, which joins the others itself: from its first
    instruction to the program.

    ``parent`` is told of a failure and sent the terminal, if the program has one; ``stdio`` counts if not.
    ``gated``: it waits for a byte of the parent's before it becomes the program. Made by the parent: what can
    be worked out before is.
    """

    def __init__(
        self,
        parent: socket.socket,
        program: Program,
        stdio: Sequence[int],
        console_size: tuple[int, int] | None,
        *,
        gated: bool = False,
    ) -> None:
        self._parent = parent
        self._made = ready(program)
        self._stdio = stdio
        self._console_size = console_size
        self._gated = gated

    def run(self, init: int, flags: int, entrances: Sequence[int]) -> NoReturn:
        """Join the rest of the cgroup by ``entrances`` and the namespaces ``flags`` of pidfd ``init``, and
        become the program; or report what fails."""
        try:
            p.set_dumpable(dumpable=False)
            for fd in entrances:
                os.write(fd, b"0")
            bequeath(self._made.program.process)
            enter(init, flags)
            self._take_stdio()
            if not self._gated or self._parent.recv(1):
                become(self._made)
        except BaseException as error:  # the child must never return into its parent's code
            channel.send(self._parent, failure_of(error, setup_failed=SETUP_FAILED, what="set up the exec"))
        finally:
            os._exit(SETUP_FAILED)
        raise AssertionError("unreachable")

    def _take_stdio(self) -> None:
        os.setsid()
        stdio = self._stdio
        if self._made.program.process.get("terminal"):
            master, slave = open_terminal(self._console_size)
            channel.send(self._parent, {"console": True}, (master,))
            stdio = (slave,) * 3
            make_controlling_terminal(slave)
        self._parent = keep_only(stdio, self._parent)


def _join(init: int, flags: int) -> int:
    """Join namespaces of pidfd ``init``; those that were joined.

    Not the user namespace of a container that had to be started with the host's ids, for it is ours.
    """
    try:
        p.setns(init, flags)
    except OSError as error:
        if error.errno != errno.EINVAL or not flags & p.CLONE_NEWUSER:
            raise
        flags &= ~p.CLONE_NEWUSER
        if flags:
            p.setns(init, flags)
    return flags
