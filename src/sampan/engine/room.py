"""Room on the disk of the data root: told when it gets little, and kept back before there is none.

Theory: an engine on a full disk is of little use, and whoever is to mend that needs it most. So what takes
room (creating, pulling, building, loading, committing, copying volumes) is refused while less is free than
the reserve; what frees it, and what containers do, never is. Exits, logs and whoever looks for what to remove
live of the reserve; the state itself has blocks of its own (``state.reserve``).

Law: ``need`` costs one system call.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from sampan.errors import MEND, DiskFull

if TYPE_CHECKING:
    from sampan.engine.settings import Settings
    from sampan.engine.timers import Timer

log = logging.getLogger(__name__)

EVERY = 15.0  # seconds between two looks
WARNING = 1 << 30
RESERVE = 64 << 20
INODES = 1000
_WARNING_SHARE = 20  # of a file system at most a twentieth is little
_RESERVE_SHARE = 50


class Free(NamedTuple):
    """What a file system has left and in all: bytes and inodes. No inodes in all: it makes them as needed."""

    bytes: int
    total: int
    inodes: int
    total_inodes: int


def free(path: str) -> Free:
    """As ``df`` tells it: what is set aside for root is not free."""
    found = os.statvfs(path)
    size = found.f_frsize
    return Free(found.f_bavail * size, found.f_blocks * size, found.f_favail, found.f_files)


class Room:
    """The room below the data root."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.paths.data
        self._level = 0
        self._timer: Timer | None = None

    def need(self) -> None:
        """DiskFull when room is kept back."""
        if found := self._lacking(free(self._path)):
            raise DiskFull(f"no space left on device: {found}; {MEND}")

    def warning(self) -> str:
        """One line when there is little room, else nothing."""
        return self._state()[1]

    def watch(self) -> None:
        """Tell the log now, and from time to time, when there is little room, and when that is over."""
        level, text = self._state()
        if level > self._level:
            log.warning("%s", text)
        elif self._level and not level:
            log.warning("%s has room again", self._path)
        self._level = level
        self._timer = self._settings.later(EVERY, self.watch)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _state(self) -> tuple[int, str]:
        """0: enough, 1: little, 2: refused; and what to say of it."""
        try:
            found = free(self._path)
        except OSError as error:
            return 2, f"{self._path} cannot be looked at: {(error.strerror or str(error)).lower()}"
        if lacking := self._lacking(found):
            return 2, f"{lacking}; {MEND}"
        limit = _limit(self._settings.options.low_disk_warning, WARNING, found.total // _WARNING_SHARE)
        if found.bytes < limit:
            return 1, f"{self._path} has only {shown(found.bytes)} free of {shown(found.total)}"
        if limit and found.inodes < found.total_inodes // _WARNING_SHARE:
            return 1, f"{self._path} has only {found.inodes} free inodes of {found.total_inodes}"
        return 0, ""

    def _lacking(self, found: Free) -> str:
        reserve = _limit(self._settings.options.low_disk_reserve, RESERVE, found.total // _RESERVE_SHARE)
        if found.bytes < reserve:
            return f"{self._path} has {shown(found.bytes)} free, and {shown(reserve)} are kept back"
        kept = min(INODES, found.total_inodes // _RESERVE_SHARE) if reserve else 0
        if found.inodes < kept:
            return f"{self._path} has {found.inodes} free inodes, and {kept} are kept back"
        return ""


def _limit(asked: int | None, usual: int, most: int) -> int:
    return min(usual, most) if asked is None else asked


def shown(size: int) -> str:
    """Bytes as Docker shows sizes: three digits and a decimal unit."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g}{unit}"
