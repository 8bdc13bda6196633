"""Room on the disk that the database has before it needs it, so that a full disk can be emptied again.

Theory: what makes room on a full disk (removing a container, an image, a volume) is a change of the state,
and a change needs room first. So blocks are allocated ahead, where no other program can take them: behind the
end of the write-ahead log, enough for all that it holds before SQLite begins it anew, and behind the end of
the database, for what such a checkpoint adds. An engine that stops gives its log up; beside the database lies
a file of as many blocks, and some empty files: they are removed when a daemon starts on a full disk.

Laws:
- Nothing fails for want of a reserve: it is made when there is room, and again when there is some again.
- The descriptors stay open as long as the database: closing one would let go of SQLite's locks (fcntl(2)).
- A file system that copies on writing is asked not to (``write_in_place``). Nothing is promised of what btrfs
  writes beside a file, nor of a file system without fallocate(2).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from sampan.linux import allocation, inodeflags

LOG = 5 << 20
"""Bytes for the log: SQLite begins it anew after 1,000 pages, 4.1 MB."""
GROWTH = 1 << 20
"""Bytes for the database to grow."""
INDEX = 64 << 10
"""Bytes of the log's index, which is memory: where the disk has no block for a page of it, the daemon dies by
SIGBUS. SQLite writes a byte of each 4 KiB, which is too little where blocks are smaller."""
SPARE = LOG + GROWTH + INDEX
"""Bytes of the file beside a database, for the start on a full disk."""
INODES = 32
"""Empty files in a directory beside it, for the start on a disk that can hold no more files."""
_LEAST = 64 << 20  # bytes of a file system below which nothing is set aside
_AGAIN = 5.0  # seconds from one that could not be had to the next attempt
_BLOCK = 512
_SPARE_FILE, _SPARE_INODES = "-spare", "-inodes"


def write_in_place(path: str) -> None:
    """A database is to be opened: have a file system that copies on writing overwrite its files instead, so
    that blocks that were allocated ahead are of use. Only files without contents can be told so."""
    with suppress(OSError):  # which no other file system has
        for ending in ("", "-wal", "-shm"):
            fd = os.open(path + ending, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                inodeflags.add_flag(fd, inodeflags.IN_PLACE)
            finally:
                os.close(fd)


def make_way(path: str) -> None:
    """A daemon starts: give up the spare file of the database at ``path`` if the disk has no room."""
    with suppress(OSError):
        room = os.statvfs(os.path.dirname(path))
        if room.f_bfree * room.f_frsize < SPARE:
            os.unlink(path + _SPARE_FILE)
    with suppress(OSError):
        if room.f_favail < INODES < room.f_files:
            for name in os.listdir(path + _SPARE_INODES):
                os.unlink(f"{path}{_SPARE_INODES}/{name}")


class Reserve:
    """The reserve of the database at ``path``. ``hold`` from the thread that writes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: list[tuple[int, int, int]] = []  # descriptor, bytes, 1: behind its end
        self._next = 0.0

    def open(self) -> None:
        """The database is open: allocate, now and whenever ``hold`` is called."""
        with suppress(OSError):
            room = os.statvfs(os.path.dirname(self._path))
            if room.f_blocks * room.f_frsize < _LEAST:
                return
            for ending, size, is_more in (("-wal", LOG, 0), ("-shm", INDEX, 0), ("", GROWTH, 1)):
                fd = os.open(self._path + ending, os.O_WRONLY | os.O_CLOEXEC)
                self._files.append((fd, size, is_more))
        self.hold()
        self._set_spare_aside()

    def hold(self) -> None:
        """Allocate again what was used or given up: SQLite cuts both files. Two calls when nothing was."""
        for fd, size, is_more in self._files:
            status = os.fstat(fd)
            # The log and its index are written from their beginning again and again; the database grows.
            wanted = size + is_more * status.st_size
            if status.st_blocks * _BLOCK < wanted - (size >> 1) and time.monotonic() >= self._next:
                try:
                    allocation.ahead(fd, wanted)
                except OSError:
                    self._next = time.monotonic() + _AGAIN

    def close(self) -> None:
        """The database is closed, and its log gone: set what that gave back aside for the next start."""
        had = bool(self._files)
        for fd, *_ in self._files:
            os.close(fd)
        self._files.clear()
        if had:
            self._set_spare_aside()

    def _set_spare_aside(self) -> None:
        with suppress(OSError):
            os.makedirs(self._path + _SPARE_INODES, 0o700, exist_ok=True)
            for number in range(len(os.listdir(self._path + _SPARE_INODES)), INODES):
                os.close(os.open(f"{self._path}{_SPARE_INODES}/{number}", os.O_CREAT | os.O_CLOEXEC, 0o600))
        with suppress(OSError):
            fd = os.open(self._path + _SPARE_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                for size in (SPARE, SPARE // 2):
                    with suppress(OSError):
                        allocation.ahead(fd, size)
                        break
            finally:
                os.close(fd)
