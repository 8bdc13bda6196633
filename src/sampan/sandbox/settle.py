"""An upper directory that becomes a layer's: told as an archive, and made what that would unpack to.

Laws:
- Afterwards the directory is what unpacking the archive would give, but for what overlayfs has noted on it:
  times are whole seconds (and no later than ``Style.latest``), there are no sockets, the top looks as any
  layer's does.
- ``stubs`` are places where something was mounted. One that was made for that, and still holds nothing, goes,
  with the empty directories that were made on the way to it.
- The directory is not mounted, and no process but this one is at it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress

from sampan.linux import process as p
from sampan.sandbox.pack import Packer, Style

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_INSIDE = p.RESOLVE_BENEATH | p.RESOLVE_NO_SYMLINKS
_SECOND = 1_000_000_000  # ns
_TOP_MODE = 0o755
_OVERLAY = "trusted.overlay."


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
        take_away(upper, lowers, stubs)
        self.tree(upper, None, b"")
        self.finish()
        os.fchown(upper, 0, 0)
        os.fchmod(upper, _TOP_MODE)
        for name in os.listxattr(upper):
            if name.startswith(_OVERLAY):
                os.removexattr(upper, name)

    def _entry(self, parent: int, base: bytes, name: bytes) -> int:
        there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISSOCK(there.st_mode):
            before = os.fstat(parent)
            os.unlink(base, dir_fd=parent)
            os.utime(parent, ns=(before.st_atime_ns, self._time(before)))
            return -1
        fd = super()._entry(parent, base, name)
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


def take_away(upper: int, lowers: Sequence[int], stubs: Iterable[str]) -> None:
    """Remove what was made to mount on, and the layers below lack."""
    for stub in sorted(stubs, key=len, reverse=True):
        _take_away(upper, lowers, stub)


def _take_away(upper: int, lowers: Sequence[int], path: str) -> None:
    path = path.strip("/")
    while path and not any(_is_there(lower, path) for lower in lowers):
        parent_path, _, name = path.rpartition("/")
        try:
            parent = p.openat2(upper, parent_path or ".", _PLACE | os.O_DIRECTORY, resolve=_INSIDE)
        except OSError:
            return
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                os.rmdir(name, dir_fd=parent)
            elif stat.S_ISREG(there.st_mode) and not there.st_size:
                os.unlink(name, dir_fd=parent)
            else:
                return
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTEMPTY):
                return
            raise
        finally:
            os.close(parent)
        path = parent_path


def _is_there(directory: int, path: str) -> bool:
    with suppress(OSError):
        os.close(p.openat2(directory, path, _PLACE, resolve=_INSIDE))
        return True
    return False
