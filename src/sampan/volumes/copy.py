"""Copying a directory tree exactly: owners, modes, times, extended attributes, hard links, holes, devices.

Laws: the source is read by descriptors and never through a symbolic link below its root; the destination is
a directory that nobody else can reach while it is filled. Overlayfs's own attributes are not copied.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 24  # bytes copied per call
_PRIVATE_XATTRS = ("trusted.overlay.", "user.overlay.")
_DEEPEST = 256
"""Directories below each other; each holds a descriptor on either side while it is copied."""


@dataclass(slots=True, kw_only=True)
class _Links:
    """First copy of each file that has several names: (device, inode) → path from the destination's root."""

    root_fd: int
    first: dict[tuple[int, int], str] = field(default_factory=dict)


def copy_tree(source_fd: int, destination_fd: int) -> None:
    """Copy what is in one directory into another, empty one, then the directory's own attributes.

    Raises OSError; the destination is then incomplete.
    """
    _copy_directory(source_fd, destination_fd, "", _Links(root_fd=destination_fd), 0)


def copy_attributes(source_fd: int, destination_fd: int) -> None:
    """Owner, extended attributes, mode and times of one open file or directory to another."""
    status = os.fstat(source_fd)
    os.fchown(destination_fd, status.st_uid, status.st_gid)
    # After the owner: a change of owner clears set-id bits and file capabilities.
    os.fchmod(destination_fd, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source_fd):
        if not name.startswith(_PRIVATE_XATTRS):
            _set_xattr(destination_fd, name, os.getxattr(source_fd, name))
    os.utime(destination_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _set_xattr(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        # The destination's file system may know no such attribute (tmpfs has no "user." before Linux 6.6).
        if error.errno != errno.ENOTSUP:
            raise


def _copy_directory(source_fd: int, destination_fd: int, path: str, links: _Links, depth: int) -> None:
    if depth > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, "directories are nested too deeply", path[:80] + "…")
    for name in sorted(os.listdir(source_fd)):
        _copy_entry(source_fd, destination_fd, name, f"{path}{name}", links, depth)
    copy_attributes(source_fd, destination_fd)


def _copy_entry(source_fd: int, destination_fd: int, name: str, path: str, links: _Links, depth: int) -> None:
    status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=destination_fd)
        source, destination = _open_both(source_fd, destination_fd, name)
        try:
            _copy_directory(source, destination, f"{path}/", links, depth + 1)
        finally:
            os.close(source)
            os.close(destination)
        return
    identity = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and identity in links.first:
        first = links.first[identity]
        os.link(first, name, src_dir_fd=links.root_fd, dst_dir_fd=destination_fd, follow_symlinks=False)
        return
    if kind == stat.S_IFREG:
        _copy_file(source_fd, destination_fd, name)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=destination_fd)
        _set_plain_attributes(destination_fd, name, status)
    elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
        os.mknod(name, stat.S_IMODE(status.st_mode) | kind, status.st_rdev, dir_fd=destination_fd)
        _set_plain_attributes(destination_fd, name, status)
    else:
        return  # a socket belongs to a process that is gone
    if status.st_nlink > 1:
        links.first[identity] = path


def _open_both(source_fd: int, destination_fd: int, name: str) -> tuple[int, int]:
    source = os.open(name, _DIRECTORY, dir_fd=source_fd)
    try:
        return source, os.open(name, _DIRECTORY, dir_fd=destination_fd)
    except OSError:
        os.close(source)
        raise


def _set_plain_attributes(directory_fd: int, name: str, status: os.stat_result) -> None:
    """Owner, mode and times of what cannot be opened for writing: symbolic links, fifos, devices."""
    os.chown(name, status.st_uid, status.st_gid, dir_fd=directory_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory_fd)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=directory_fd, follow_symlinks=False)


def _copy_file(source_fd: int, destination_fd: int, name: str) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        destination = os.open(name, flags, 0o600, dir_fd=destination_fd)
        try:
            _copy_data(source, destination, os.fstat(source).st_size)
            copy_attributes(source, destination)
        finally:
            os.close(destination)
    finally:
        os.close(source)


def _copy_data(source: int, destination: int, size: int) -> None:
    """The data between the holes; the kernel shares blocks where the file system can."""
    os.ftruncate(destination, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # only a hole is left
            raise
        end = min(os.lseek(source, position, os.SEEK_HOLE), size)
        os.lseek(destination, position, os.SEEK_SET)
        while position < end:
            copied = _copy_piece(source, destination, position, min(end - position, _PIECE))
            if not copied:
                return  # the file became shorter
            position += copied


def _copy_piece(source: int, destination: int, position: int, size: int) -> int:
    """Copy to where the destination stands; the number of bytes copied, 0 at the end of the source."""
    try:
        return os.copy_file_range(source, destination, size, offset_src=position)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return os.sendfile(destination, source, position, size)
