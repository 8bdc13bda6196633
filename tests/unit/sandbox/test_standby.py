"""What the keeper makes of what its launcher says about the new process."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from sampan.sandbox.standby import _await_start


def forked(*, lives: bool) -> int:
    """The pid of a child that waits for a signal, or is over and not reaped."""
    pid = os.fork()
    if pid == 0:
        if lives:
            signal.pause()
        os._exit(0)
    if not lives:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def heard(*packets: str) -> tuple[int, int, int, int, float, list[tuple[int, Any]]] | None:
    launcher, keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with launcher, keeper:
        for packet in packets:
            launcher.send(packet.encode())
        launcher.shutdown(socket.SHUT_WR)
        return _await_start(keeper.fileno(), 0)


def test_a_process_that_is_over_already_has_no_mounts_and_is_started_all_the_same() -> None:
    pid = forked(lives=False)
    running = heard(f"{pid}", "1.5")
    assert running is not None
    found, pidfd, mounts, console, at, _ = running
    assert (found, mounts, console, at) == (pid, -1, -1, 1.5)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)


def test_a_program_that_a_dying_launcher_told_nobody_of_is_killed() -> None:
    pid = forked(lives=True)
    assert heard(f"{pid}") is None
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
