"""Mounting by fuse-overlayfs, a program of the host, which then serves the mount as long as it is used."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from sampan.linux import mount as m
from sampan.linux import process as p

_NAME = "fuse-overlayfs"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PLACE = "/sys"
_ENVIRONMENT = {"PATH": _PATH}


def program() -> str | None:
    """Where the program is; None on a host without it."""
    paths = (f"{directory}/{_NAME}" for directory in _PATH.split(":"))
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def mount(base: str, lowers: Sequence[str], upper: str, work: str) -> int:
    """A detached mount of the directories, which are relative to ``base``. OSError.

    Done by a child, whose mount namespace is the program's own: whoever changes the root of his namespace
    would change that of the program with it, which would then wait for itself.
    """
    path = program()
    if path is None:
        raise FileNotFoundError(errno.ENOENT, f"{_NAME} is not installed", _NAME)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        code = 1
        try:
            ours.close()
            socket.send_fds(theirs, [b"."], [_mounted(path, base, lowers, upper, work)])
            code = 0
        finally:
            os._exit(code)
    theirs.close()
    try:
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    finally:
        os.waitpid(child, 0)
        ours.close()
    if not fds:
        raise OSError(errno.EIO, f"{_NAME} failed", f"{base}/{upper}")
    os.set_inheritable(fds[0], False)
    return fds[0]


def _mounted(path: str, base: str, lowers: Sequence[str], upper: str, work: str) -> int:
    p.unshare(p.CLONE_NEWNS)
    m.mount("", "/", "", m.MS_REC | m.MS_PRIVATE)
    os.chdir(base)
    options = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    with open(os.devnull, "r+b") as nothing:
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, nothing.fileno(), number) for number in range(3)
        ]
        # It outlives the caller: whatever else it had open would seem in use as long as the mount is.
        actions += [(os.POSIX_SPAWN_CLOSE, number) for number in _others()]
        # The program goes into the background once the mount is there.
        child = os.posix_spawn(
            path, [_NAME, "-o", options, _PLACE], _ENVIRONMENT, file_actions=actions, setsid=True
        )
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(errno.EIO, f"{_NAME} failed", f"{base}/{upper}")
    fd = m.open_tree(_PLACE)
    # The program lives in this namespace, whose mount would keep the program.
    m.unmount(_PLACE, m.MNT_DETACH)
    return fd


def _others() -> list[int]:
    """The descriptors from 3 on that a program would be given."""
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    return [number for number in numbers if number > 2 and _is_passed_on(number)]


def _is_passed_on(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False  # that of the listing itself


def tried(place: str) -> str:
    """Why nothing can be mounted of ``lower``, ``upper`` and ``work`` below ``place``; empty if it can."""
    try:
        fd = mount(place, ("lower",), "upper", "work")
        try:
            os.mkdir("tried", dir_fd=fd)
        finally:
            os.close(fd)
    except OSError:
        return f"{_NAME} cannot mount here"
    return ""
