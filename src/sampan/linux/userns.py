"""A user namespace without anybody in it: for trying what a mount can be mapped to."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from sampan.linux.process import CLONE_NEWUSER, clone3


def new_user_namespace(first: int, count: int) -> int:
    """A descriptor of a new user namespace with ids 0 to ``count`` - 1, ``first`` and on outside."""
    pid, pidfd = clone3(CLONE_NEWUSER)
    if pid == 0:
        _wait_to_be_killed()
    try:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(f"0 {first} {count}\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def _wait_to_be_killed() -> NoReturn:
    # The caller may have had other threads: nothing is touched that one of them may have held.
    while True:
        signal.pause()
