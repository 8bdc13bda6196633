"""What the keeper makes of what its launcher says about the new process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

import pytest

from sampan.sandbox import channel, standby
from sampan.sandbox.messages import LOGGED, STDIN

PACKETS = (b"{}", b"1.5")


def heard(*packets: bytes) -> tuple[bytes, int, int, float] | None:
    launcher, keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with launcher, keeper:
        for packet in packets:
            channel.send_bytes(launcher, packet)
        launcher.shutdown(socket.SHUT_WR)
        return standby.read_rest(keeper.fileno(), LOGGED)


def test_a_process_that_is_over_already_has_no_mounts_and_is_started_all_the_same() -> None:
    assert heard(*PACKETS) == (b"{}", -1, -1, 1.5)


@pytest.mark.parametrize("said", [(), PACKETS[:1]])
def test_what_a_launcher_has_not_told_to_its_end_is_no_start(said: tuple[bytes, ...]) -> None:
    assert heard(*said) is None


def test_a_program_that_a_dying_launcher_told_nobody_of_is_killed() -> None:
    def launch(program: int) -> NoReturn:
        for packet in (bytes((STDIN | LOGGED,)), str(program).encode(), b"{}"):
            os.write(standby.THEIRS, packet)
        os._exit(1)

    assert kept(launch) == -signal.SIGKILL


def test_a_launcher_that_ends_without_a_word_leaves_nothing_to_keep() -> None:
    def launch(program: int) -> NoReturn:
        os.kill(program, signal.SIGTERM)
        os._exit(1)

    assert kept(launch) == -signal.SIGTERM


def kept(launch: Callable[[int], NoReturn]) -> int:
    """How a program ended whose keeper had ``launch`` for a launcher; both are children of a child."""
    keeper = os.fork()
    if keeper == 0:
        try:
            os.closerange(standby.ORDERS, 1 << 10)
            for fd in range(standby.ORDERS, standby.THEIRS):
                assert os.open("/dev/null", os.O_RDONLY) == fd
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            os.dup2(ours.detach(), standby.OURS)
            os.dup2(theirs.detach(), standby.THEIRS)
            program = os.fork()
            if program == 0:
                os.closerange(standby.ORDERS, 1 << 10)  # as on exec: who holds them keeps the keeper waiting
                signal.pause()

            def fork() -> int:
                pid = os.fork()
                if pid == 0:
                    os.close(standby.OURS)
                    launch(program)
                return pid

            standby.stand_by(None, fork, standby.Sleep())  # type: ignore[arg-type]
            code = -os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        except BaseException:
            code = 99
        os._exit(code)
    return -os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
