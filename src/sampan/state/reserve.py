"""Room on the disk that the database has before it needs it, so that a full disk can be emptied again.

Theory: what makes room on a full disk (removing a container, an image, a volume) is a change of the state,
and a change needs room first. So blocks are allocated ahead, where no other program can take them: behind the
end of the write-ahead log, enough for all that it holds before SQLite begins it anew, and behind the end of
the database, for what such a checkpoint adds. An engine that stops gives its log up; beside the database lies
a file of as many blocks, which is removed when a daemon starts on a full disk.

Laws:
- Nothing fails for want of a reserve: it is made when there is room, and again when there is some again.
- The descriptors stay open as long as the database: closing one would let go of SQLite's locks (fcntl(2)).
- A file system that copies on writing (btrfs), or has no fallocate(2), gives no promise of this kind.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from sampan.linux import allocation

LOG = 5 << 20
"""Bytes for the log: SQLite begins it anew after 1,000 pages, 4.1 MB."""
GROWTH = 1 << 20
"""Bytes for the database to grow."""
SPARE = LOG + GROWTH
"""Bytes of the file beside a database, for the start on a full disk."""
_LEAST = 64 << 20  # bytes of a file system below which nothing is set aside
_AGAIN = 5.0  # seconds from one that could not be had to the next attempt
_BLOCK = 512


class Reserve:
    """The reserve of the database at ``path``. ``hold`` from the thread that writes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: list[tuple[int, int]] = []  # descriptor, bytes wanted behind its end
        self._next = 0.0

    def make_way(self) -> None:
        """Before the database is opened: give up the spare file if the disk has no room for a start."""
        with suppress(OSError):
            room = os.statvfs(os.path.dirname(self._path))
            if room.f_bfree * room.f_frsize < SPARE:
                os.unlink(self._spare)

    def open(self) -> None:
        """The database is open: allocate, now and whenever ``hold`` is called."""
        with suppress(OSError):
            room = os.statvfs(os.path.dirname(self._path))
            if room.f_blocks * room.f_frsize < _LEAST:
                return
            for path, ahead in ((f"{self._path}-wal", LOG), (self._path, GROWTH)):
                self._files.append((os.open(path, os.O_WRONLY | os.O_CLOEXEC), ahead))
        self.hold()
        self._set_spare_aside()

    def hold(self) -> None:
        """Allocate again what was used or given up: SQLite cuts both files. Two calls when nothing was."""
        for fd, ahead in self._files:
            status = os.fstat(fd)
            # The log is written from its beginning again and again; the database grows at its end.
            wanted = ahead if ahead == LOG else status.st_size + ahead
            if status.st_blocks * _BLOCK < wanted - (ahead >> 1) and time.monotonic() >= self._next:
                try:
                    allocation.ahead(fd, wanted)
                except OSError:
                    self._next = time.monotonic() + _AGAIN

    def close(self) -> None:
        """The database is closed, and its log gone: set what that gave back aside for the next start."""
        had = bool(self._files)
        for fd, _ in self._files:
            os.close(fd)
        self._files.clear()
        if had:
            self._set_spare_aside()

    @property
    def _spare(self) -> str:
        return f"{self._path}-spare"

    def _set_spare_aside(self) -> None:
        with suppress(OSError):
            fd = os.open(self._spare, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                for size in (SPARE, SPARE // 2):
                    with suppress(OSError):
                        allocation.ahead(fd, size)
                        break
            finally:
                os.close(fd)
