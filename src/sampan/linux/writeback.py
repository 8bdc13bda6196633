"""Having the kernel write a file's bytes to the disk before anybody waits for it: sync_file_range(2)."""

from __future__ import annotations

import ctypes

from sampan.linux.libc import libc

_WRITE = 2  # SYNC_FILE_RANGE_WRITE


def begin(fd: int, offset: int, size: int) -> None:
    """Begin to write ``size`` bytes from ``offset``. A hint: a file system that cannot does nothing."""
    libc.sync_file_range(fd, ctypes.c_long(offset), ctypes.c_long(size), _WRITE)
