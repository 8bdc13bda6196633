"""inotify(7): being told that files changed. One system call, one function; events are parsed, not read."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.linux.libc import check, libc

IN_MODIFY = 0x2
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000

_HEADER = struct.Struct("iIII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``watch`` is -1 when events were lost (IN_Q_OVERFLOW); ``name`` is a file in a watched directory."""

    watch: int
    mask: int
    name: str


def init() -> int:
    """A non-blocking inotify descriptor."""
    return check(libc.inotify_init1(ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC)), "inotify_init1")


def add_watch(fd: int, path: str, mask: int) -> int:
    """The watch of ``path``; the same one again for the same file."""
    return check(libc.inotify_add_watch(ctypes.c_int(fd), os.fsencode(path), ctypes.c_uint32(mask)), path)


def remove_watch(fd: int, watch: int) -> None:
    """Fails with EINVAL when the kernel has removed it already."""
    check(libc.inotify_rm_watch(ctypes.c_int(fd), ctypes.c_int(watch)), "inotify_rm_watch")


def parse(data: bytes) -> Iterator[Change]:
    """The events of one read."""
    at = 0
    while at + _HEADER.size <= len(data):
        watch, mask, _, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        yield Change(watch=watch, mask=mask, name=os.fsdecode(data[at : at + length].rstrip(b"\0")))
        at += length
