"""Disk blocks that belong to a file before it is written: fallocate(2)."""

from __future__ import annotations

import ctypes
import os

from sampan.linux.libc import libc

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE


def ahead(fd: int, size: int) -> None:
    """Have blocks allocated up to byte ``size``; the file's length stays. Idempotent.

    OSError: ENOSPC when there are not as many, EOPNOTSUPP on a file system that cannot.
    """
    if libc.fallocate(fd, _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
