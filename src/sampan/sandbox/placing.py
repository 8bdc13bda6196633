"""A layer's directory, made member by member beside the archive that it would unpack from.

A file that is in the layer just as it is where it comes from is not written again but linked there: the tree
that it comes from is about to be removed. Each is linked once, so that no two files of an image are one.
One that another layer has already is linked too, and counted: the layer may turn out to be the one that is
here, and making files is what takes time. A layer that is a new one gets files of its own (``set_apart``)
before anyone sees it.

Law: nothing is resolved but below the directory, through no link; what lies in a member's place is replaced.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from sampan.linux import process as p
from sampan.wire import tar
from sampan.wire.tar import Member

_INSIDE = p.RESOLVE_BENEATH | p.RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPIED = 1 << 24  # bytes at once


class Placer:
    """Fills the empty directory ``root``. At the end ``size``, ``entries`` and the largest owners are known;
    ``implied`` are the directories that no member describes.
    """

    def __init__(self, root: int, *, links: int = 0) -> None:
        """``links``: how many names a file of the tree has that no layer has; 0: none may be linked."""
        self._root = root
        self._links = links
        self._implied: dict[bytes, None] = {}
        self._times: dict[bytes, int] = {}
        self._linked: set[int] = set()
        self._parent = (b"", os.dup(root))
        self.shared = 0
        self.size = 0
        self.entries = 0
        self.max_uid = 0
        self.max_gid = 0

    @property
    def implied(self) -> list[str]:
        return [os.fsdecode(path) for path in self._implied]

    def finish(self) -> None:
        """Give directories their times, which their contents would have changed."""
        os.close(self._parent[1])
        for path, time in reversed(self._times.items()):
            os.utime(path, ns=(time, time), dir_fd=self._root, follow_symlinks=False)

    def entry(self, member: Member) -> None:
        """Make a directory, a symbolic link or a FIFO."""
        self._count(member)
        path = member.name.rstrip(b"/")
        parent, base = self._place(path)
        if member.kind == tar.DIRECTORY:
            self._implied.pop(path, None)
            with suppress(FileExistsError):
                os.mkdir(base, 0o700, dir_fd=parent)
            fd = os.open(base, _DIRECTORY, dir_fd=parent)
            try:
                self._dress(fd, member)
            finally:
                os.close(fd)
            self._times[path] = member.mtime
            return
        _make_room(parent, base)
        if member.kind == tar.SYMLINK:
            os.symlink(member.link, base, dir_fd=parent)
        else:
            os.mknod(base, stat.S_IFIFO | 0o600, dir_fd=parent)
            os.chmod(base, member.mode, dir_fd=parent)
        os.chown(base, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(base, ns=(member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

    def link(self, member: Member, directory: int, name: str, there: os.stat_result) -> bool:
        """Have the file ``name`` of ``directory`` as the member, if it is all that the member is to be."""
        same = (
            0 < self._links <= there.st_nlink
            and there.st_ino not in self._linked
            and (there.st_uid, there.st_gid) == (member.uid, member.gid)
            and there.st_mode & 0o7777 == member.mode
            and there.st_mtime_ns == member.mtime
        )
        if not same:
            return False
        parent, base = self._place(member.name)
        _make_room(parent, base)
        try:
            os.link(name, base, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                return False
            raise
        self._linked.add(there.st_ino)
        self.shared += there.st_nlink > self._links
        self._count(member)
        return True

    def file(self, member: Member) -> int:
        """A new empty file for the member, to write to and then to ``close``."""
        self._count(member)
        parent, base = self._place(member.name)
        _make_room(parent, base)
        return os.open(base, _NEW, 0o600, dir_fd=parent)

    def close(self, fd: int, member: Member) -> None:
        """The file is complete."""
        try:
            self._dress(fd, member)
            os.utime(fd, ns=(member.mtime, member.mtime))
        finally:
            os.close(fd)

    def _count(self, member: Member) -> None:
        self.size += member.size
        self.entries += 1
        self.max_uid = max(self.max_uid, member.uid)
        self.max_gid = max(self.max_gid, member.gid)

    def _dress(self, fd: int, member: Member) -> None:
        os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode)
        for name, value in (member.xattrs or {}).items():
            os.setxattr(fd, name, value)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """The directory that a path lies in, made if it is missing, and the last name."""
        folder, _, base = path.rpartition(b"/")
        if self._parent[0] != folder:
            os.close(self._parent[1])
            self._parent = (b"", os.dup(self._root))
            self._parent = (folder, self._directory(folder))
        return self._parent[1], base

    def _directory(self, path: bytes) -> int:
        found = self._parent[1]
        if not path:
            return found
        os.close(found)
        with suppress(FileNotFoundError):
            return p.openat2(self._root, os.fsdecode(path), _DIRECTORY, resolve=_INSIDE)
        parts = path.split(b"/")
        for depth in range(1, len(parts) + 1):
            walked = b"/".join(parts[:depth])
            with suppress(FileExistsError):
                os.mkdir(walked, 0o755, dir_fd=self._root)  # all before it are directories made here
                self._implied[walked] = None
        return p.openat2(self._root, os.fsdecode(path), _DIRECTORY, resolve=_INSIDE)


def _make_room(parent: int, base: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(base, dir_fd=parent)


def set_apart(directory: int, links: int) -> None:
    """Give what lies below files of its own for those that have more than ``links`` names."""
    for name in os.listdir(directory):
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode):
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                set_apart(inner, links)
                os.utime(inner, ns=(there.st_atime_ns, there.st_mtime_ns))
            finally:
                os.close(inner)
        elif stat.S_ISREG(there.st_mode) and there.st_nlink > links:
            _copy_in_place(directory, name, there)


def _copy_in_place(directory: int, name: str, there: os.stat_result) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.unlink(name, dir_fd=directory)
        made = os.open(name, _NEW, 0o600, dir_fd=directory)
        try:
            while os.copy_file_range(source, made, _COPIED):
                pass
            os.fchown(made, there.st_uid, there.st_gid)
            os.fchmod(made, stat.S_IMODE(there.st_mode))
            for attribute in os.listxattr(source):
                os.setxattr(made, attribute, os.getxattr(source, attribute))
            os.utime(made, ns=(there.st_atime_ns, there.st_mtime_ns))
        finally:
            os.close(made)
    finally:
        os.close(source)
