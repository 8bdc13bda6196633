"""The child that becomes a further process in a running container.

It is cloned straight into the container's pid namespace and joins the others itself. It is not dumpable
before it enters: nothing inside may look into it or reach the interpreter through it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from sampan.linux import process as p
from sampan.sandbox import channel
from sampan.sandbox.launch import become_root, failure_of, keep_only, make_controlling_terminal
from sampan.sandbox.program import Program, bequeath, run
from sampan.sandbox.steps import open_terminal

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup

JOINED = {
    "user": p.CLONE_NEWUSER,
    "mount": p.CLONE_NEWNS,
    "ipc": p.CLONE_NEWIPC,
    "uts": p.CLONE_NEWUTS,
    "network": p.CLONE_NEWNET,
    "cgroup": p.CLONE_NEWCGROUP,
}
SETUP_FAILED = 126


class Joiner:
    """The cloned child, from its first instruction to the program.

    ``parent`` is told of a failure and sent the terminal, if the program has one; ``stdio`` counts if not.
    """

    def __init__(
        self,
        parent: socket.socket,
        program: Program,
        stdio: Sequence[int],
        console_size: tuple[int, int] | None,
    ) -> None:
        self._parent = parent
        self._program = program
        self._stdio = stdio
        self._console_size = console_size

    def run(self, init: int, flags: int, cgroup: Cgroup, *, cloned: bool) -> NoReturn:
        """Join the namespaces ``flags`` of pidfd ``init`` and become the program, or report what fails."""
        try:
            p.set_dumpable(dumpable=False)
            cgroup.join(cloned=cloned)
            bequeath(self._program.process)
            self._join(init, flags)
            run(self._program)
        except BaseException as error:  # the child must never return into its parent's code
            channel.send(self._parent, failure_of(error, setup_failed=SETUP_FAILED))
        finally:
            os._exit(SETUP_FAILED)
        raise AssertionError("unreachable")

    def _join(self, init: int, flags: int) -> None:
        if _enter(init, flags) & p.CLONE_NEWUSER:
            become_root()
            p.set_dumpable(dumpable=False)  # a change of identity makes a process dumpable again
        os.setsid()
        stdio = self._stdio
        if self._program.process.get("terminal"):
            master, slave = open_terminal(self._console_size)
            channel.send(self._parent, {"console": True}, (master,))
            stdio = (slave,) * 3
            make_controlling_terminal(slave)
        self._parent = keep_only(stdio, self._parent)


def _enter(init: int, flags: int) -> int:
    """Join namespaces of pidfd ``init``; those that were joined.

    Not the user namespace of a container that had to be started with the host's ids, for it is ours.
    """
    try:
        p.setns(init, flags)
    except OSError as error:
        if error.errno != errno.EINVAL or not flags & p.CLONE_NEWUSER:
            raise
        flags &= ~p.CLONE_NEWUSER
        p.setns(init, flags)
    return flags
