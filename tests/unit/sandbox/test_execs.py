"""Nobody waits for an exec that cannot get on, and none begins unseen."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from sampan.sandbox import channel, execs
from sampan.sandbox.joining import Joiner
from sampan.sandbox.launch import LaunchError
from sampan.sandbox.program import Program
from sampan.spec.runtime import default_spec

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup


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
        execs.hear(ours, cast("Cgroup", Group(frozen=frozen)))


def test_a_child_that_cannot_join_the_cgroup_says_so_and_ends(tmp_path: Path) -> None:
    unwritable = os.open(tmp_path, os.O_RDONLY)
    assert child(entrances=(unwritable,)) == (
        {"failed": "set up the exec: Bad file descriptor", "code": 126},
        126,
    )


def test_a_child_whose_parent_is_gone_does_not_become_the_program(tmp_path: Path) -> None:
    """The parent closes its end in place of opening the gate."""
    assert child(program=("/bin/touch", str(tmp_path / "ran"))) == (None, 126)
    assert not (tmp_path / "ran").exists()


def child(*, program: tuple[str, ...] = ("true",), entrances: tuple[int, ...] = ()) -> tuple[object, int]:
    """What a gated child that joins nothing says, and its exit code; its parent never opens the gate."""
    process = default_spec()["process"]
    process["args"] = list(program)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            joiner = Joiner(theirs, Program(process=process), (0, 1, 2), None, gated=True)
            joiner.run(-1, 0, entrances)
        finally:
            os._exit(0)  # where it would be if the failure had come back to the caller
    theirs.close()
    with ours:
        if not entrances:
            ours.shutdown(socket.SHUT_WR)
        message = channel.receive(ours)
    return message and message[0], os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
