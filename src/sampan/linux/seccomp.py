"""Seccomp filters: a compiled program is handed to the kernel as the bytes it consists of.

Law: a filter is accepted from a thread that has ``CAP_SYS_ADMIN`` in its user namespace or runs with
no_new_privs; a sandbox that keeps set-uid programs working installs it before it drops capabilities.

Sources: seccomp(2), prctl(2), include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct

from sampan.linux import libc
from sampan.linux.libc import check

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
INSTRUCTION_SIZE = 8

_SYS_SECCOMP = 317 if os.uname().machine == "x86_64" else 277


def set_no_new_privs() -> None:
    """From now on no execve of this thread or its children gains privileges. Cannot be undone; idempotent."""
    check(libc.libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def install(program: bytes, flags: int = SECCOMP_FILTER_FLAG_SPEC_ALLOW) -> None:
    """Filter the system calls of this thread and of what it forks or executes, for good.

    ``program`` is an array of ``struct sock_filter`` (8 bytes each, native order). The default flag keeps the
    kernel from slowing the whole program down by a speculation barrier, as Docker's runtimes do. Raises
    ``OSError``: EACCES without the privilege, EINVAL for a program that the kernel refuses.
    """
    install_ready(program, flags)()


def install_ready(program: bytes, flags: int = SECCOMP_FILTER_FLAG_SPEC_ALLOW) -> libc.Call:
    """``install``, made ready; a program that is none raises here."""
    count, rest = divmod(len(program), INSTRUCTION_SIZE)
    if rest or not count:
        raise OSError(errno.EINVAL, "not a sequence of whole BPF instructions", "seccomp")
    instructions = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("HP", count, ctypes.addressof(instructions))  # struct sock_fprog
    sock_fprog = ctypes.c_char_p(description)
    call = libc.ready(
        "seccomp", libc.syscall_function, _SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, sock_fprog
    )
    return functools.partial(_holding, call, instructions)


def _holding(call: libc.Call, _instructions: object) -> None:
    call()
