"""The keeper does not wait for an exec that cannot get on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

import pytest

from sampan.sandbox import execs
from sampan.sandbox.launch import LaunchError

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
        execs._hear(ours, cast("Cgroup", Group(frozen=frozen)))
