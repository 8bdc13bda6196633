"""Which file system a path is on, by the kernel's numbers (statfs(2), linux/magic.h)."""

from __future__ import annotations

import ctypes
import os

from sampan.linux.libc import libc

BTRFS = 0x9123683E
_NAMES = {
    BTRFS: "btrfs",
    0xEF53: "extfs",
    0x58465342: "xfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0x2FC12FC1: "zfs",
    0x6969: "nfs",
    0xF2F52010: "f2fs",
    0x65735546: "fuse",
    0xCA451A4E: "bcachefs",
}
_SIZE = 120  # bytes of struct statfs on every 64-bit machine


def kind_of(path: str) -> int:
    """The number of the file system. OSError."""
    buffer = ctypes.create_string_buffer(_SIZE)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF


def name_of(path: str) -> str:
    """Its name in Docker's words."""
    return _NAMES.get(kind_of(path), "<unknown>")
