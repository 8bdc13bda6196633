"""Landlock: a process gives up rights over files for itself, for good, without any privilege.

Laws:
- Only what is opened, made, renamed or removed afterwards counts: a descriptor keeps what it was opened for.
- Owners, modes, times and attributes of files are not Landlock's concern. Reading stays free here.
- A process under it may not change mounts any more.
- ABI 1 (before Linux 5.19) refuses every link and rename between directories, so it is not used.

Sources: landlock(7), include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from typing import TYPE_CHECKING

from sampan.linux.libc import syscall

if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1
# LANDLOCK_ACCESS_FS_EXECUTE and IOCTL_DEV (ABI 5) are allowed nowhere.
_EXECUTE, _IOCTL_DEV = 1 << 0, 1 << 15
# WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, _DIR, _REG, _SOCK, _FIFO, _BLOCK, _SYM, and REFER (ABI 2)
_CHANGING = 1 << 1 | 0x3FF0
_TRUNCATE = 1 << 14  # ABI 3
_TCP = 1 << 0 | 1 << 1  # LANDLOCK_ACCESS_NET_BIND_TCP, _CONNECT_TCP (ABI 4)
_SCOPES = 1 << 0 | 1 << 1  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, _SIGNAL (ABI 6)
_LEAST, _SIZES = 2, ((6, 24), (4, 16), (0, 8))


@functools.cache
def abi() -> int:
    """The version of Landlock that the kernel speaks; 0 where it has none, or was told not to use it."""
    try:
        return syscall("landlock", _CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def usable() -> bool:
    """Whether ``change_only`` does anything on this kernel."""
    return abi() >= _LEAST


def change_only(directories: Iterable[int]) -> None:
    """Change files below these directories (descriptors) and nowhere else; run none, reach nobody by TCP.

    Signals and abstract sockets reach no process that is not under the same restrictions, where the kernel
    knows that. Needs no_new_privs or CAP_SYS_ADMIN. Does nothing on a kernel that cannot.
    """
    version = abi()
    if version < _LEAST:
        return
    changing = _CHANGING | (_TRUNCATE if version >= 3 else 0)
    handled = changing | _EXECUTE | (_IOCTL_DEV if version >= 5 else 0)
    size = next(size for least, size in _SIZES if version >= least)
    attributes = struct.pack("=QQQ", handled, _TCP, _SCOPES)[:size]
    ruleset = syscall("landlock", _CREATE_RULESET, ctypes.c_char_p(attributes), size, 0)
    try:
        for fd in directories:
            rule = struct.pack("=Qi", changing, fd)
            syscall("landlock", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.c_char_p(rule), 0)
        syscall("landlock", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
