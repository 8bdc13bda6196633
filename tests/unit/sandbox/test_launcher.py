"""What the keeper makes of what its launcher says about the new process."""

from __future__ import annotations

import os
import signal

from sampan.sandbox.launcher import _await_start


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


def heard(text: str) -> tuple[int, int, int, int, float] | None:
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    try:
        return _await_start(read, None)
    finally:
        os.close(read)


def test_a_process_that_is_over_already_has_no_mounts_and_is_started_all_the_same() -> None:
    pid = forked(lives=False)
    running = heard(f"{pid}\n1.5\n")
    assert running is not None
    found, pidfd, mounts, console, at = running
    assert (found, mounts, console, at) == (pid, -1, -1, 1.5)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)


def test_a_program_that_a_dying_launcher_told_nobody_of_is_killed() -> None:
    pid = forked(lives=True)
    assert heard(f"{pid}\n") is None
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
