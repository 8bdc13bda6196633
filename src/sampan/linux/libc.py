"""The C library through ctypes, and the one error path of every system call.

System call numbers of calls older than Linux 5.0 differ by architecture; newer ones are the same everywhere.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter lock during the call: nothing else may run between the two returns of clone3.
_libc_holding = ctypes.PyDLL(None, use_errno=True)

_X86_64 = os.uname().machine == "x86_64"

SYS_PIVOT_ROOT = 155 if _X86_64 else 41
SYS_KEYCTL = 250 if _X86_64 else 219
SYS_RENAMEAT2 = 316 if _X86_64 else 276
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_CLONE3 = 435
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

_RENAME_NOREPLACE = 1

libc = _libc

_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
syscall_function = _syscall
_syscall_holding = _libc_holding.syscall
_syscall_holding.restype = ctypes.c_long

# As it is, holding the interpreter lock, for who prepares all arguments and looks at errno.
syscall_bare = _syscall_holding


def check(result: int, what: str) -> int:
    """Return ``result``, or raise the OSError of the failed call with ``what`` as its file name."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


Call = Callable[[], object]
"""A call made ready: what it takes has been made, so that making it writes to few pages."""


def ready(what: str, function: Callable[..., int], *arguments: object) -> Call:
    """The call of a function of the C library, arguments as ``syscall`` takes them; it raises OSError."""
    made = functools.partial(function, *map(_word, arguments))
    return functools.partial(_checked, made, what)


def _checked(made: Callable[[], int], what: str) -> int:
    return check(made(), what)


def syscall(what: str, number: int, *arguments: object) -> int:
    """Make a system call; pointers as ctypes objects, integers as ``ctypes.c_long`` or int."""
    return check(int(_syscall(ctypes.c_long(number), *map(_word, arguments))), what)


def syscall_holding_lock(what: str, number: int, *arguments: object) -> int:
    """As ``syscall``, without letting go of the interpreter lock."""
    return check(int(_syscall_holding(ctypes.c_long(number), *map(_word, arguments))), what)


def rename_new(from_fd: int, name: bytes, to_fd: int, new_name: bytes) -> None:
    """Rename; OSError EEXIST where the new name is taken, whatever by."""
    syscall("renameat2", SYS_RENAMEAT2, from_fd, name, to_fd, new_name, _RENAME_NOREPLACE)


def _word(argument: object) -> object:
    # A bare int would be passed as a C int and leave the upper half of the register undefined.
    return ctypes.c_long(argument) if isinstance(argument, int) else argument
