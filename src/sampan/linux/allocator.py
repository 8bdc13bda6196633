"""The C library's allocator: how much of what was freed it keeps (mallopt(3), malloc_trim(3)).

Both are glibc's. Another C library has other ways, and is left alone.
"""

from __future__ import annotations

import os

from sampan.linux.libc import libc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 128 << 10


def keep_little() -> None:
    """Use one heap for all threads, and map what is large for itself, whatever was freed before.

    By itself glibc gives each thread a heap, and takes blocks from it that are as large as those that it once
    saw freed: what a burst of work needed stays.
    """
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGE)


def trim() -> None:
    """Give whole pages that are free back to the kernel, wherever they lie: some milliseconds for 50 MB."""
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
