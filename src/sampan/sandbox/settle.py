"""An upper directory that becomes a layer's: told as an archive, and made what that would unpack to.

Laws:
- Afterwards the directory is what unpacking the archive would give, but for what overlayfs has noted on it:
  times are whole seconds (and no later than ``Style.latest``), there are no sockets, the top looks as any
  layer's does.
- ``stubs`` are places where something was mounted. One that was made for that, and still holds nothing, goes,
  with the empty directories that were made on the way to it. A directory of the layers below that only had
  to be copied up for that goes too.
- The directory is not mounted, and no process but this one is at it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence

from sampan.linux import process as p
from sampan.sandbox.marks import is_whiteout
from sampan.sandbox.pack import Packer, Style

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_INSIDE = p.RESOLVE_BENEATH | p.RESOLVE_NO_SYMLINKS
_SECOND = 1_000_000_000  # ns
_TOP_MODE = 0o755
_OVERLAY = "trusted.overlay."
_HIDING = frozenset((f"{_OVERLAY}opaque", f"{_OVERLAY}redirect"))


class Settler(Packer):
    """Does it for the directory ``upper``; ``size``, ``entries`` and largest owners are known at the end."""

    def __init__(self, out: int, latest: int | None = None) -> None:
        super().__init__(out, Style(overlay=True, sparse=True, latest=latest))
        self.size = 0
        self.entries = 0
        self.max_uid = 0
        self.max_gid = 0
        self._counted: set[int] = set()

    def run(self, upper: int, lowers: Sequence[int], stubs: Iterable[str]) -> None:
        """``lowers`` are the layers below, by descriptor."""
        for path in take_away(upper, lowers, stubs):
            _let_go(upper, lowers, path)
        self.tree(upper, None, b"")
        self.finish()
        os.fchown(upper, 0, 0)
        os.fchmod(upper, _TOP_MODE)
        for name in os.listxattr(upper):
            if name.startswith(_OVERLAY):
                os.removexattr(upper, name)

    def _entry(self, parent: int, base: bytes, name: bytes, *, is_file: bool) -> int:
        there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISSOCK(there.st_mode):
            before = os.fstat(parent)
            os.unlink(base, dir_fd=parent)
            os.utime(parent, ns=(before.st_atime_ns, self._time(before)))
            return -1
        fd = super()._entry(parent, base, name, is_file=is_file)
        time = self._time(there)
        if time != there.st_mtime_ns:
            os.utime(base, ns=(there.st_atime_ns, time), dir_fd=parent, follow_symlinks=False)
        self.entries += 1
        self.max_uid = max(self.max_uid, there.st_uid)
        self.max_gid = max(self.max_gid, there.st_gid)
        if stat.S_ISREG(there.st_mode) and there.st_ino not in self._counted:
            self.size += there.st_size
            if there.st_nlink > 1:
                self._counted.add(there.st_ino)
        return fd


def take_away(upper: int, lowers: Sequence[int], stubs: Iterable[str]) -> list[str]:
    """Remove what was made to mount on, and the layers below (topmost first) lack.

    Answers with the directories of theirs that something was removed from.
    """
    found = [_take_away(upper, lowers, stub) for stub in sorted(stubs, key=len, reverse=True)]
    return [path for path in found if path]


def _take_away(upper: int, lowers: Sequence[int], path: str) -> str:
    path, removed = path.strip("/"), False
    while path and not _is_below(lowers, path):
        parent_path, _, name = path.rpartition("/")
        try:
            parent = p.openat2(upper, parent_path or ".", _DIRECTORY, resolve=_INSIDE)
        except OSError:
            return ""
        try:
            there, before = os.stat(name, dir_fd=parent, follow_symlinks=False), os.fstat(parent)
            if stat.S_ISDIR(there.st_mode):
                os.rmdir(name, dir_fd=parent)
            elif stat.S_ISREG(there.st_mode) and not there.st_size:
                os.unlink(name, dir_fd=parent)
            else:
                return ""
            os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTEMPTY):
                return ""
            raise
        finally:
            os.close(parent)
        path, removed = parent_path, True
    return path if removed else ""


def _let_go(upper: int, lowers: Sequence[int], path: str) -> None:
    """Remove a directory, and those on the way to it, that were only copied up to mount below them.

    The time of the first is that of the mount point, and says nothing.
    """
    timed = False
    while path:
        parent_path, _, name = path.rpartition("/")
        try:
            ours = p.openat2(upper, path, _DIRECTORY, resolve=_INSIDE)
        except OSError:
            return
        try:
            if os.listdir(ours) or not _is_same(ours, lowers, path, timed=timed):
                return
        finally:
            os.close(ours)
        parent = p.openat2(upper, parent_path or ".", _DIRECTORY, resolve=_INSIDE)
        before = os.fstat(parent)
        os.rmdir(name, dir_fd=parent)
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.close(parent)
        path, timed = parent_path, True


def _is_same(ours: int, lowers: Sequence[int], path: str, *, timed: bool) -> bool:
    """Whether a directory looks as in the topmost layer that has it."""
    for lower in lowers:
        try:
            theirs = p.openat2(lower, path, _DIRECTORY, resolve=_INSIDE)
        except OSError:
            continue
        try:
            return _look(ours, timed=timed) == _look(theirs, timed=timed) and not _hides(ours)
        finally:
            os.close(theirs)
    return False


def _look(directory: int, *, timed: bool) -> tuple[object, ...]:
    there = os.fstat(directory)
    names = sorted(name for name in os.listxattr(directory) if not name.startswith(_OVERLAY))
    values = [(name, os.getxattr(directory, name)) for name in names]
    return there.st_mode, there.st_uid, there.st_gid, values, there.st_mtime_ns if timed else 0


def _hides(directory: int) -> bool:
    """Whether a directory takes the place of those below it."""
    return any(name in _HIDING for name in os.listxattr(directory))


def _is_below(lowers: Sequence[int], path: str) -> bool:
    """Whether the layers together have something at a path."""
    parts = path.split("/")
    for lower in lowers:
        hidden = False
        for depth in range(1, len(parts) + 1):
            try:
                fd = p.openat2(lower, "/".join(parts[:depth]), _PLACE, resolve=_INSIDE)
            except OSError:
                break
            try:
                there = os.fstat(fd)
            finally:
                os.close(fd)
            if is_whiteout(there):
                return False  # it was deleted here
            if stat.S_ISDIR(there.st_mode):
                place = p.openat2(lower, "/".join(parts[:depth]), _DIRECTORY, resolve=_INSIDE)
                hidden |= _hides(place)
                os.close(place)
        else:
            return True
        if hidden:
            return False
    return False
