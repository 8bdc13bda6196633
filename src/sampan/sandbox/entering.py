"""What every child does on its way into a container, and how it tells that it could not."""

from __future__ import annotations

import fcntl
import os
import socket
import termios
from collections.abc import Sequence

from sampan.errors import Failure
from sampan.sandbox.program import ProgramError

# The request itself is wrong (a user that the image does not have): told in its own words.
REQUEST_FAILED = 125


def become_root() -> None:
    """Be root of the user namespace that was just entered."""
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def failure_of(error: BaseException, *, setup_failed: int, what: str = "") -> dict[str, object]:
    """A child's report of ``error`` to its parent; ``what`` stands for a system call's missing file name."""
    if isinstance(error, ProgramError):
        return {"failed": str(error), "code": error.code}
    if isinstance(error, Failure):
        return {"failed": str(error), "code": REQUEST_FAILED}
    if isinstance(error, OSError):
        where = f"{error.filename or what}: " if error.filename or what else ""
        return {"failed": f"{where}{error.strerror}", "code": setup_failed}
    return {"failed": f"{type(error).__name__}: {error}", "code": setup_failed}


def keep_only(stdio: Sequence[int], sock: socket.socket) -> socket.socket:
    """Make ``stdio`` the standard descriptors and close all others but ``sock``, which is returned anew."""
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    kept = sock.detach()
    if kept != 3:
        os.dup2(kept, 3, inheritable=False)
    os.closerange(4, 1 << 20)
    return socket.socket(fileno=3)


def make_controlling_terminal(fd: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
