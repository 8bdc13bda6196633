"""A tree laid beneath another one, by descriptor: what the upper one lacks, it gets from the lower one.

Theory: several layers become one tree when each is laid beneath those above it, and copying a tree is laying
it beneath an empty directory. A file ``.wh.NAME`` in the upper tree hides NAME of all that is laid beneath
it, ``.wh..wh..opq`` everything of that directory. Marks of a lower tree come along and hide what is laid
beneath later; ``unmark`` takes them away at the end.

Laws:
- Nobody else is at the upper tree, and nobody writes to the lower one. No symbolic link is followed.
- The lower tree is never written to. See ``Sharing`` for what the upper one has of its files. Holes stay
  holes, and files with several names keep them.
- A directory of both looks as the upper one did, its times included; all else looks as below.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import stat
from contextlib import suppress

from sampan.linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

MARK, OPAQUE = ".wh.", ".wh..wh..opq"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_SHARE_CONTENTS = 0x40049409  # FICLONE, ioctl_ficlonerange(2)
_NOT_LINKED = (errno.EMLINK, errno.EXDEV, errno.EPERM)
_PIECE = 1 << 30  # bytes


class Sharing(enum.Enum):
    """``FILES``: they are the same files, by hard links, and neither tree may be written to any more; but for
    a second name in the upper tree, with ``FILES_APART``. ``CONTENTS``: they are copies, whose contents are
    shared until one is written to, where the file system can do that.
    """

    FILES = enum.auto()
    FILES_APART = enum.auto()
    CONTENTS = enum.auto()


def lay_beneath(upper: int, lower: int, *, share: Sharing, empty: bool = False) -> None:
    """Lay the tree ``lower`` beneath the tree ``upper``; ``empty``: that is one that has no looks yet.
    OSError.
    """
    _Laying(upper, lower, share=share).run(empty=empty)


def unmark(tree: int) -> None:
    """Take all marks away."""
    pending = [""]
    while pending:
        path = pending.pop()
        fd = openat2(tree, path or ".", _DIRECTORY, resolve=_INSIDE)
        try:
            before = os.fstat(fd)
            marked = False
            with os.scandir(fd) as entries:
                for entry in entries:
                    directory = entry.is_dir(follow_symlinks=False)
                    if entry.name.startswith(MARK) and not directory:
                        os.unlink(entry.name, dir_fd=fd)
                        marked = True
                    elif directory:
                        pending.append(_below(path, entry.name))
            if marked:
                os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        finally:
            os.close(fd)


class _Laying:
    def __init__(self, upper: int, lower: int, *, share: Sharing) -> None:
        self._upper = upper
        self._lower = lower
        self._share = share
        self._reflinks = True
        self._names: dict[tuple[int, int], str] = {}
        """Files with several names by inode: the path of the first copy."""

    def run(self, *, empty: bool) -> None:
        pending = [("", empty)]
        while pending:
            path, fresh = pending.pop()
            lower = openat2(self._lower, path or ".", _DIRECTORY, resolve=_INSIDE)
            try:
                upper = openat2(self._upper, path or ".", _DIRECTORY, resolve=_INSIDE)
                try:
                    pending += self._directory(upper, lower, path, fresh=fresh)
                finally:
                    os.close(upper)
            finally:
                os.close(lower)

    def _directory(self, upper: int, lower: int, path: str, *, fresh: bool) -> list[tuple[str, bool]]:
        """Lay one directory; those in it that are to be laid, and whether they are new."""
        there = set(os.listdir(upper))
        if OPAQUE in there:
            return []
        looks = os.fstat(lower if fresh else upper)
        deeper: list[tuple[str, bool]] = []
        with os.scandir(lower) as entries:
            for entry in entries:
                name, place = entry.name, _below(path, entry.name)
                if MARK + name in there:
                    continue
                directory = entry.is_dir(follow_symlinks=False)
                if name in there:
                    if directory and stat.S_ISDIR(_status(upper, name).st_mode):
                        deeper.append((place, False))
                elif directory:
                    os.mkdir(name, 0o700, dir_fd=upper)
                    deeper.append((place, True))
                else:
                    self._entry(upper, lower, name, place)
        if fresh:
            os.fchown(upper, looks.st_uid, looks.st_gid)
            os.fchmod(upper, looks.st_mode & 0o7777)
            _copy_attributes(lower, upper)
        os.utime(upper, ns=(looks.st_atime_ns, looks.st_mtime_ns))
        return deeper

    def _entry(self, upper: int, lower: int, name: str, place: str) -> None:
        """Bring what is no directory to ``place``."""
        if self._share is Sharing.FILES_APART:
            there = _status(lower, name)
            first = self._names.setdefault((there.st_dev, there.st_ino), place)
            if first != place and stat.S_ISREG(there.st_mode):
                self._file(upper, lower, name, there)
                return
        if self._share is not Sharing.CONTENTS:
            try:
                os.link(name, name, src_dir_fd=lower, dst_dir_fd=upper, follow_symlinks=False)
                return
            except OSError as error:
                if error.errno not in _NOT_LINKED:
                    raise
        there = _status(lower, name)
        if there.st_nlink > 1:
            first = self._names.setdefault((there.st_dev, there.st_ino), place)
            if first != place:
                os.link(first, name, src_dir_fd=self._upper, dst_dir_fd=upper, follow_symlinks=False)
                return
        if stat.S_ISREG(there.st_mode):
            self._file(upper, lower, name, there)
            return
        if stat.S_ISLNK(there.st_mode):
            os.symlink(os.readlink(name, dir_fd=lower), name, dir_fd=upper)
        else:
            os.mknod(name, there.st_mode, there.st_rdev, dir_fd=upper)
        os.chown(name, there.st_uid, there.st_gid, dir_fd=upper, follow_symlinks=False)
        if not stat.S_ISLNK(there.st_mode):
            os.chmod(name, there.st_mode & 0o7777, dir_fd=upper)
        _copy_attributes(f"/proc/self/fd/{lower}/{name}", f"/proc/self/fd/{upper}/{name}")
        os.utime(name, ns=(there.st_atime_ns, there.st_mtime_ns), dir_fd=upper, follow_symlinks=False)

    def _file(self, upper: int, lower: int, name: str, there: os.stat_result) -> None:
        source = os.open(name, _READ, dir_fd=lower)
        try:
            target = os.open(name, _NEW, 0o600, dir_fd=upper)
            try:
                if there.st_size:
                    self._contents(target, source, there.st_size)
                os.fchown(target, there.st_uid, there.st_gid)
                os.fchmod(target, there.st_mode & 0o7777)
                _copy_attributes(source, target)
                os.utime(target, ns=(there.st_atime_ns, there.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _contents(self, target: int, source: int, size: int) -> None:
        if self._reflinks:
            try:
                fcntl.ioctl(target, _SHARE_CONTENTS, source)
                return
            except OSError:
                self._reflinks = False
        at = 0
        while at < size:
            try:
                start = os.lseek(source, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            at = os.lseek(source, start, os.SEEK_HOLE)
            os.lseek(source, start, os.SEEK_SET)
            os.lseek(target, start, os.SEEK_SET)
            while start < at:
                copied = os.sendfile(target, source, None, min(at - start, _PIECE))
                if not copied:
                    raise OSError(errno.EIO, "a layer's file became shorter")
                start += copied
        os.ftruncate(target, size)


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _status(directory: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _copy_attributes(source: int | str, target: int | str) -> None:
    """The extended attributes of an open file, or of what a path names itself."""
    names: list[str] = []
    with suppress(OSError):
        names = (
            os.listxattr(source) if isinstance(source, int) else os.listxattr(source, follow_symlinks=False)
        )
    for name in names:
        if isinstance(source, int):
            os.setxattr(target, name, os.getxattr(source, name))
        else:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
