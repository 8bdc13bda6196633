"""Whether two trees are the same, to the last attribute: what a check of unpacked layers asks.

Nothing is followed: every entry is looked at by its name in an open directory. Access and change times are
not compared, nor inode numbers; names that are one file in one tree must be one file in the other, and a file
may have further names elsewhere, as what a build holds and what drivers share have. Of marks
that hide something (overlayfs's devices 0:0, files called ``.wh.NAME``) nothing counts but that they are
there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field

_BLOCK = 1 << 20
_MARK = ".wh."
_OVERLAY, _OPAQUE = "trusted.overlay.", "trusted.overlay.opaque"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def difference(one: str, other: str, timeless: Collection[str] = ()) -> str:
    """The first difference between two directories, as ``path: what``; empty for none. Blocks.

    ``timeless`` are directories, relative and ``.`` for the whole, whose times may differ.
    """
    with _Opened(one) as first, _Opened(other) as second:
        return _Comparison(frozenset(timeless)).directories(first, second, "")


class _Opened:
    """A directory while it is looked at."""

    def __init__(self, path: str, parent: int | None = None) -> None:
        self._fd = os.open(path, _DIRECTORY, dir_fd=parent)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class _Comparison:
    """``same`` leads from the files of one tree that have several names to those of the other, and ``back``
    from these to those.
    """

    timeless: frozenset[str]
    back: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    same: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def directories(self, one: int, other: int, path: str) -> str:
        if found := self.looks(os.fstat(one), os.fstat(other), path.rstrip("/") or "."):
            return found
        if _attributes(one) != _attributes(other):
            return f"{path or '.'}: other attributes"
        names, others = set(os.listdir(one)), set(os.listdir(other))
        if names != others:
            name = min(names ^ others)
            return f"{path}{name}: {'not there' if name in others else 'too much'}"
        for name in sorted(names):
            if found := self.entries(one, other, name, path + name):
                return found
        return ""

    def entries(self, one: int, other: int, name: str, path: str) -> str:
        first = os.stat(name, dir_fd=one, follow_symlinks=False)
        second = os.stat(name, dir_fd=other, follow_symlinks=False)
        if stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
            return f"{path}: of another kind"
        if stat.S_ISDIR(first.st_mode):
            with _Opened(name, one) as below, _Opened(name, other) as below_other:
                return self.directories(below, below_other, f"{path}/")
        if name.startswith(_MARK) or (stat.S_ISCHR(first.st_mode) and first.st_rdev == second.st_rdev == 0):
            return ""
        if found := self.looks(first, second, path):
            return found
        if stat.S_ISREG(first.st_mode):
            return _files(one, other, name, path)
        if stat.S_ISLNK(first.st_mode) and os.readlink(name, dir_fd=one) != os.readlink(name, dir_fd=other):
            return f"{path}: leads elsewhere"
        return ""

    def looks(self, first: os.stat_result, second: os.stat_result, path: str) -> str:
        if first.st_mode != second.st_mode:
            return f"{path}: mode {first.st_mode & 0o7777:o}, expected {second.st_mode & 0o7777:o}"
        if (first.st_uid, first.st_gid) != (second.st_uid, second.st_gid):
            return f"{path}: owner {first.st_uid}:{first.st_gid}, expected {second.st_uid}:{second.st_gid}"
        if first.st_rdev != second.st_rdev:
            return f"{path}: another device"
        if first.st_mtime_ns != second.st_mtime_ns and path not in self.timeless:
            return f"{path}: modified at {first.st_mtime_ns} ns, expected {second.st_mtime_ns}"
        if stat.S_ISDIR(first.st_mode):
            return ""
        if first.st_size != second.st_size:
            return f"{path}: {first.st_size} bytes, expected {second.st_size}"
        if first.st_nlink > 1 or second.st_nlink > 1:
            here, there = (first.st_dev, first.st_ino), (second.st_dev, second.st_ino)
            if self.same.setdefault(here, there) != there or self.back.setdefault(there, here) != here:
                return f"{path}: other hard links"
        return ""


def _files(one: int, other: int, name: str, path: str) -> str:
    first, second = os.open(name, _FILE, dir_fd=one), os.open(name, _FILE, dir_fd=other)
    try:
        if _attributes(first) != _attributes(second):
            return f"{path}: other attributes"
        while True:
            block = os.read(first, _BLOCK)
            if block != os.read(second, _BLOCK):
                return f"{path}: other content"
            if not block:
                return ""
    finally:
        os.close(first)
        os.close(second)


def _attributes(fd: int) -> dict[str, bytes]:
    """All but what overlayfs noted for itself where a container wrote."""
    names = (name for name in os.listxattr(fd) if name == _OPAQUE or not name.startswith(_OVERLAY))
    return {name: os.getxattr(fd, name) for name in names}
