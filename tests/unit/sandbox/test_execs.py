"""The keeper does not wait for an exec that cannot get on."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, cast

import pytest

from sampan.sandbox import channel, execs
from sampan.sandbox.joining import Joiner
from sampan.sandbox.launch import LaunchError

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup
    from sampan.sandbox.program import Program


class Group:
    def __init__(self, *, frozen: bool) -> None:
        self._frozen = frozen

    def frozen(self) -> bool:
        return self._frozen


@pytest.mark.parametrize(("frozen", "said"), [(True, "is paused"), (False, "no answer")])
def test_a_child_that_says_nothing(frozen: bool, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs, "_PATIENCE", 0.0)
    monkeypatch.setattr(execs, "_GLANCE_MS", 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, pytest.raises(LaunchError, match=said):
        execs._hear(ours, cast("Cgroup", Group(frozen=frozen)))


def test_a_child_that_cannot_join_the_cgroup_says_so_and_ends() -> None:
    class Unwritable:
        def join(self, *, cloned: bool) -> None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), "tasks")

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            joiner = Joiner(theirs, cast("Program", None), (), None)
            joiner.run(-1, 0, cast("Cgroup", Unwritable()), cloned=True)
        finally:
            os._exit(0)  # where it would be if the failure had come back to the caller
    theirs.close()
    with ours:
        message = channel.receive(ours)
    assert message == ({"failed": "tasks: Permission denied", "code": 126}, [])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 126
