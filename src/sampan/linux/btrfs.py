"""Subvolumes of btrfs: made, copied in an instant, removed. By ioctl (btrfs-ioctl(2), linux/btrfs.h)."""

from __future__ import annotations

import fcntl
import os
import struct

from sampan.linux import filesystems

_CREATE, _SNAPSHOT, _DESTROY = 0x5000940E, 0x50009401, 0x5000940F
_ARGUMENTS = struct.Struct("@q4088s")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_btrfs(path: str) -> bool:
    return filesystems.kind_of(path) == filesystems.BTRFS


def create(path: str) -> None:
    """A new empty subvolume at ``path``. OSError."""
    _call(path, _CREATE)


def snapshot(source: str, path: str) -> None:
    """A new subvolume at ``path`` that is now what ``source``, one too, is. It can be written to. OSError."""
    fd = os.open(source, _DIRECTORY)
    try:
        _call(path, _SNAPSHOT, fd)
    finally:
        os.close(fd)


def destroy(directory: int, name: str) -> None:
    """Remove the subvolume ``name`` of an open directory with all that is in it. OSError, also for what is
    none.
    """
    fcntl.ioctl(directory, _DESTROY, bytearray(_ARGUMENTS.pack(0, os.fsencode(name))))


def _call(path: str, number: int, fd: int = 0) -> None:
    parent, name = os.path.split(path)
    directory = os.open(parent, _DIRECTORY)
    try:
        fcntl.ioctl(directory, number, bytearray(_ARGUMENTS.pack(fd, os.fsencode(name))))
    finally:
        os.close(directory)
