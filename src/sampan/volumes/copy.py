"""Copying a directory tree exactly: owners, modes, times, extended attributes, hard links, holes, devices.

Laws:
- The source is read by descriptors and never through a symbolic link below its root, and what changes its
  kind meanwhile is not opened; the destination is a directory that nobody else can reach while it is filled.
  Overlayfs's own attributes are not copied.
- A second copy may take from a first one what cannot have changed since (``Earlier``): the time of a file's
  last change is the kernel's alone to set, and what is written through a mapping sets it anew once the page
  was clean. So what was synced before the first copy and has not changed since the sync is the same in both.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 24  # bytes copied per call, in some tens of milliseconds
_PRIVATE_XATTRS = ("trusted.overlay.", "user.overlay.")
_DEEPEST = 256
"""Directories below each other; each holds a descriptor on either side while it is copied."""


_FICLONE = 0x40049409

Places = dict[tuple[int, int], str]
"""From (device, inode) of a file to the path of its copy, from the copy's root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An earlier copy of the same tree: its root, and where it has what.

    ``since``: files that changed at that time (nanoseconds since the epoch) or later are not taken from it.
    """

    root_fd: int
    places: Places
    since: int


@dataclass(slots=True, kw_only=True)
class _Copying:
    """One copy on its way. ``links``: the first copies of files that have several names. ``goes_on`` raises
    what is to end the copying."""

    root_fd: int
    goes_on: Callable[[], object]
    earlier: Earlier | None = None
    links: Places = field(default_factory=dict)
    made: Places = field(default_factory=dict)


def copy_tree(
    source_fd: int,
    destination_fd: int,
    *,
    goes_on: Callable[[], object] = lambda: None,
    earlier: Earlier | None = None,
) -> Places:
    """Copy what is in one directory into another, empty one, then the directory's own attributes.

    Answers where the copies of files are. Raises OSError, and what ``goes_on`` raises, which is called again
    and again; the destination is then incomplete.
    """
    copying = _Copying(root_fd=destination_fd, goes_on=goes_on, earlier=earlier)
    _copy_directory(source_fd, destination_fd, "", copying, 0)
    return copying.made


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


def _copy_directory(source_fd: int, destination_fd: int, path: str, copying: _Copying, depth: int) -> None:
    if depth > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, "directories are nested too deeply", path[:80] + "…")
    for name in sorted(os.listdir(source_fd)):
        copying.goes_on()
        _copy_entry(source_fd, destination_fd, name, f"{path}{name}", copying, depth)
    copy_attributes(source_fd, destination_fd)


def _copy_entry(
    source_fd: int, destination_fd: int, name: str, path: str, copying: _Copying, depth: int
) -> None:
    try:
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=destination_fd)
            source, destination = _open_both(source_fd, destination_fd, name)
            try:
                _copy_directory(source, destination, f"{path}/", copying, depth + 1)
            finally:
                os.close(source)
                os.close(destination)
        elif kind == stat.S_IFREG:
            if not _linked(status, destination_fd, name, copying):
                _copy_file(source_fd, destination_fd, name, path, copying)
        elif kind in _PLAIN and not _linked(status, destination_fd, name, copying):
            _make_plain(source_fd, destination_fd, name, status)
            if status.st_nlink > 1:
                copying.links[(status.st_dev, status.st_ino)] = path
    except FileNotFoundError:
        # Whoever works there may delete what was listed; what was there to be copied is copied.
        if _exists(source_fd, name):
            raise


def _exists(directory_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _linked(status: os.stat_result, destination_fd: int, name: str, copying: _Copying) -> bool:
    """Give a file that has been copied already another name, if it has been."""
    identity = (status.st_dev, status.st_ino)
    found, root_fd = copying.links.get(identity), copying.root_fd
    earlier = copying.earlier
    if found is None and earlier is not None and status.st_ctime_ns < earlier.since:
        found, root_fd = earlier.places.get(identity), earlier.root_fd
    if found is None:
        return False
    os.link(found, name, src_dir_fd=root_fd, dst_dir_fd=destination_fd, follow_symlinks=False)
    return True


# Not sockets: they belong to processes that will not be there.
_PLAIN = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)


def _make_plain(source_fd: int, destination_fd: int, name: str, status: os.stat_result) -> None:
    """A symbolic link, a fifo or a device."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=destination_fd)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=destination_fd)
    _set_plain_attributes(destination_fd, name, status)


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


def _copy_file(source_fd: int, destination_fd: int, name: str, path: str, copying: _Copying) -> None:
    # Never waiting: by now it may be a fifo.
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source_fd)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ESTALE, "changes its kind while it is copied", path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        destination = os.open(name, flags, 0o600, dir_fd=destination_fd)
        try:
            if not _shared(source, destination):
                _copy_data(source, destination, status.st_size, copying.goes_on)
            copy_attributes(source, destination)
        finally:
            os.close(destination)
        identity = (status.st_dev, status.st_ino)
        copying.made[identity] = path
        if status.st_nlink > 1:
            copying.links[identity] = path
    finally:
        os.close(source)


def _shared(source: int, destination: int) -> bool:
    """Let both files have the same blocks, if the file system can: a copy of one moment, at no cost."""
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError:
        return False
    return True


def _copy_data(source: int, destination: int, size: int, goes_on: Callable[[], object]) -> None:
    """The data between the holes."""
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
            goes_on()
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
