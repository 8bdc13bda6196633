"""What a launcher says of a start that it cannot make."""

from __future__ import annotations

import os
import socket

import pytest

from sampan.sandbox import channel
from sampan.sandbox.launcher import Launcher
from sampan.sandbox.messages import Keeping, Launch, LogFile, RootFilesystem, encode
from sampan.spec.runtime import default_spec


class Ahead:
    """Stands for the first process of another container, made ahead of need."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def put_down(self) -> None:
        self._told.append("put down")

    def clear(self) -> None:
        self._told.append("cleared")


@pytest.mark.parametrize("bereft", [True, False])
def test_what_fails_for_want_of_a_keeper_is_nothing_to_be_told(bereft: bool) -> None:
    """Told nothing, the daemon tries again; what is told is the container's failure, and the last word."""
    keeper, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launch = Launch(
        id="box",
        bundle="/proc/no/such",
        state="",
        spec=default_spec(),
        root=RootFilesystem(base="", lowers=("",), upper="", work=""),
        log=LogFile(path=""),
    )
    launch.spec["linux"]["cgroupsPath"] = "/box"
    document = channel.as_memfd(encode(launch))
    if bereft:
        keeper.send(b"what it was told last, and had no time to read")
        theirs.close()
    launcher = Launcher(
        None,  # type: ignore[arg-type]
        job=-1,
        keeper=keeper.detach(),
        control=-1,
        listener=-1,
        stdio=(-1, -1, -1),
    )
    ahead: list[str] = []
    if bereft:
        launcher._expected = Ahead(ahead)  # type: ignore[assignment]
    with daemon, theirs:
        launcher._serve(Keeping.of(launch).encode(), [document, asking.detach()])
        os.close(document)
        told = channel.receive(daemon)
    if bereft:
        assert told is None
        assert ahead == ["put down", "cleared"]
    else:
        assert told is not None
        assert told[0]["message"] == "/proc/no: No such file or directory"
