"""How much of the disk a tree of files takes, by descriptor, whatever lies in it and happens meanwhile.

Laws: no symbolic link is followed and no other file system entered; a file with several names counts once; a
tree of any depth needs three descriptors and no recursion; what vanishes while it is measured has no size.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from sampan.linux import process

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_INSIDE = process.RESOLVE_BENEATH | process.RESOLVE_NO_SYMLINKS
_LONGEST_PATH = 4000  # characters that one call takes, with room below PATH_MAX
_BLOCK = 512  # bytes in which st_blocks counts, everywhere


class Space(NamedTuple):
    """Bytes. ``apparent`` sums the lengths of files, as Docker counts; ``occupied`` what the disk holds for
    files and directories, as ``du`` counts: less for sparse files, more for small ones."""

    apparent: int = 0
    occupied: int = 0

    def __add__(self, other: tuple[object, ...]) -> Space:
        assert isinstance(other, Space)
        return Space(self.apparent + other.apparent, self.occupied + other.occupied)


def measure(path: str) -> Space:
    """The space of everything below the directory ``path``, without itself; none if it is gone."""
    try:
        root = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return Space()
    try:
        return _walk(root)
    finally:
        os.close(root)


def _walk(root: int) -> Space:
    device = os.fstat(root).st_dev
    seen: set[int] = set()
    apparent = occupied = 0
    pending = [""]
    while pending:
        place = pending.pop()
        try:
            fd = _open(root, place)
        except OSError:  # gone, or something else by now
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if status.st_dev != device:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(f"{place}/{entry.name}" if place else entry.name)
                        occupied += status.st_blocks
                        continue
                    if status.st_nlink > 1:
                        if status.st_ino in seen:
                            continue
                        seen.add(status.st_ino)
                    apparent += status.st_size
                    occupied += status.st_blocks
        finally:
            os.close(fd)
    return Space(apparent, occupied * _BLOCK)


def _open(root: int, place: str) -> int:
    """The directory at a path below ``root``; the caller's to close."""
    fd = os.dup(root)
    while True:
        step, place = _step(place)
        try:
            inner = process.openat2(fd, step or ".", _DIRECTORY, resolve=_INSIDE)
        finally:
            os.close(fd)
        if not place:
            return inner
        fd = inner


def _step(place: str) -> tuple[str, str]:
    """As much of a path as one call takes, and the rest."""
    if len(place.encode("utf-8", "surrogateescape")) <= _LONGEST_PATH:
        return place, ""
    cut = place.rfind("/", 0, _LONGEST_PATH // 4)
    cut = cut if cut > 0 else place.index("/")
    return place[:cut], place[cut + 1 :]
