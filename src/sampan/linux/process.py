"""Processes and namespaces: clone3(2), setns(2), unshare(2), prctl(2), signalfd(2), openat2(2), keyctl(2)."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable

from sampan.linux import libc
from sampan.linux.libc import check, syscall, syscall_holding_lock

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME = 0x10000000, 0x20000000, 0x40000000, 0x80
CLONE_PIDFD, CLONE_INTO_CGROUP, _CLONE_PARENT = 0x1000, 0x200000000, 0x8000
SIGCHLD = 17

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_PR_SET_KEEPCAPS, _PR_SET_CHILD_SUBREAPER = 8, 36
_SFD_NONBLOCK, _SFD_CLOEXEC = 0o4000, 0o2000000
_KEYCTL_JOIN_SESSION_KEYRING = 1


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


def clone3(flags: int = 0, *, cgroup_fd: int | None = None, sibling: bool = False) -> tuple[int, int]:
    """Fork into new namespaces: (pid, pidfd) in the parent, (0, -1) in the child.

    A ``sibling`` is a child of the caller's own parent.

    Skips Python's and the C library's fork handlers: sound only in a process with one thread.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=flags
        | CLONE_PIDFD
        | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0)
        | (_CLONE_PARENT if sibling else 0),
        pidfd=ctypes.addressof(pidfd),
        exit_signal=0 if sibling else SIGCHLD,
        cgroup=cgroup_fd or 0,
    )
    pid = syscall_holding_lock("clone3", libc.SYS_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    return pid, (pidfd.value if pid else -1)


def bare_fork(*, sibling: bool = False) -> Callable[[], int]:
    """A fork made ready: calling it gives 0 in the child, the pid in the parent, or -1 and ctypes' errno.

    As ``clone3``, and all that a call would make anew is made here: what is written to is shared no longer.
    """
    arguments = _CloneArgs(flags=_CLONE_PARENT if sibling else 0, exit_signal=0 if sibling else SIGCHLD)
    size = ctypes.c_long(ctypes.sizeof(arguments))
    return functools.partial(libc.syscall_bare, ctypes.c_long(libc.SYS_CLONE3), ctypes.byref(arguments), size)


def setns(fd: int, kinds: int) -> None:
    """Join namespaces: ``fd`` of one namespace, or a pidfd with the kinds wanted of its process."""
    check(libc.libc.setns(fd, kinds), "setns")


def unshare(kinds: int) -> None:
    check(libc.libc.unshare(kinds), "unshare")


def _prctl(what: str, option: int, value: int | bytes) -> None:
    argument = ctypes.c_ulong(value) if isinstance(value, int) else value
    zero = ctypes.c_ulong(0)
    check(libc.libc.prctl(option, argument, zero, zero, zero), what)


def set_child_subreaper(*, on: bool = True) -> None:
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, int(on))


def set_dumpable(*, dumpable: bool) -> None:
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, int(dumpable))


def set_parent_death_signal(number: int) -> None:
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, number)


def set_name(name: str) -> None:
    """Name the calling thread (15 bytes), as ps shows it."""
    _prctl("PR_SET_NAME", _PR_SET_NAME, name.encode()[:15])


def set_title(title: str) -> None:
    """Write over the calling process's own arguments, which ``ps`` and /proc/PID/cmdline show; cut to fit."""
    title_writer(title)()


def title_writer(title: str) -> Callable[[], object]:
    """``set_title`` made ready, for a process to come; see ``bare_fork``."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5), counted after the name
    written = os.fsencode(title)[: end - start - 1].ljust(end - start, b"\0")
    return functools.partial(ctypes.memmove, start, written, end - start)


def personality(domain: int) -> None:
    """Set the execution domain of the calling process and of what it executes (personality(2))."""
    check(libc.libc.personality(ctypes.c_ulong(domain)), "personality")


def set_keep_capabilities(*, keep: bool) -> None:
    _prctl("PR_SET_KEEPCAPS", _PR_SET_KEEPCAPS, int(keep))


def set_fsuid(uid: int) -> None:
    """Access files as ``uid`` from now on; each change of the effective id changes it back to that."""
    libc.libc.setfsuid(uid)


def set_domain_name(name: str) -> None:
    encoded = name.encode()
    check(libc.libc.setdomainname(encoded, len(encoded)), "setdomainname")


def signalfd(signals: frozenset[int]) -> int:
    """A non-blocking descriptor that reads the given (blocked) signals, 128 bytes each."""
    mask = ctypes.c_uint64(sum(1 << (number - 1) for number in signals))
    # The kernel's signal set is 8 bytes; the C library's is longer, and only its first word is looked at.
    padded = (ctypes.c_uint64 * 16)(mask.value)
    return check(libc.libc.signalfd(-1, ctypes.byref(padded), _SFD_NONBLOCK | _SFD_CLOEXEC), "signalfd")


def join_new_session_keyring() -> None:
    """Leave the caller's session keyring behind for an empty one."""
    syscall("keyctl", libc.SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x1, 0x2, 0x4
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x8, 0x10
_MOST_MOVES = 100


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open ``path`` under ``dir_fd`` with the kernel's own confinement (openat2(2)).

    The kernel refuses a ``..`` in it, or in a link, for the moment if anything on the machine is renamed or
    mounted meanwhile. It is tried again, not for ever: a container may move things as long as it likes.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    arguments = (dir_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    for _ in range(_MOST_MOVES):
        try:
            return syscall(f"open {path}", libc.SYS_OPENAT2, *arguments)
        except BlockingIOError:
            continue
    return syscall(f"open {path}", libc.SYS_OPENAT2, *arguments)
