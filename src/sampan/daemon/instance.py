"""One daemon per data root: a lock that dies with its holder, and the pid file.

Law: the lock is the kernel's (flock), so no stale file ever keeps a daemon from starting; what the file says
only serves the message.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress

from sampan.errors import Conflict

DEFAULT_NAME = "sampan"


def name_of(data_root: str, *, default_root: str) -> str:
    """What this engine's cgroups and the like are named after: unique for each data root of a host."""
    if os.path.realpath(data_root) == default_root:
        return DEFAULT_NAME
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data_root))).hexdigest()
    return f"{DEFAULT_NAME}-{digest[:6]}"


def lock(directory: str, what: str) -> int:
    """Hold ``directory`` until the returned descriptor is closed. Raises Conflict naming the holder's pid."""
    path = f"{directory}/lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise Conflict(
            f"{what} {directory} is in use by the daemon with pid {holder}; stop it or choose another one"
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def write_pid_file(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(f"{os.getpid()}")


def remove_pid_file(path: str) -> None:
    """Remove it if it is still this process's."""
    with suppress(OSError), open(path) as file:
        if file.read().strip() == str(os.getpid()):
            os.unlink(path)
