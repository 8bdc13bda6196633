"""A new directory for many files, away from where as many have just been removed.

Theory: ext4 without a journal gives the inode of a removed file to nobody for some minutes, and looks at each
of those again for every file that it makes in the same part of the disk: 5,000 files in the place of 15,000
removed ones take 3 s in place of 0.3. Files are made near their directory, and a directory near its parent,
unless the parent bears the flag of a top directory (``chattr +T``): then in a part with few directories. So
it is made in one that bears the flag and lives for as long as that takes, and moved to its place. Where its
own inode is not among the first of its part, those before it may be removed files: others are tried, and the
first in its part is taken.

Laws:
- What is there already is never replaced, and nothing is left beside the directory, whatever fails.
- No other file system is asked for anything: whether this helps is known before anything is made.

Source: Linux, fs/ext4/ialloc.c (recently_deleted, find_group_orlov).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from sampan.linux import inodeflags, libc

_CANDIDATES = 8
_FIRST = 64
_USUAL = 8192  # inodes of a group, by what mke2fs does if it is told nothing
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def helps(fd: int) -> bool:
    """Whether ``fd`` is on a file system where the place of a directory makes such a difference."""
    device = os.fstat(fd).st_dev
    with suppress(OSError):
        name = os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").rpartition("/")[2]
        with open(f"/sys/fs/ext4/{name}/journal_task", "rb") as file:
            return file.read(7) == b"<none>\n"
    return False


def make_directory(base: bytes, mode: int, parent: int) -> None:
    """As mkdirat(2), where ``helps`` is true of the directory ``parent``."""
    with suppress(FileNotFoundError):
        os.stat(base, dir_fd=parent, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), base)
    try:
        _make_apart(base, mode, parent)
    except FileExistsError:
        raise
    except OSError:
        os.mkdir(base, mode, dir_fd=parent)


def _make_apart(base: bytes, mode: int, parent: int) -> None:
    # Random names: where a directory comes to lie depends on the one that it is made with.
    top, *inside = (f".sampan-{os.urandom(8).hex()}" for _ in range(1 + _CANDIDATES))
    os.mkdir(top, 0o700, dir_fd=parent)
    try:
        fd = os.open(top, _DIRECTORY, dir_fd=parent)
        try:
            inodeflags.add_flag(fd, inodeflags.TOP_DIRECTORY)
            group = _inodes_per_group(fd)
            try:
                first, chosen = group, ""
                for name in inside:
                    os.mkdir(name, mode, dir_fd=fd)
                    place = (os.stat(name, dir_fd=fd).st_ino - 1) % group
                    if place < first:
                        first, chosen = place, name
                    if first < _FIRST:
                        break
                libc.rename_new(fd, os.fsencode(chosen), parent, base)
            finally:
                for name in inside:
                    with suppress(FileNotFoundError):
                        os.rmdir(name, dir_fd=fd)
        finally:
            os.close(fd)
    finally:
        os.rmdir(top, dir_fd=parent)


def _inodes_per_group(fd: int) -> int:
    """As far as it can be told from outside; with a wrong one a candidate is as good as any."""
    found, device = os.fstatvfs(fd), os.fstat(fd).st_dev
    try:
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/size", "rb") as file:
            size = int(file.read()) * 512
    except (OSError, ValueError):
        return _USUAL
    groups = -(-size // (8 * found.f_bsize * found.f_bsize)) or 1
    return found.f_files // groups if found.f_files >= groups and not found.f_files % groups else _USUAL
