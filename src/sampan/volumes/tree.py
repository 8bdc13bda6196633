"""Directory trees as a whole: removed by descriptor, written to the disk.

Laws: nothing is reached through a symbolic link, and nothing on another file system is touched: what an
administrator mounted inside a volume is not the volume's to delete.
"""

from __future__ import annotations

import contextlib
import errno
import os

from sampan.linux.libc import check, libc

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove the directory and all in it. Succeeds if it is gone.

    EBUSY, before anything is removed beneath, where another file system is mounted; what does not lie behind
    it may be gone by then.
    """
    parent, name = os.path.split(path.rstrip("/"))
    try:
        parent_fd = os.open(parent or ".", _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            device = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_dev
            _remove(parent_fd, name, device)
    finally:
        os.close(parent_fd)


def _remove(parent_fd: int, name: str, device: int) -> None:
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        if os.fstat(fd).st_dev != device:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
        with os.scandir(fd) as entries:
            children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in children:
            if is_directory:
                _remove(fd, child, device)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)


def sync_file_system(path: str) -> None:
    """Wait until everything on the file system of ``path`` is on its disk. Blocks; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check(libc.syncfs(fd), f"syncfs {path}")
    finally:
        os.close(fd)
