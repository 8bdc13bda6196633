"""Removal of whole trees by descriptor, whatever lies in them.

Laws: no symbolic link is followed; a tree of any depth needs a constant number of descriptors and no
recursion, since a directory that is not empty is first moved up beside the work (its depth becomes one).
What is gone already is no error, and what still appears meanwhile is removed as well.
"""

from __future__ import annotations

import contextlib
import errno
import os

from sampan.linux import btrfs

_STAGING = ".removing"
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def remove_tree(dir_fd: int, name: str | bytes) -> None:
    """Remove ``name`` under ``dir_fd`` and all that is below it; at once if it is a file.

    Interrupted, it can be called again.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # EPERM is what POSIX says of a directory
        pass
    top = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        _empty(top)
        while not _drop(dir_fd, name):
            _empty(top)
    finally:
        os.close(top)


def _empty(top: int) -> None:
    """Empty the directory ``top``, flattening what is below it into ``top`` itself."""
    serial = 0
    while True:
        with os.scandir(top) as entries:
            names = [entry.name for entry in entries]
        if not names:
            return
        for name in names:
            if not _drop(top, name):
                serial = _flatten(top, name, serial)


def _flatten(top: int, name: str, serial: int) -> int:
    """Remove the directory ``name`` in ``top``; its own non-empty directories move up into ``top``."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        with os.scandir(fd) as entries:
            below = [entry.name for entry in entries]
        for entry in below:
            if _drop(fd, entry):
                continue
            while True:
                serial += 1
                try:
                    os.rename(entry, f"{_STAGING}-{serial}", src_dir_fd=fd, dst_dir_fd=top)
                    break
                except OSError as error:
                    if error.errno == errno.EXDEV:
                        _remove_subvolume(fd, entry)
                        break
                    if error.errno not in _TAKEN:
                        raise
                    # a name left by an interrupted removal
    finally:
        os.close(fd)
    with contextlib.suppress(FileNotFoundError):
        _drop(top, name)  # what appeared in it meanwhile is for the next round
    return serial


def _remove_subvolume(fd: int, name: str) -> None:
    """btrfs moves nothing out of a subvolume."""
    try:
        btrfs.destroy(fd, name)
    except OSError:
        remove_tree(fd, name)


def _drop(fd: int, name: str | bytes) -> bool:
    """Remove a file or an empty directory; False if it is a directory with something in it."""
    try:
        os.unlink(name, dir_fd=fd)
        return True
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        pass
    try:
        os.rmdir(name, dir_fd=fd)
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
