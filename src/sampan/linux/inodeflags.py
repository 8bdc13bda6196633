"""Inode flags (ioctl_iflags(2)): hints to the file system about one directory."""

from __future__ import annotations

import fcntl
import struct

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_WORD = struct.Struct("@l")
TOP_DIRECTORY = 0x00020000
"""The directories in this one are unrelated: ext4 then places each in a part of the disk of its own."""


IN_PLACE = 0x00800000
"""What is written takes the place of what was there: btrfs copies a file's blocks otherwise (chattr +C)."""


def add_flag(fd: int, flag: int) -> None:
    """Set a flag on the file open as ``fd``. Raises OSError where the file system has no such flags."""
    (flags,) = _WORD.unpack(fcntl.ioctl(fd, _GET_FLAGS, _WORD.pack(0)))
    # The kernel reads and writes an int, whatever the call's number says.
    flags &= 0xFFFFFFFF
    if not flags & flag:
        fcntl.ioctl(fd, _SET_FLAGS, _WORD.pack(flags | flag))
